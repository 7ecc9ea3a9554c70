//! `export` with a small random model: every format, what it says, and what it refuses.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod common;

use common::{
    Folder,
    model::{bitmap, save_bundle},
};
use serde_json::{Value, json};

const FILES: [(&str, &str); 4] = [
    ("onnx", "model.onnx"),
    ("keras", "model.keras"),
    ("h5", "model.h5"),
    ("safetensors", "model.safetensors"),
];

fn prepared() -> Folder {
    let folder = Folder::new();
    save_bundle(&folder.path("artifacts/training/bundle"));
    folder
}

#[test]
fn every_format_has_a_name_of_its_own_and_says_what_goes_in() {
    let folder = prepared();
    for (format, name) in FILES {
        let run = folder.run(&["export", "--format", format]);
        assert_eq!(run.code, 0, "{format}: {}", run.stderr);
        let lines: Vec<&str> = run.stdout.lines().collect();
        assert!(
            lines[0].starts_with("compact-") && lines[0].contains(&format!("in `{name}`, ")),
            "{lines:?}"
        );
        assert_eq!(
            lines[1..],
            [
                "input: float32 [batch, 32, 32, 3], pixels after the preprocessing: resized to 32x32, RGB in 0 to 1",
                "output: float32 [batch, 2], softmax of the network before calibration, in the order of the labels: \
                 Normal, Tumor",
            ]
        );
        assert_eq!(run.stderr.matches("was never evaluated").count(), 1, "{}", run.stderr);
        assert!(folder.path(name).is_file(), "{name}");
    }
    let quiet = folder.run(&["-q", "export", "--format", "mlflow"]);
    assert_eq!((quiet.code, quiet.stderr.as_str()), (0, ""));
    assert!(folder.path("mlflow-model/MLmodel").is_file());
}

#[test]
fn json_is_one_line() {
    let folder = prepared();
    for (format, name) in FILES {
        let out = format!("deep/er/{name}");
        let run = folder.run(&["export", "--format", format, "--out", &out, "--json"]);
        let line: Value = serde_json::from_str(run.stdout.trim_end()).unwrap();
        let bytes = fs_err::metadata(folder.path(&out)).unwrap().len();
        let model = line["model"].as_str().unwrap();
        assert!(model.starts_with("compact-"), "{model}");
        let preprocessing =
            json!({"image_size": [32, 32, 3], "resample": "bilinear", "normalization": "unit"});
        let expected = json!({"path": out, "format": format, "model": model, "bytes": bytes,
            "labels": ["Normal", "Tumor"], "preprocessing": preprocessing, "temperature": null});
        assert_eq!(line, expected);
    }
}

#[test]
fn what_is_exported_for_keras_predicts_the_same_here() {
    let folder = prepared();
    folder.write("a.bmp", bitmap(40, [200, 30, 90]));
    let predict = |model: &str| {
        let run =
            folder.run(&["-q", "predict", "--json", "--preprocessing", "unit", "--model", model, "a.bmp"]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        serde_json::from_str::<Value>(run.stdout.trim_end()).unwrap()["probabilities"].clone()
    };
    for format in ["keras", "h5"] {
        assert_eq!(folder.run(&["export", "--format", format]).code, 0);
    }
    assert_eq!(folder.run(&["export", "--format", "mlflow"]).code, 0);
    let bundle = predict("artifacts/training/bundle");
    for model in ["model.keras", "model.h5", "mlflow-model/bundle"] {
        assert_eq!(predict(model), bundle, "{model}");
    }
}

#[test]
fn a_keras_file_is_exported_with_a_note_of_what_is_assumed() {
    let folder = prepared();
    assert_eq!(folder.run(&["export", "--format", "h5"]).code, 0);
    let run = folder.run(&["export", "--format", "onnx", "--model", "model.h5"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(
        run.stderr.starts_with("note: `model.h5` does not say how its images were prepared"),
        "{}",
        run.stderr
    );
    let known = ["export", "--format", "onnx", "--model", "model.h5", "--preprocessing", "caffe", "--json"];
    let run = folder.run(&known);
    assert!(run.stdout.contains(r#""normalization":"caffe""#), "{}", run.stdout);
}

#[test]
fn what_cannot_be_exported_is_told_and_leaves_nothing() {
    let folder = prepared();
    folder.write("scans/a.bmp", bitmap(8, [1, 2, 3]));
    let mut texts = Vec::new();
    for (name, arguments) in [
        ("a folder of something else", ["export", "--format", "mlflow", "--out", "scans"].as_slice()),
        ("a file in the way", &["export", "--format", "onnx", "--out", "scans/a.bmp/model.onnx"]),
        ("another scaling", &["export", "--format", "onnx", "--preprocessing", "caffe"]),
        ("no model", &["export", "--format", "onnx", "--model", "scans/a.bmp"]),
    ] {
        let run = folder.run(&[&["-q"], arguments].concat());
        assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{name}");
        texts.push(format!("## {name}\n{}\n", run.stderr));
    }
    assert!(folder.path("scans/a.bmp").is_file());
    assert!(!folder.path("model.onnx").exists());
    insta::assert_snapshot!("export_refusals", texts.concat());
}
