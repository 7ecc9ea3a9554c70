//! Stores with something in them.

#![allow(dead_code, reason = "each test binary uses a part of this")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

pub mod real;
pub mod scripted;

use std::path::{Path, PathBuf};

use nephros_mlflow::{
    run::{Batch, DatasetInput, Entry, Metric, NewRun, RunStatus, now_ms},
    store::Store,
};
use serde_json::json;
use tempfile::TempDir;

/// Where DagsHub has the MLflow of a repository.
pub const DAGSHUB: &str = "/jane/kidney-ct.mlflow";

/// A folder with a store.
pub struct Project(TempDir);

impl Project {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn root(&self) -> &Path {
        self.0.path()
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.root().join(below)
    }

    pub fn file(&self, below: &str, content: impl AsRef<[u8]>) -> PathBuf {
        fs_err::write(self.path(below), content).unwrap();
        self.path(below)
    }

    pub fn store(&self) -> Store {
        Store::open(&self.path("mlflow.db"), &self.path("mlruns")).unwrap()
    }

    /// A store and a run in it.
    pub fn run(&self) -> (Store, String) {
        let store = self.store();
        let run = store.create_run(&new_run()).unwrap();
        (store, run)
    }
}

/// A store with a run that has everything; gives the id of the run and of its model.
pub fn full_run(project: &Project) -> (Store, String, String) {
    let (store, run) = project.run();
    let metrics = vec![metric("loss", 2.0, 1), metric("loss", 1.0, 2), metric("broken", f64::NAN, 1)];
    let params = vec![Entry::new("IMAGE_SIZE", "[224, 224, 3]"), Entry::new("WEIGHTS", "imagenet")];
    store.log(&run, Batch { metrics, params, tags: vec![Entry::new("note", "Größe")] }).unwrap();
    let dataset = DatasetInput {
        name: "kidney-ct-scan-image".into(),
        digest: "0123456789abcdef".into(),
        source_type: "http".into(),
        source: json!({ "url": "https://example.org/data.zip" }).to_string(),
        profile: json!({ "images": 465 }).to_string(),
        context: "training".into(),
    };
    store.log_inputs(&run, vec![dataset]).unwrap();
    store.log_artifact(&run, &project.file("roc.svg", "<svg/>"), "plots/roc curve.svg").unwrap();
    let model = log_model(&store, &run);
    store.register("VGG16Model", &model, &[Entry::new("nephros.gate", "passed")], "jane", false).unwrap();
    store.set_status(&run, RunStatus::Finished).unwrap();
    (store, run, model)
}

/// Logs a model folder as a model of a run.
pub fn log_model(store: &Store, run: &str) -> String {
    let model = store.begin_model(run, "model").unwrap();
    for (name, content) in model_folder() {
        let path = model.folder.join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, content).unwrap();
    }
    store.finish_model(&model, &[Entry::new("nephros.model", "compact-0a1b2c3d")]).unwrap();
    model.id
}

pub fn new_run() -> NewRun {
    NewRun {
        experiment: "kidney".into(),
        name: "train".into(),
        user: "jane".into(),
        source: "nephros".into(),
        tags: vec![Entry::new("nephros.version", "0.1.0")],
    }
}

pub fn metric(key: &str, value: f64, step: i64) -> Metric {
    Metric { key: key.into(), value, timestamp: now_ms(), step }
}

/// Files of a model as far as MLflow and the registry look at them.
pub fn model_folder() -> [(&'static str, &'static str); 4] {
    [
        (
            "MLmodel",
            "artifact_path: \"model\"\nflavors:\n  onnx:\n    data: model.onnx\n  python_function:\n    env:\n      \
             virtualenv: python_env.yaml\nmodel_uuid: \"abc\"\nutc_time_created: '2026-11-23 06:07:20.481427'\n",
        ),
        ("bundle/bundle.json", "{\"weights_sha256\":\"abc\"}\n"),
        ("bundle/weights.safetensors", "weights"),
        ("data/model.h5", "keras"),
    ]
}
