//! What can go wrong, and what to do about it.

use std::{io, path::PathBuf};

use crate::{
    config::ConfigError, graph::GraphError, guard::BusyError, lock::LockError, measure::FileError,
    params::ParamsError, pipeline::PipelineError,
};

/// Why a pipeline is not looked at or not run to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DvcError {
    /// `.dvc/config`.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// `dvc.yaml`.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The order of its stages.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// `dvc.lock`.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Parameters.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// A file that is read or left, or an object of the cache.
    #[error(transparent)]
    File(FileError),
    /// Another process.
    #[error(transparent)]
    Busy(#[from] BusyError),
    /// A stage reads what nothing makes and nobody has.
    #[error("`{path}`, which stage `{stage}` reads, does not exist")]
    NoDependency {
        /// The stage.
        stage: String,
        /// The path, from the repository's folder.
        path: String,
        /// A file that says where it can be fetched.
        pointer: Option<PathBuf>,
    },
    /// A parameter that a stage reads is not there.
    #[error("`{path}` has no parameter {keys}, which stage `{stage}` reads")]
    NoParameter {
        /// The stage.
        stage: String,
        /// File of parameters.
        path: String,
        /// The keys, quoted.
        keys: String,
    },
    /// A command failed.
    #[error("stage `{stage}` failed: `{cmd}` ended with {status}")]
    Command {
        /// The stage.
        stage: String,
        /// The line that failed.
        cmd: String,
        /// Exit status or signal.
        status: String,
        /// Exit status.
        code: Option<i32>,
    },
    /// The shell cannot be started, or not there.
    #[error("stage `{stage}`: `{shell}` cannot be run in `{folder}`")]
    Shell {
        /// The stage.
        stage: String,
        /// The program.
        shell: PathBuf,
        /// Folder to run it in.
        folder: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A command succeeded and did not do what it is for.
    #[error("stage `{stage}` ended well but did not write its out `{path}`")]
    NoOut {
        /// The stage.
        stage: String,
        /// The out, from the repository's folder.
        path: String,
    },
    /// An out that does not count is none.
    #[error("the out `{path}` of stage `{stage}` is left out by `.dvcignore`")]
    IgnoredOut {
        /// The stage.
        stage: String,
        /// The out, from the repository's folder.
        path: String,
    },
    /// An out that git keeps too.
    #[error("the out `{path}` of stage `{stage}` is tracked by git, which DVC does not allow")]
    TrackedOut {
        /// The stage.
        stage: String,
        /// The out, from the repository's folder.
        path: String,
    },
    /// The user asked to stop.
    #[error("stopped")]
    Stopped,
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<FileError> for DvcError {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Stopped => Self::Stopped,
            error => Self::File(error),
        }
    }
}

impl DvcError {
    /// One sentence of advice.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Config(error) => error.hint(),
            Self::Pipeline(error) => error.hint(),
            Self::Graph(error) => error.hint(),
            Self::Lock(error) => error.hint(),
            Self::Params(error) => error.hint(),
            Self::File(error) => error.hint(),
            Self::Busy(error) => error.hint(),
            Self::NoDependency { pointer: Some(pointer), .. } => {
                Some(format!("`{}` tracks it: `dvc pull` fetches it", pointer.display()))
            }
            Self::NoDependency { .. } => Some("correct its path in `dvc.yaml`, or put it there".into()),
            Self::NoParameter { .. } => {
                Some("add it with its default, or take it out of the stage's `params` in `dvc.yaml`".into())
            }
            Self::Command { code: Some(127), .. } => {
                Some("127 stands for a program that was not found: check its name and `PATH`".into())
            }
            Self::Command { code: Some(126), .. } => {
                Some("126 stands for a file that cannot be run: check that it is executable".into())
            }
            Self::Command { .. } => Some(
                "what it printed stands above; run it again when that is settled: finished stages are kept"
                    .into(),
            ),
            Self::Shell { .. } => Some("`SHELL` names the program; the folder is the stage's `wdir`".into()),
            Self::NoOut { .. } => Some("correct the path in `dvc.yaml`, or what the command writes".into()),
            Self::IgnoredOut { .. } => Some("take its pattern out of `.dvcignore`".into()),
            Self::TrackedOut { path, .. } => Some(format!(
                "`git rm -r --cached '{path}'` takes it out of git and leaves it on disk; or keep it there, \
                 with `cache: false` in `dvc.yaml`"
            )),
            Self::Io(error) if error.kind() == io::ErrorKind::StorageFull => {
                Some("free some space, then run it again: finished stages are kept".into())
            }
            Self::Stopped | Self::Io(_) => None,
        }
    }
}
