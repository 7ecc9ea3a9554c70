//! Stores with something in them.

#![allow(dead_code, reason = "each test binary uses a part of this")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

pub mod scripted;

use std::path::{Path, PathBuf};

use nephros_mlflow::{
    run::{Entry, Metric, NewRun, now_ms},
    store::Store,
};
use tempfile::TempDir;

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
        ("MLmodel", "flavors: {}\nmodel_uuid: abc\nutc_time_created: '2026-11-23 06:07:20.481427'\n"),
        ("bundle/bundle.json", "{\"weights_sha256\":\"abc\"}\n"),
        ("bundle/weights.safetensors", "weights"),
        ("data/model.h5", "keras"),
    ]
}
