//! The embedded store: a SQLite file as MLflow makes it, and a folder of artifacts beside it.
//!
//! `mlflow ui` in the same folder shows what is in it. Tables whose names begin with `nephros_` are ours:
//! they hold the events that servers are fed with, in order, and how far each server is.

mod copies;
mod error;
mod models;
mod read;
mod registry;
mod schema;
mod write;

use std::{
    path::{Component, Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

pub use copies::Copy;
pub use error::StoreError;
pub use models::NewModel;
pub use read::LoggedModel;
pub(crate) use read::files_below;
pub use schema::{KNOWN_REVISION, KNOWN_VERSION};

use crate::event::Event;

/// Name of the file in a project folder, as MLflow looks for it.
pub const FILE: &str = "mlflow.db";
/// The file that is used where [`FILE`] is one that this version cannot write.
pub const OTHER_FILE: &str = "mlflow-nephros.db";
/// Folder of the artifacts, beside the file.
pub const ARTIFACTS: &str = "mlruns";

/// How long another writer is waited for. MLflow waits as long.
const BUSY: Duration = Duration::from_secs(20);

/// An open store.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    path: PathBuf,
    artifacts: PathBuf,
}

/// A store, and why it is not in the file that was asked for.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Store,
    /// What is wrong with the file that was asked for.
    pub instead: Option<StoreError>,
}

impl Store {
    /// Opens the file at `path` for writing, and makes it if there is none. `artifacts` is the folder for
    /// new experiments' files.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn open(path: &Path, artifacts: &Path) -> Result<Self, StoreError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs_err::create_dir_all(folder)?;
        }
        let mut store = Self::connect(path, artifacts, OpenFlags::default())?;
        schema::prepare(&mut store.connection, path, &store.artifacts)?;
        Ok(store)
    }

    /// Opens the file at `path` for reading; `None` where there is none.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn open_existing(path: &Path, artifacts: &Path) -> Result<Option<Self>, StoreError> {
        if !path.exists() {
            return Ok(None);
        }
        let open = || -> Result<Option<Self>, StoreError> {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let store = Self::connect(path, artifacts, flags)?;
            schema::check_revision(&store.connection, path)?;
            Ok(Some(store))
        };
        match open() {
            // A process that was killed while it wrote left its journal, which only a writer may undo.
            Err(error) if error.is_half_written() => {
                let writer = Self::connect(path, artifacts, OpenFlags::default())?;
                schema::check_revision(&writer.connection, path)?;
                open()
            }
            other => other,
        }
    }

    /// Opens `path` for writing, or [`OTHER_FILE`] beside it where `path` is a file of another version of
    /// MLflow, or of something else.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn open_or_beside(path: &Path, artifacts: &Path) -> Result<Opened, StoreError> {
        match Self::open(path, artifacts) {
            Err(error) if error.is_other_file() => {
                let store = Self::open(&path.with_file_name(OTHER_FILE), artifacts)?;
                Ok(Opened { store, instead: Some(error) })
            }
            other => Ok(Opened { store: other?, instead: None }),
        }
    }

    fn connect(path: &Path, artifacts: &Path, flags: OpenFlags) -> Result<Self, StoreError> {
        let wrap = |source| StoreError::Database { path: path.to_owned(), source };
        // MLflow writes absolute paths into the file, too.
        let artifacts = std::path::absolute(artifacts)?;
        let connection = Connection::open_with_flags(path, flags).map_err(wrap)?;
        connection.busy_timeout(BUSY).map_err(wrap)?;
        connection.pragma_update(None, "foreign_keys", true).map_err(wrap)?;
        Ok(Self { connection, path: path.to_owned(), artifacts })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder that artifacts of new experiments go to.
    pub fn artifacts(&self) -> &Path {
        &self.artifacts
    }

    /// Names the file in an error of SQLite.
    fn error(&self, source: rusqlite::Error) -> StoreError {
        StoreError::Database { path: self.path.clone(), source }
    }

    /// Reads with SQLite's errors named.
    fn read<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        query(&self.connection).map_err(|source| self.error(source))
    }

    /// Changes several tables, all or none.
    fn change<T>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.read(|connection| {
            let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
            let changed = change(&transaction)?;
            transaction.commit()?;
            Ok(changed)
        })
    }
}

/// Notes what happened to a run, for the servers.
fn note(connection: &Connection, run: &str, event: &Event) -> rusqlite::Result<()> {
    let json = serde_json::to_string(event)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    connection.execute("INSERT INTO nephros_events (run_uuid, event) VALUES (?1, ?2)", [run, &json])?;
    Ok(())
}

/// 32 random hexadecimal digits, as MLflow names runs and models.
fn new_id(connection: &Connection) -> rusqlite::Result<String> {
    connection.query_row("SELECT lower(hex(randomblob(16)))", [], |row| row.get(0))
}

/// A path below a folder of artifacts, from its text with `/`.
///
/// # Errors
/// [`StoreError::ArtifactPath`] where it would lead out of the folder.
pub fn artifact_path(path: &str) -> Result<PathBuf, StoreError> {
    let relative = Path::new(path);
    let plain = relative.components().all(|component| matches!(component, Component::Normal(_)));
    if plain && !path.is_empty() && !path.contains('\\') {
        return Ok(relative.to_owned());
    }
    Err(StoreError::ArtifactPath { path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Batch, Entry, NewRun};

    #[test]
    fn a_full_disk_is_told_and_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join(FILE), &folder.path().join(ARTIFACTS)).unwrap();
        let [experiment, name, user, source] = ["kidney", "train", "jane", "nephros"].map(str::to_owned);
        let run = store.create_run(&NewRun { experiment, name, user, source, tags: Vec::new() }).unwrap();
        let pages: u32 = store.connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        // SQLite says the same of a file that may not grow as of a full disk.
        let limit = format!("PRAGMA max_page_count = {pages}");
        store.connection.query_row(&limit, [], |_| Ok(())).unwrap();
        let tags = (0..200).map(|number| Entry::new(format!("tag{number}"), "x".repeat(4000))).collect();
        let error = store.log(&run, Batch { tags, ..Batch::default() }).unwrap_err();
        assert!(error.to_string().contains("full"), "{error}");
        assert_eq!(error.hint().unwrap(), "free some space on the disk");
        assert_eq!(store.run(&run).unwrap().tag("tag0"), None);
    }
}
