//! `explain` with a small random model: overlays, both outputs, and what is refused.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod common;

use common::{
    Folder,
    model::{bitmap, save_bundle},
};
use nephros_core::pixels::decode;
use serde_json::{Map, Value};

/// A model in its usual place and two scans, one of them corrupt.
fn prepared() -> Folder {
    let folder = Folder::new();
    save_bundle(&folder.path("artifacts/training/bundle"));
    folder.write("scans/deep/a.bmp", bitmap(48, [90, 90, 90]));
    folder.write("scans/empty.png", b"");
    folder
}

fn json_lines(text: &str) -> Vec<Map<String, Value>> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn keys(line: &Map<String, Value>) -> Vec<&str> {
    line.keys().map(String::as_str).collect()
}

#[test]
fn an_overlay_is_written_for_each_image_that_can_be_read() {
    let folder = prepared();
    let run = folder.run(&["explain", "scans", "--json", "--class", "Tumor", "--out", "maps"]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    let lines = json_lines(&run.stdout);
    assert_eq!(
        keys(&lines[0]),
        [
            "path",
            "label",
            "class",
            "method",
            "overlay",
            "faithful",
            "drop_hot",
            "drop_random",
            "milliseconds"
        ]
    );
    assert_eq!(lines[0]["class"], "Tumor");
    assert_eq!(lines[0]["method"], "gradcam");
    let overlay = lines[0]["overlay"].as_str().unwrap();
    assert_eq!(overlay, "maps/deep/a.gradcam.png");
    let drawn = decode(&fs_err::read(folder.path(overlay)).unwrap()).unwrap();
    assert!(drawn.width() > 2 * 48 && drawn.height() > 48);
    assert_eq!(keys(&lines[1]), ["path", "error", "hint"]);
    assert_eq!(lines[1]["path"], "scans/empty.png");
    assert!(run.stderr.contains("1 explained"), "{}", run.stderr);
    let names: Vec<_> = fs_err::read_dir(folder.path("maps/deep")).unwrap().collect();
    assert_eq!(names.len(), 1, "no temporary file is left");
}

#[test]
fn every_method_names_its_own_file() {
    let folder = prepared();
    for method in ["gradcam", "hirescam", "occlusion", "lime", "shap"] {
        let run = folder.run(&["explain", "scans/deep/a.bmp", "--method", method]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        let overlay = format!("explanations/a.{method}.png");
        assert!(run.stdout.contains(&overlay), "{}", run.stdout);
        assert!(folder.path(&overlay).is_file());
    }
}

#[test]
fn an_unknown_class_is_a_usage_error_that_lists_the_classes() {
    let folder = prepared();
    let run = folder.run(&["explain", "scans", "--class", "tumor"]);
    assert_eq!(run.code, 2);
    assert!(
        run.stderr.contains("error: the model has no class `tumor`; it knows Normal, Tumor"),
        "{}",
        run.stderr
    );
    assert!(!folder.path("explanations").exists());
}

#[test]
fn the_mass_in_drawn_lesions_is_told() {
    let folder = prepared();
    let drawn = ["phantom", "--patients=2", "--slices=1", "--seed=3", "--out=cohort", "--masks", "--size=96"];
    assert_eq!(folder.run(&drawn).code, 0);
    // A random model may see nothing that speaks for one class; it cannot for both.
    let mut told = 0;
    for class in ["Normal", "Tumor"] {
        let arguments = ["explain", "cohort/Tumor", "--json", "--masks", "cohort/masks", "--class", class];
        let run = folder.run(&arguments);
        assert_eq!(run.code, 0, "{}", run.stderr);
        let line = &json_lines(&run.stdout)[0];
        if let Some(mass) = line.get("mass_in_lesion").and_then(Value::as_f64) {
            let area = line["lesion_share_of_body"].as_f64().unwrap();
            assert!((0.0..=1.0).contains(&mass) && (0.0..0.5).contains(&area) && area > 0.0, "{mass} {area}");
            assert!(run.stderr.contains("of the maps' mass lies in the lesions"), "{}", run.stderr);
            told += 1;
        }
    }
    assert!(told > 0);
    let run = folder.run(&["explain", "scans/deep/a.bmp", "--json", "--masks", "cohort/masks"]);
    assert_eq!(run.code, 1);
    assert!(run.stdout.contains("found no lesion mask `cohort/masks/deep/a.png`"), "{}", run.stdout);
}
