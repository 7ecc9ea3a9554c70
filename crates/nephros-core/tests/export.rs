//! Exported files, read back by nephros; other programs read them in `export_peers.rs`.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::path::{Path, PathBuf};

use common::{image, labels, preprocessing, weights};
use nephros_core::{
    bundle::{Bundle, BundleError, BundleParts},
    calibration::{Calibration, CalibrationMethod},
    export::{ExportError, Format, Model, mlflow},
    hint::Hint,
    keras,
    network::Architecture,
    predictor::{ModelError, Predictor},
    preprocessing::Normalization,
    weights::Weights,
};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use tempfile::TempDir;

mod common;

const SIZE: [usize; 3] = [48, 32, 3];
const FORMATS: [(Format, &str); 4] = [
    (Format::Onnx, "model.onnx"),
    (Format::Keras, "model.keras"),
    (Format::H5, "model.h5"),
    (Format::Safetensors, "model.safetensors"),
];

fn parts(architecture: Architecture, hidden_units: usize) -> BundleParts {
    let calibration = Calibration {
        method: CalibrationMethod::Temperature,
        temperature: 1.5,
        images: 40,
        groups: 10,
        unit: "patient".to_owned(),
        ece_before: 0.2,
        ece_after: 0.1,
    };
    BundleParts {
        architecture,
        hidden_units,
        labels: labels(&["Normal", "Tümor"]),
        preprocessing: preprocessing(SIZE),
        params: json!({"EPOCHS": 3}),
        dataset_digest: "d".repeat(64),
        split_digest: String::new(),
        metrics: Value::Null,
        calibration: Some(calibration),
        abstention: None,
        patient: None,
    }
}

/// A bundle in a folder of its own.
struct Saved {
    folder: TempDir,
    weights: Weights,
}

impl Saved {
    fn new(architecture: Architecture, hidden_units: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let weights = weights(architecture, 2, hidden_units, SIZE);
        let parts = parts(architecture, hidden_units);
        Bundle::save(&folder.path().join("bundle"), parts, &weights, &[image(24, 16, 1)]).unwrap();
        Self { folder, weights }
    }

    fn compact() -> Self {
        Self::new(Architecture::Compact, 0)
    }

    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    fn model(&self) -> Model {
        Model::load(&self.path("bundle"), None).unwrap()
    }
}

/// Names of the files and folders below, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs_err::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn keras_files_hold_the_same_model() {
    for (architecture, hidden_units) in [
        (Architecture::Vgg16, 0),
        (Architecture::Vgg16, 5),
        (Architecture::Vgg16Hypercolumn, 3),
        (Architecture::Compact, 0),
        (Architecture::Compact, 7),
        (Architecture::CompactPlaces, 0),
    ] {
        let saved = Saved::new(architecture, hidden_units);
        for (format, name) in [(Format::H5, "model.h5"), (Format::Keras, "model.keras")] {
            let path = saved.path(name);
            saved.model().write(format, &path).unwrap();
            let read = keras::read_model(&path).unwrap();
            let got = (read.architecture, read.hidden_units, read.classes, read.image_size);
            assert_eq!(got, (architecture, hidden_units, 2, SIZE), "{name}");
            assert!(read.weights == saved.weights, "{name} of {architecture} has other weights");
        }
    }
}

#[test]
fn safetensors_hold_the_arrays_and_what_is_known() {
    let saved = Saved::compact();
    let path = saved.path("model.safetensors");
    saved.model().write(Format::Safetensors, &path).unwrap();
    assert!(Weights::load(&path).unwrap() == saved.weights);
    let bytes = fs_err::read(path).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let about: Value = serde_json::from_str(&metadata.metadata().as_ref().unwrap()["nephros"]).unwrap();
    let expected = json!({
        "labels": ["Normal", "Tümor"],
        "preprocessing": {"image_size": SIZE, "resample": "bilinear", "normalization": "unit"},
        "assumed": [],
        "temperature": 1.5,
        "evaluation": "never evaluated",
        "dataset_digest": "d".repeat(64),
        "split_digest": null,
        "architecture": "compact",
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&about[key], value, "{key}");
    }
    assert_eq!(about["model_id"], Bundle::load(&saved.path("bundle")).unwrap().meta.id.as_str());
}

#[test]
fn a_file_is_replaced_as_a_whole_and_is_the_same_each_time() {
    let saved = Saved::compact();
    for (format, name) in FORMATS {
        let path = saved.path("deep/er").join(name);
        saved.model().write(format, &path).unwrap();
        let first = fs_err::read(&path).unwrap();
        saved.model().write(format, &path).unwrap();
        assert!(first == fs_err::read(&path).unwrap(), "{name} differs from one export to the next");
    }
    assert_eq!(names(&saved.path("deep/er")), ["model.h5", "model.keras", "model.onnx", "model.safetensors"]);
}

#[test]
fn what_cannot_be_written_leaves_nothing_behind() {
    let saved = Saved::compact();
    for (format, name) in FORMATS {
        let taken = saved.path("taken").join(name);
        fs_err::create_dir_all(taken.join("by a folder")).unwrap();
        let error = saved.model().write(format, &taken).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(names(&taken), ["by a folder"]);
    }
    assert_eq!(names(&saved.path("taken")).len(), FORMATS.len(), "temporary files stay");
}

