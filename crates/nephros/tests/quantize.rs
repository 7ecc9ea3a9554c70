//! `quantize` of the built binary, on a small drawn cohort and on real scans.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod common;

use std::path::{Path, PathBuf};

use common::{Folder, Run};
use nephros_core::{
    bundle::{Bundle, BundleParts, Holdout},
    network::{Architecture, Precision},
    pixels,
    preprocessing::{Normalization, Preprocessing},
    weights::{Tensor, Weights},
};
use nephros_train::phantom::golden_images;
use serde_json::{Value, json};

const IMAGE_SIZE: [usize; 3] = [32, 32, 3];

/// A network whose signal neither dies nor grows from layer to layer, by seed.
fn weights(architecture: Architecture) -> Weights {
    let mut state = 1_u32;
    let mut next = || {
        // Source: the linear congruential generator of Numerical Recipes.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let arrays = architecture.expected_shapes(2, 0, IMAGE_SIZE).into_iter().map(|(key, shape)| {
        let length = shape.iter().product();
        let scale = (6.0 / shape[1..].iter().product::<usize>() as f32).sqrt();
        let values = match key.as_str() {
            key if key.ends_with("running_var") => vec![1.0; length],
            _ if shape.len() == 1 => (0..length).map(|_| 0.1 * next()).collect(),
            _ => (0..length).map(|_| scale * next()).collect(),
        };
        (key, Tensor { shape, values })
    });
    Weights(arrays.collect())
}

fn save(dir: &Path, architecture: Architecture, weights: &Weights) {
    let parts = BundleParts {
        architecture,
        hidden_units: 0,
        labels: vec!["Normal".into(), "Tumor".into()],
        preprocessing: Preprocessing::new(IMAGE_SIZE, Normalization::Unit),
        params: json!({}),
        dataset_digest: String::new(),
        split_digest: String::new(),
        metrics: Value::Null,
        calibration: None,
        abstention: None,
        patient: None,
    };
    Bundle::save(dir, parts, weights, &golden_images()).unwrap();
}

/// 40 drawn slices of 20 patients in `cohort`, and a model in `model`.
fn prepared(architecture: Architecture) -> Folder {
    let folder = Folder::new();
    let drawn = ["phantom", "--patients", "20", "--slices", "2", "--seed", "3", "--size", "64"];
    assert_eq!(folder.run(&[&drawn[..], &["--out", "cohort"]].concat()).code, 0);
    let mut weights = weights(architecture);
    center(&mut weights, architecture, &folder.path("cohort"));
    save(&folder.path("model"), architecture, &weights);
    folder
}

/// Moves the bias of the head so that half of the images lie on each side: labels can change.
fn center(weights: &mut Weights, architecture: Architecture, cohort: &Path) {
    let mut margins: Vec<f32> = log_odds(weights, architecture, cohort);
    margins.sort_by(f32::total_cmp);
    let middle = f32::midpoint(margins[margins.len() / 2 - 1], margins[margins.len() / 2]);
    weights.0.get_mut("head.bias").unwrap().values[1] -= middle;
}

/// `ln(p(Tumor) / p(Normal))` of each image, by way of the f32 engine.
fn log_odds(weights: &Weights, architecture: Architecture, cohort: &Path) -> Vec<f32> {
    let folder = tempfile::tempdir().unwrap();
    save(&folder.path().join("model"), architecture, weights);
    let predictor = Bundle::load(&folder.path().join("model")).unwrap().predictor;
    let images: Vec<_> =
        files(cohort).iter().map(|path| pixels::decode(&fs_err::read(path).unwrap()).unwrap()).collect();
    let answers = predictor.predict_batch(&images).unwrap();
    answers.iter().map(|answer| (answer.probabilities[1] / answer.probabilities[0]).ln()).collect()
}

