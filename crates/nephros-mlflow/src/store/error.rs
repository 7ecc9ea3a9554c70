//! Why the embedded store cannot be used.

use std::{
    io,
    path::{Path, PathBuf},
};

use rusqlite::ErrorCode;

/// A store that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// SQLite says no.
    #[error("`{path}`: {source}")]
    Database {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
    /// A file or folder of artifacts cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file is of another version of MLflow.
    #[error("`{path}` has schema revision `{got}`, expected `{expected}`, that of MLflow {version}")]
    Revision {
        /// The file.
        path: PathBuf,
        /// The revision that is known here.
        expected: &'static str,
        /// The first version of MLflow that has it.
        version: &'static str,
        /// In the file.
        got: String,
    },
    /// The file is a database of something else.
    #[error("`{path}` is a database, but not one of MLflow: it has no table `alembic_version`")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The experiment was deleted.
    #[error("experiment `{name}` in `{path}` is deleted")]
    ExperimentDeleted {
        /// Its name.
        name: String,
        /// The file.
        path: PathBuf,
    },
    /// No run has this id.
    #[error("found no run `{id}` in `{path}`")]
    NoRun {
        /// Id, or the start of one.
        id: String,
        /// The file.
        path: PathBuf,
    },
    /// Several runs have ids that start so.
    #[error("`{id}` is the start of {count} run ids, expected one")]
    Ambiguous {
        /// The start.
        id: String,
        /// Runs.
        count: usize,
    },
    /// A parameter cannot become another.
    #[error("parameter `{key}` of run `{run}` is `{old}` and cannot become `{new}`")]
    ParamChanged {
        /// The parameter.
        key: String,
        /// The run.
        run: String,
        /// As logged.
        old: String,
        /// As it was to be.
        new: String,
    },
    /// A path would leave the folder of artifacts.
    #[error("`{path}` is no path below a folder of artifacts")]
    ArtifactPath {
        /// The path.
        path: String,
    },
    /// A row holds what MLflow does not write.
    #[error("`{path}`: {what}")]
    Row {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

impl StoreError {
    /// What to do about it, in a sentence.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Database { path, source } => code(source).and_then(|code| database_hint(code, path)),
            Self::Io(error) => io_hint(error),
            Self::Revision { .. } => Some(
                "with an older MLflow's file, `mlflow db upgrade sqlite:///mlflow.db` brings it up to date; a newer \
                 one needs a newer nephros"
                    .into(),
            ),
            Self::Foreign { .. } => {
                Some("move it away, or name another file in MLFLOW_TRACKING_URI, such as sqlite:///runs.db".into())
            }
            Self::ExperimentDeleted { name, .. } => Some(format!(
                "restore it with `mlflow experiments restore`, or set MLFLOW_EXPERIMENT_NAME to another than `{name}`"
            )),
            Self::NoRun { .. } | Self::Ambiguous { .. } => Some("`nephros runs list` shows all runs".into()),
            Self::ParamChanged { .. } => Some("another value is another run".into()),
            Self::ArtifactPath { .. } | Self::Row { .. } => None,
        }
    }

    /// Whether a write was cut off, which a connection that only reads cannot undo.
    pub(super) fn is_half_written(&self) -> bool {
        let extended = match self {
            Self::Database { source: rusqlite::Error::SqliteFailure(failure, _), .. } => {
                failure.extended_code
            }
            _ => return false,
        };
        extended == rusqlite::ffi::SQLITE_READONLY_ROLLBACK
    }

    /// Whether the file is none that this version can write, so that another has to be used.
    pub fn is_other_file(&self) -> bool {
        match self {
            Self::Revision { .. } | Self::Foreign { .. } => true,
            Self::Database { source, .. } => code(source) == Some(ErrorCode::NotADatabase),
            _ => false,
        }
    }
}

fn code(error: &rusqlite::Error) -> Option<ErrorCode> {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => Some(failure.code),
        _ => None,
    }
}

fn database_hint(code: ErrorCode, path: &Path) -> Option<String> {
    let path = path.display();
    match code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Some(format!(
            "another program has been writing to `{path}` for a long time: end it and try again"
        )),
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen => {
            Some(format!("make `{path}` and its folder writable for this user"))
        }
        ErrorCode::DiskFull => Some("free some space on the disk".into()),
        ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt => {
            Some(format!("move `{path}` away: a new one is made in its place"))
        }
        _ => None,
    }
}

fn io_hint(error: &io::Error) -> Option<String> {
    match error.kind() {
        io::ErrorKind::StorageFull => Some("free some space on the disk".into()),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Some("make the folder `mlruns` writable for this user".into())
        }
        _ => None,
    }
}
