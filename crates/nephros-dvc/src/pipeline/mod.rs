//! `dvc.yaml`: stages with what they read and leave.

mod read;
mod template;

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    place::RepoPath,
    yaml::{Mark, YamlError},
};

/// Name of the file.
pub const PIPELINE_FILE: &str = "dvc.yaml";
/// File of parameters that keys without a file belong to.
pub const PARAMS_FILE: &str = "params.yaml";

/// The stages of a `dvc.yaml`, those of `foreach` and `matrix` written out.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// The file.
    pub file: PathBuf,
    /// In the order of the file.
    pub stages: Vec<Stage>,
}

/// A command with what it reads and leaves.
#[derive(Debug, Clone)]
pub struct Stage {
    /// `name`, or `group@item`.
    pub name: String,
    /// Where it stands.
    pub at: Mark,
    /// What to run.
    pub cmd: Cmd,
    /// Folder that the command runs in and that paths start from.
    pub wdir: RepoPath,
    /// Files and folders read.
    pub deps: Vec<Dep>,
    /// Parameters read, by file.
    pub params: Vec<ParamsOf>,
    /// Files and folders left, metrics and plots among them.
    pub outs: Vec<Out>,
    /// Whether its dependencies count for nothing.
    pub frozen: bool,
    /// Whether it runs every time.
    pub always_changed: bool,
    /// What it is for.
    pub desc: Option<String>,
}

/// What a stage runs, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cmd {
    /// A text, each line of which has a shell of its own.
    One(String),
    /// Each item has a shell of its own.
    Many(Vec<String>),
}

/// A file or folder that is read.
#[derive(Debug, Clone)]
pub struct Dep {
    /// As written, normalised; this is what the lock holds.
    pub path: String,
    /// From the repository's folder.
    pub place: RepoPath,
    /// Where it stands.
    pub at: Mark,
}

/// Parameters of one file.
#[derive(Debug, Clone)]
pub struct ParamsOf {
    /// As written, normalised.
    pub path: String,
    /// From the repository's folder.
    pub place: RepoPath,
    /// Keys with dots between levels; none stand for the whole file.
    pub keys: Vec<String>,
    /// Where it stands.
    pub at: Mark,
}

/// A file or folder that is left.
#[derive(Debug, Clone)]
pub struct Out {
    /// As written, normalised; this is what the lock holds.
    pub path: String,
    /// From the repository's folder.
    pub place: RepoPath,
    /// Where it stands.
    pub at: Mark,
    /// Which list it stands in.
    pub kind: OutKind,
    /// Whether it is kept in the cache.
    pub cache: bool,
    /// Whether it is left in place when the stage runs again.
    pub persist: bool,
}

/// Lists of outs in a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutKind {
    /// `outs`.
    Out,
    /// `metrics`.
    Metric,
    /// `plots`.
    Plot,
}

/// Why a `dvc.yaml` is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// There is none.
    #[error("found no `{path}`")]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// No YAML.
    #[error("`{path}`:{source}")]
    Yaml {
        /// The file.
        path: PathBuf,
        /// What and where.
        source: YamlError,
    },
    /// Not what DVC, or this program, takes.
    #[error("`{path}`:{at}: {what}")]
    Refused {
        /// The file.
        path: PathBuf,
        /// Line and column.
        at: Mark,
        /// What is wrong there.
        what: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// A file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl PipelineError {
    /// One sentence of advice.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { .. } => {
                Some("run this in the folder of a `dvc.yaml`; `nephros init` makes a project with one".into())
            }
            Self::Refused { hint, .. } => hint.clone(),
            Self::Yaml { .. } => {
                Some("YAML is indented by spaces, and a `: ` inside a string needs quotes".into())
            }
            Self::Io(_) => None,
        }
    }
}

impl Pipeline {
    /// Reads the `dvc.yaml` of `folder`, which lies in the repository at `root`.
    ///
    /// # Errors
    /// See [`PipelineError`].
    pub fn load(root: &Path, folder: &RepoPath) -> Result<Self, PipelineError> {
        let file = folder.in_root(root).join(PIPELINE_FILE);
        let text = match fs_err::read_to_string(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(PipelineError::Missing { path: file });
            }
            other => other?,
        };
        let stages = read::stages(root, folder, &file, &text)?;
        Ok(Self { file, stages })
    }

    /// The stage of a name, or all of a `foreach` or `matrix` group.
    pub fn find(&self, name: &str) -> Vec<usize> {
        let group = format!("{name}@");
        let matches = |stage: &Stage| stage.name == name || stage.name.starts_with(&group);
        (0..self.stages.len()).filter(|&index| matches(&self.stages[index])).collect()
    }
}
