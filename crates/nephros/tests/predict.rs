//! `predict` with a small random model: files of every kind, both outputs.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod common;

use common::{
    Folder, Run,
    model::{bitmap, save_bundle},
};
use serde_json::{Map, Value, json};

/// `artifacts/training/bundle` and a folder of scans: two good files, a corrupt one, a text.
fn prepared() -> Folder {
    let folder = Folder::new();
    save_bundle(&folder.path("artifacts/training/bundle"));
    folder.write("scans/a.bmp", bitmap(32, [10, 10, 10]));
    folder.write("scans/b corrupt.png", b"\x89PNG\r\n\x1a\nand then nothing");
    folder.write("scans/deep/c.BMP", bitmap(48, [250, 200, 150]));
    folder.write("scans/notes.txt", "not walked");
    folder
}

fn json_lines(run: &Run) -> Vec<Map<String, Value>> {
    run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn keys(line: &Map<String, Value>) -> Vec<&str> {
    line.keys().map(String::as_str).collect()
}

#[test]
fn json_has_the_keys_of_the_contract_in_the_order_of_the_input() {
    let folder = prepared();
    let run = folder.run(&["predict", "--json", "missing.jpg", "scans", "scans/notes.txt", "scans/a.bmp"]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    let lines = json_lines(&run);
    let paths: Vec<&str> = lines.iter().map(|line| line["path"].as_str().unwrap()).collect();
    assert_eq!(
        paths,
        [
            "missing.jpg",
            "scans/a.bmp",
            "scans/b corrupt.png",
            "scans/deep/c.BMP",
            "scans/notes.txt",
            "scans/a.bmp"
        ]
    );
    for good in [1, 3, 5] {
        let line = &lines[good];
        assert_eq!(keys(line), ["path", "label", "probability", "probabilities", "model", "milliseconds"]);
        let probabilities = line["probabilities"].as_object().unwrap();
        assert_eq!(keys(probabilities), ["Normal", "Tumor"]);
        let sum: f64 = probabilities.values().map(|value| value.as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
        assert_eq!(line["probability"], probabilities[line["label"].as_str().unwrap()]);
        assert!(line["model"].as_str().unwrap().starts_with("compact-"));
        assert!(line["milliseconds"].as_f64().unwrap() > 0.0);
    }
    assert_eq!(lines[1]["probabilities"], lines[5]["probabilities"], "the same file twice");
    for bad in [0, 2, 4] {
        assert_eq!(keys(&lines[bad]), ["path", "error", "hint"]);
    }
    let failures: Vec<String> =
        [0, 2, 4].map(|bad| format!("{}\n{}", lines[bad]["error"], lines[bad]["hint"])).into();
    insta::assert_snapshot!("failures", failures.join("\n---\n"));
    assert!(run.stderr.ends_with("3 could not be read\n"), "{}", run.stderr);
}

#[test]
fn a_folder_is_a_patient_where_that_is_asked() {
    let folder = prepared();
    folder.write("broken/broken.png", b"no picture");
    folder.write("scans/d.bmp", bitmap(40, [90, 160, 30]));
    fs_err::create_dir(folder.path("empty")).unwrap();
    // The same image by another name counts once, and what is no file is nobody's.
    let paths = ["scans", "broken", "empty", "missing/a.png", "./scans/a.bmp"];
    let run = folder.run(&[&["predict", "--patients", "--json"], paths.as_slice()].concat());
    assert_eq!(run.code, 1, "{}", run.stderr);
    let lines = json_lines(&run);
    let (images, patients) = lines.split_at(8);
    assert!(images.iter().all(|line| line.contains_key("path")), "{images:?}");
    let names: Vec<&str> = patients.iter().map(|line| line["patient"].as_str().unwrap()).collect();
    assert_eq!(names, ["broken", "scans", "scans/deep"]);
    assert_eq!(keys(&patients[0]), ["patient", "error", "hint"]);
    assert_eq!(patients[0]["error"], "none of the 1 image gets a label");
    let scans = &patients[1];
    assert_eq!(
        keys(scans),
        ["patient", "label", "probability", "probabilities", "model", "images", "left_out"]
    );
    assert_eq!((scans["images"].as_u64(), scans["left_out"].as_u64()), (Some(2), Some(1)));
    let tumor = |line: &Map<String, Value>| line["probabilities"]["Tumor"].as_f64().unwrap();
    let of = |path: &str| tumor(images.iter().find(|line| line["path"] == path).unwrap());
    assert!((tumor(scans) - f64::midpoint(of("scans/a.bmp"), of("scans/d.bmp"))).abs() < 1e-6, "{scans:?}");
    // A patient of one image has that image's probabilities.
    assert_eq!(patients[2]["probabilities"], images[3]["probabilities"], "{lines:?}");
    assert!(run.stderr.contains("this model knows no error rate for patients"), "{}", run.stderr);

    let text = folder.run(&["predict", "--patients", "scans/a.bmp", "scans/deep", "broken"]);
    let told: Vec<&str> = text.stdout.lines().filter(|line| line.starts_with("patient ")).collect();
    assert_eq!(told.len(), 3, "{}", text.stdout);
    assert_eq!(told[0], "patient broken  no label: none of the 1 image gets a label");
    assert!(told[1].starts_with("patient scans  ") && told[1].ends_with("% from 1 image"), "{}", told[1]);
    assert!(!folder.run(&["predict", "scans"]).stdout.contains("patient "));
}

#[test]
fn a_patient_is_read_as_the_bundle_says() {
    let folder = prepared();
    let meta = folder.path("artifacts/training/bundle/bundle.json");
    let mut bundle: Value = serde_json::from_slice(&fs_err::read(&meta).unwrap()).unwrap();
    bundle["patient"] = json!({
        "calibration": {"method": "temperature", "temperature": 0.01, "images": 40, "groups": 10, "unit": "patient",
            "ece_before": 0.2, "ece_after": 0.1},
        "abstention": {"method": "hierarchical-conformal", "error_rate": 0.1, "scope": "label",
            "thresholds": [0.0, 0.0], "groups": 10, "groups_of_label": [5, 5], "needed": 9, "unit": "patient",
            "chosen_by_validation": false},
    });
    fs_err::write(&meta, bundle.to_string()).unwrap();
    let run = folder.run(&["predict", "--patients", "--json", "scans/a.bmp"]);
    let [image, patient] = <[_; 2]>::try_from(json_lines(&run)).unwrap();
    // A hundredth of the temperature raises the odds to their hundredth power.
    let odds = |line: &Map<String, Value>| {
        let of = |label: &str| line["probabilities"][label].as_f64().unwrap();
        (of("Tumor") / of("Normal")).ln()
    };
    assert!((odds(&patient) / odds(&image) - 100.0).abs() < 0.1, "{image:?} {patient:?}");
    let keys = keys(&patient);
    assert_eq!(keys[keys.len() - 3..], ["set", "refer", "reason"]);
    assert_eq!(patient["set"], json!(["Normal", "Tumor"]));
    assert_eq!(patient["refer"], true);
    let text = folder.run(&["predict", "--patients", "scans/a.bmp"]);
    assert!(text.stdout.ends_with("from 1 image  refer to a radiologist\n"), "{}", text.stdout);
}

#[test]
fn text_is_aligned_and_failures_are_told_on_stderr() {
    let folder = prepared();
    let run = folder.run(&["predict", "scans"]);
    assert_eq!(run.code, 1);
    let columns: Vec<Option<usize>> = run.stdout.lines().map(|line| line.find('%')).collect();
    assert!(columns.len() == 2 && columns[0].is_some() && columns[0] == columns[1], "{}", run.stdout);
    assert!(run.stderr.contains("error: `scans/b corrupt.png`: "), "{}", run.stderr);
    assert!(run.stderr.contains("2 images, "), "{}", run.stderr);
}

#[test]
fn outside_a_project_no_log_is_left_and_inside_no_path_is_logged() {
    let folder = prepared();
    folder.run(&["predict", "scans"]);
    assert!(!folder.path("logs").exists());
    assert_eq!(folder.run(&["init"]).code, 0);
    folder.run(&["-vv", "predict", "scans"]);
    assert!(!folder.read("logs/running_logs.log").contains("scans"));
}

#[test]
fn a_model_that_was_never_evaluated_answers_with_a_warning() {
    let run = prepared().run(&["predict", "scans/a.bmp"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(run.stderr.matches("warning: this model was never evaluated").count(), 1, "{}", run.stderr);
}

#[test]
fn all_good_is_0_and_quiet_is_quiet() {
    let folder = prepared();
    let run = folder.run(&["-q", "predict", "scans/a.bmp", "scans/deep"]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    assert_eq!(run.stdout.lines().count(), 2);
}

#[test]
fn thousands_of_files_keep_their_order_and_a_closed_pipe_ends_quietly() {
    let folder = prepared();
    for number in 0..1000 {
        folder.write(&format!("many/{number:04}.bmp"), bitmap(32, [(number % 251) as u8, 0, 0]));
    }
    let run = folder.run(&["predict", "--json", "many"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let paths: Vec<String> =
        json_lines(&run).iter().map(|line| line["path"].as_str().unwrap().into()).collect();
    assert_eq!(paths, (0..1000).map(|number| format!("many/{number:04}.bmp")).collect::<Vec<_>>());

    let mut child = folder.start(&["-q", "predict", "many"]);
    drop(child.stdout.take());
    let run = Run::from(child.wait_with_output().unwrap());
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
}

#[test]
fn a_model_is_looked_for_where_the_contract_says() {
    let folder = prepared();
    fs_err::create_dir(folder.path("model")).unwrap();
    fs_err::rename(folder.path("artifacts/training/bundle/"), folder.path("elsewhere")).unwrap();
    let none = folder.run(&["predict", "scans/a.bmp"]);
    assert_eq!((none.code, none.stdout.as_str()), (1, ""));
    insta::assert_snapshot!("no_model", none.stderr);

    assert_eq!(folder.run(&["predict", "--model", "elsewhere", "scans/a.bmp"]).code, 0);
    fs_err::remove_dir(folder.path("model")).unwrap();
    fs_err::rename(folder.path("elsewhere"), folder.path("model")).unwrap();
    assert_eq!(folder.run(&["predict", "scans/a.bmp"]).code, 0);

    let absent = folder.run(&["predict", "--model", "gone", "scans/a.bmp"]);
    assert_eq!(absent.code, 1);
    insta::assert_snapshot!("absent_model", absent.stderr);
}

#[test]
fn a_bundle_that_was_changed_is_refused() {
    let folder = prepared();
    let weights = folder.path("artifacts/training/bundle/weights.safetensors");
    let mut bytes = fs_err::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs_err::write(&weights, bytes).unwrap();
    let run = folder.run(&["predict", "scans/a.bmp"]);
    assert_eq!((run.code, run.stdout.as_str()), (1, ""));
    assert!(run.stderr.contains("was changed after the bundle was made"), "{}", run.stderr);
    assert!(run.stderr.contains("\nhint: "), "{}", run.stderr);
}

#[test]
fn a_model_that_does_not_know_its_training_images_names_no_similar_ones() {
    let folder = prepared();
    for command in ["predict", "explain"] {
        let run = folder.run(&[command, "--similar", "3", "scans/a.bmp"]);
        assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{}", run.stderr);
        assert!(run.stderr.contains("does not know whose its training images are"), "{}", run.stderr);
        assert!(run.stderr.contains("hint: train again"), "{}", run.stderr);
    }
    assert!(!folder.path("explanations").exists());
}