fn files(cohort: &Path) -> Vec<PathBuf> {
    let below = |class| fs_err::read_dir(cohort.join(class)).unwrap();
    let mut files: Vec<_> =
        ["Normal", "Tumor"].into_iter().flat_map(below).map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn meta(folder: &Folder, bundle: &str) -> Value {
    serde_json::from_str(&folder.read(&format!("{bundle}/bundle.json"))).unwrap()
}

fn predictions(folder: &Folder, options: &[&str]) -> Vec<Value> {
    let run = folder.run(&[&["-q", "predict", "--json", "cohort"], options].concat());
    assert_eq!(run.code, 0, "{}", run.stderr);
    run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Largest change of a probability and number of changed labels between two runs of `predict`.
fn change(floats: &[Value], int8: &[Value]) -> (f64, usize) {
    let pairs = || floats.iter().zip(int8);
    let tumor = |line: &Value| line["probabilities"]["Tumor"].as_f64().unwrap();
    let largest = pairs().map(|(a, b)| (tumor(a) - tumor(b)).abs()).fold(0.0, f64::max);
    (largest, pairs().filter(|(a, b)| a["label"] != b["label"]).count())
}

#[test]
fn what_the_bundle_says_is_what_predict_gives() {
    let folder = prepared(Architecture::Compact);
    let run = folder.run(&["quantize", "--calibrate", "cohort", "--tolerance", "1", "--json"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let summary: Value = serde_json::from_str(&run.stdout).unwrap();
    let quantization = meta(&folder, "model")["quantization"].clone();
    assert_eq!(summary["holdout"], quantization["holdout"]);
    assert_eq!(summary["calibration"], quantization["calibration"]);
    // Half of 40 images; patients.csv knows the 20 patients, two images each.
    assert_eq!(summary["calibration"]["images"], 20);
    assert_eq!(summary["calibration"]["patients"], 10);
    assert_eq!((&summary["holdout"]["images"], &summary["holdout"]["patients"]), (&json!(20), &json!(10)));
    assert_eq!((&summary["default"], &quantization["default"]), (&json!("int8"), &json!("int8")));
    let (floats, int8) = (predictions(&folder, &["--precision", "f32"]), predictions(&folder, &[]));
    let name = |line: &Value| line["model"].as_str().unwrap().to_owned();
    assert_eq!(name(&int8[0]), format!("{}-int8", name(&floats[0])));
    assert_eq!(summary["model"], int8[0]["model"]);
    // The hold-out is a part of the cohort, and no image changes more than the largest of all.
    let (largest, changed) = change(&floats, &int8);
    let holdout: Holdout = serde_json::from_value(quantization["holdout"].clone()).unwrap();
    assert!(holdout.largest_change > 0.0 && holdout.largest_change <= largest, "{holdout:?} {largest}");
    assert!(holdout.labels_changed <= changed, "{holdout:?} {changed}");
    assert!(holdout.mean_change <= holdout.largest_change);
    assert!(holdout.auroc_f32.is_some() && holdout.auroc_int8.is_some(), "{holdout:?}");
}

#[test]
fn labels_that_change_keep_f32_as_the_default() {
    let folder = prepared(Architecture::Vgg16);
    put_a_threshold_between(&folder);
    let run = folder.run(&["quantize", "--calibrate", "cohort", "--json"]);
    assert_eq!(run.code, 1, "{}{}", run.stdout, run.stderr);
    let summary: Value = serde_json::from_str(&run.stdout).unwrap();
    assert!(summary["holdout"]["labels_changed"].as_u64().unwrap() > 0, "{summary}");
    assert_eq!(meta(&folder, "model")["quantization"]["default"], "f32");
    assert!(!predictions(&folder, &[])[0]["model"].as_str().unwrap().ends_with("-int8"));
    assert!(predictions(&folder, &["--precision", "int8"])[0]["model"].as_str().unwrap().ends_with("-int8"));
    let text = folder.run(&["quantize", "--calibrate", "cohort"]);
    assert_eq!(text.code, 1);
    assert!(text.stdout.contains("8 bits are stored, but f32 stays the default"), "{}", text.stdout);
    let share = summary["holdout"]["share_changed"].as_f64().unwrap();
    let allowed = folder.run(&["quantize", "--calibrate", "cohort", "--tolerance", &share.to_string()]);
    assert_eq!(allowed.code, 0, "{}{}", allowed.stdout, allowed.stderr);
    assert_eq!(meta(&folder, "model")["quantization"]["default"], "int8");
}

/// Moves the head's bias so that the threshold lies between the f32 and the 8-bit answer of the
/// hold-out image that changes most: its label has to change.
fn put_a_threshold_between(folder: &Folder) {
    let run = folder.run(&["quantize", "--calibrate", "cohort", "--tolerance", "1", "--json"]);
    let summary: Value = serde_json::from_str(&run.stdout).unwrap();
    let largest = summary["holdout"]["largest_change"].as_f64().unwrap();
    assert!(largest > 1e-4, "{summary}");
    let floats = predictions(folder, &["--precision", "f32"]);
    let int8 = predictions(folder, &["--precision", "int8"]);
    let tumor = |line: &Value| line["probabilities"]["Tumor"].as_f64().unwrap();
    let pairs = floats.iter().zip(&int8).map(|(a, b)| [tumor(a), tumor(b)]);
    let distance = |[a, b]: &[f64; 2]| ((a - b).abs() - largest).abs();
    let found = pairs.min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap();
    let [a, b] = found.map(|probability| (probability / (1.0 - probability)).ln());
    let mut weights = Weights::load(&folder.path("model/weights.safetensors")).unwrap();
    weights.0.get_mut("head.bias").unwrap().values[1] -= f64::midpoint(a, b) as f32;
    save(&folder.path("model"), Architecture::Vgg16, &weights);
}

#[test]
fn images_without_classes_give_no_auroc_and_broken_ones_are_told() {
    let folder = prepared(Architecture::Compact);
    for (number, path) in files(&folder.path("cohort")).iter().enumerate() {
        folder.write(&format!("flat/{number}.jpg"), fs_err::read(path).unwrap());
    }
    folder.write("flat/broken.png", "not an image");
    folder.write("flat/copy.jpg", fs_err::read(folder.path("flat/1.jpg")).unwrap());
    let run = folder.run(&["quantize", "--calibrate", "flat", "--tolerance", "1", "--json", "--out", "new"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let summary: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(
        (&summary["holdout"]["auroc_f32"], &summary["holdout"]["patients"]),
        (&json!(null), &json!(null))
    );
    let used = ["calibration", "holdout"].map(|part| summary[part]["images"].as_u64().unwrap());
    assert_eq!(used[0] + used[1], 40, "a copy counts once, and what is no image not at all: {summary}");
    assert_eq!(summary["unreadable"][0]["path"], "flat/broken.png");
    assert!(run.stderr.contains("note: `flat/broken.png` is left out: not an image"), "{}", run.stderr);
    assert_eq!(meta(&folder, "model").get("quantization"), None, "the model itself stays as it was");
    assert_eq!(meta(&folder, "new")["format_version"], 2);
}

#[test]
fn what_cannot_be_quantized_is_told() {
    let folder = prepared(Architecture::Compact);
    folder.write("model.h5", "");
    folder.write("few/1.png", "");
    let said = |arguments: &[&str]| {
        let Run { code, stdout, stderr } = folder.run(&[&["quantize", "--calibrate"], arguments].concat());
        assert_eq!(stdout, "");
        format!("{code}\n{stderr}")
    };
    let told = [
        said(&["gone"]),
        said(&["model"]),
        said(&["few"]),
        said(&["cohort", "--model", "model.h5"]),
        said(&["cohort", "--tolerance", "1.5"]),
    ];
    insta::assert_snapshot!("refused", told.join("---\n"));
    let asked = folder.run(&["predict", "--precision", "int8", "cohort"]);
    assert_eq!(asked.code, 1);
    insta::assert_snapshot!("not_quantized", asked.stderr);
    assert_eq!(meta(&folder, "model").get("quantization"), None);
}

#[test]
fn vgg16_can_be_quantized_too() {
    let folder = prepared(Architecture::Vgg16);
    let run = folder.run(&["quantize", "--calibrate", "cohort", "--tolerance", "1"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.starts_with("vgg16-") && run.stdout.contains("-int8 in `model/`"), "{}", run.stdout);
    let size = |file: &str| fs_err::metadata(folder.path(&format!("model/{file}"))).unwrap().len();
    assert!(size("weights.int8.safetensors") * 7 < size("weights.safetensors") * 2, "nearly a quarter");
    let bundle = Bundle::load_as(&folder.path("model"), Some(Precision::Int8)).unwrap();
    assert!(bundle.predictor.id().ends_with("-int8"));
}

#[test]
fn real_scans_calibrate_and_are_compared() {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let shared = std::env::var_os("NEPHROS_SHARED").map_or(default, PathBuf::from);
    let Ok(zip) = fs_err::canonicalize(shared.join("data/kidney-ct-scan-image.zip")) else {
        println!("skipped: no real scans in `{}`", shared.display());
        return;
    };
    let folder = prepared(Architecture::Compact);
    assert_eq!(folder.run(&["init"]).code, 0);
    let config = folder.read("config/config.yaml");
    let source = config.lines().find(|line| line.trim_start().starts_with("source_URL:")).unwrap();
    let ours = format!("  source_URL: {}", zip.display());
    folder.write("config/config.yaml", config.replace(source, &ours));
    assert_eq!(folder.run(&["ingest"]).code, 0);
    let scans = "artifacts/data_ingestion/kidney-ct-scan-image";
    let run = folder.run(&["quantize", "--calibrate", scans, "--tolerance", "1", "--json"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let summary: Value = serde_json::from_str(&run.stdout).unwrap();
    // 465 images, of which 128 calibrate; the manifest knows no patients.
    assert_eq!(
        (&summary["calibration"]["images"], &summary["holdout"]["images"]),
        (&json!(128), &json!(337))
    );
    assert_eq!(summary["calibration"]["patients"], json!(null));
    assert!(summary["holdout"]["auroc_int8"].is_f64(), "{summary}");
    assert!(summary["holdout"]["largest_change"].as_f64().unwrap() < 0.1, "{summary}");
}
