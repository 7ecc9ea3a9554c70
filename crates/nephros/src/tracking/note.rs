//! `run.json`: which run the training of a project is, beside the bundle and not in it.

use std::path::PathBuf;

use nephros_train::{files::write_atomic, stages::Project};
use serde::{Deserialize, Serialize};

/// What a later command has to know of the run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Id of the run.
    pub run: String,
    /// Digest of what the training depends on.
    pub training: String,
    /// Id of the bundle that came out; empty before there is one.
    #[serde(default)]
    pub model: String,
    /// Id of the model in the run.
    #[serde(default)]
    pub logged: Option<String>,
}

impl Note {
    fn path(project: &Project) -> PathBuf {
        project.path(&project.config.training.root_dir).join("run.json")
    }

    /// The note of the last training; one that cannot be read is as good as none.
    pub fn read(project: &Project) -> Option<Self> {
        serde_json::from_slice(&fs_err::read(Self::path(project)).ok()?).ok()
    }

    pub fn write(&self, project: &Project) -> std::io::Result<()> {
        write_atomic(&Self::path(project), &serde_json::to_vec_pretty(self)?)
    }
}