#[test]
fn a_keras_file_is_exported_with_what_is_assumed() {
    let saved = Saved::compact();
    saved.model().write(Format::H5, &saved.path("model.h5")).unwrap();
    let model = Model::load(&saved.path("model.h5"), None).unwrap();
    assert_eq!(model.about().labels, ["Normal", "Tumor"]);
    assert_eq!(model.about().assumed, ["labels", "preprocessing"]);
    assert!(model.assumption().unwrap().contains("--preprocessing"));
    let known = Model::load(&saved.path("model.h5"), Some(Normalization::Caffe)).unwrap();
    assert_eq!(known.about().assumed, ["labels"]);
    assert_eq!(known.about().preprocessing.normalization, Normalization::Caffe);

    known.write(Format::Safetensors, &saved.path("again.safetensors")).unwrap();
    assert!(Weights::load(&saved.path("again.safetensors")).unwrap() == saved.weights);
}

#[test]
fn a_model_of_another_scaling_or_no_model_is_refused() {
    let saved = Saved::compact();
    let error = Model::load(&saved.path("bundle"), Some(Normalization::Caffe)).unwrap_err();
    assert!(matches!(error, ModelError::Normalization { .. }), "{error}");
    let error = Model::load(&saved.path("bundle/bundle.json"), None).unwrap_err();
    assert!(matches!(error, ModelError::NotAModel { .. }), "{error}");
    let error = Model::load(&saved.path("gone"), None).unwrap_err();
    assert!(matches!(error, ModelError::Bundle(BundleError::NotFound { .. })), "{error}");
}

#[test]
fn a_changed_bundle_is_not_exported() {
    let saved = Saved::compact();
    let path = saved.path("bundle/weights.safetensors");
    let mut bytes = fs_err::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs_err::write(&path, bytes).unwrap();
    let error = Model::load(&saved.path("bundle"), None).unwrap_err();
    assert!(matches!(error, ModelError::Bundle(BundleError::Hash { .. })), "{error}");
}

fn logged() -> mlflow::Logged<'static> {
    mlflow::Logged { created: "2026-11-23 06:07:22.137416", ..mlflow::Logged::default() }
}

#[test]
fn an_mlflow_folder_has_the_bundle_and_says_what_it_is() {
    let saved = Saved::compact();
    let folder = saved.path("models/kidney");
    let logged = mlflow::Logged { run_id: Some("8aa0"), model_id: Some("m-0b52"), ..logged() };
    mlflow::write(&folder, &saved.model(), &logged).unwrap();
    let expected = ["MLmodel", "bundle", "data", "model.onnx", "python_env.yaml", "requirements.txt"];
    assert_eq!(names(&folder), expected);
    assert_eq!(names(&folder.join("data")), ["keras_module.txt", "model.h5", "save_format.txt"]);
    assert_eq!(names(&saved.path("models")), ["kidney"]);

    let mlmodel = fs_err::read_to_string(folder.join("MLmodel")).unwrap();
    for line in [
        "run_id: \"8aa0\"",
        "model_id: \"m-0b52\"",
        "model_uuid: \"m-0b52\"",
        "artifact_path: null",
        "  python_function:",
        "    loader_module: \"mlflow.onnx\"",
        "utc_time_created: \"2026-11-23 06:07:22.137416\"",
        r#"  inputs: "[{\"type\":\"tensor\",\"tensor-spec\":{\"dtype\":\"float32\",\"shape\":[-1,48,32,3]}}]""#,
        r#"  outputs: "[{\"type\":\"tensor\",\"tensor-spec\":{\"dtype\":\"float32\",\"shape\":[-1,2]}}]""#,
        r#"    labels: ["Normal","Tümor"]"#,
    ] {
        assert!(mlmodel.lines().any(|got| got == line), "no line `{line}` in\n{mlmodel}");
    }

    let (ours, theirs) = (saved.path("bundle"), folder.join(mlflow::BUNDLE));
    let predict = |path: &Path| Predictor::load(path, None).unwrap().predict(&image(30, 20, 4)).unwrap();
    assert_eq!(predict(&ours), predict(&theirs));
}

#[test]
fn an_mlflow_folder_takes_the_place_of_another_and_of_nothing_else() {
    let saved = Saved::compact();
    let folder = saved.path("model");
    fs_err::create_dir(&folder).unwrap();
    mlflow::write(&folder, &saved.model(), &logged()).unwrap();
    fs_err::write(folder.join("old"), "from before").unwrap();
    mlflow::write(&folder, &saved.model(), &logged()).unwrap();
    assert!(!folder.join("old").exists());

    fs_err::remove_file(folder.join("MLmodel")).unwrap();
    let error = mlflow::write(&folder, &saved.model(), &logged()).unwrap_err();
    assert!(matches!(error, ExportError::NotAModelFolder { .. }), "{error}");
    assert!(error.hint().is_some());
    assert!(folder.join("model.onnx").exists());
}

#[test]
fn a_bundle_that_changes_meanwhile_leaves_the_folder_as_it_was() {
    let saved = Saved::compact();
    let folder = saved.path("model");
    mlflow::write(&folder, &saved.model(), &logged()).unwrap();
    let model = saved.model();
    fs_err::write(saved.path("bundle/golden.safetensors"), "changed").unwrap();
    let before = names(&folder);
    let error = mlflow::write(&folder, &model, &logged()).unwrap_err();
    assert!(matches!(error, ExportError::Bundle(BundleError::Hash { .. })), "{error}");
    assert_eq!(names(&folder), before);
    assert_eq!(names(saved.folder.path()), ["bundle", "model"]);
}

#[test]
fn a_keras_model_becomes_an_mlflow_folder_without_a_bundle() {
    let saved = Saved::compact();
    saved.model().write(Format::Keras, &saved.path("model.keras")).unwrap();
    let model = Model::load(&saved.path("model.keras"), None).unwrap();
    mlflow::write(&saved.path("model"), &model, &logged()).unwrap();
    assert!(!saved.path("model").join(mlflow::BUNDLE).exists());
}
