//! What can go wrong with the store.

use std::{io, path::PathBuf, sync::Arc};

use sqlx::postgres::PgDatabaseError;

use crate::keys::KeyError;

/// A store that cannot do what it is asked for.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database is down, busy or full, or did not answer in time. The same call works again once the
    /// cause is gone, without opening the store anew. Nothing was acknowledged; where the answer to a
    /// commit alone was lost, the record may be in the log all the same.
    #[error("the database of receipts is not available: {reason}")]
    Unavailable {
        /// In a few words, without values.
        reason: &'static str,
        /// What the database or the system says.
        #[source]
        source: Option<Arc<sqlx::Error>>,
    },
    /// The database refused a statement.
    #[error("the database of receipts refused a statement")]
    Database(#[source] Arc<sqlx::Error>),
    /// The tables cannot be made, or are of another version.
    #[error("the tables of the receipts cannot be brought to this version")]
    Migration(#[source] Arc<sqlx::migrate::MigrateError>),
    /// The address of the database is none.
    #[error("expected a path, `sqlite:` with a path, or `postgres://…` as the database, got {got}")]
    Address {
        /// What kind of address it is; never the address, which may hold a password.
        got: String,
    },
    /// There is no such database.
    #[error("found no receipts in `{database}`")]
    Missing {
        /// Without a password.
        database: String,
    },
    /// Something is where a database is to be made.
    #[error("`{path}` exists already")]
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// Receipts are where a database is to be made.
    #[error("the database holds receipts already")]
    NotEmpty,
    /// A value cannot be stored.
    #[error("`{field}`: expected {expected}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What it takes.
        expected: &'static str,
    },
    /// No prediction has that receipt.
    #[error("no prediction has the receipt `{id}`")]
    UnknownReceipt {
        /// As given.
        id: String,
    },
    /// What was predicted is erased.
    #[error("what the receipt `{id}` is about was erased")]
    Erased {
        /// As given.
        id: String,
    },
    /// Images are kept, or are to be read, and there is no key for them.
    #[error("expected the master key of the kept images, got none")]
    NoMasterKey,
    /// The master key is another one.
    #[error("expected the master key with the fingerprint `{expected}`, got `{got}`")]
    OtherMasterKey {
        /// Fingerprint of the key that the store's keys are wrapped by.
        expected: String,
        /// Fingerprint of the key at hand.
        got: String,
    },
    /// The master key cannot be used, or something cannot be decrypted.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A row holds what this version does not write.
    #[error("the record at position {position} cannot be read: `{column}`")]
    Unreadable {
        /// Its position.
        position: i64,
        /// Where.
        column: &'static str,
    },
    /// A checkpoint is none.
    #[error("expected a checkpoint of three lines (`nephros-receipts` with the log, position, hash)")]
    Checkpoint,
    /// A database that was to be restored does not verify.
    #[error("the backup does not verify: {fault}")]
    BadBackup {
        /// What is wrong first.
        fault: String,
    },
    /// A program of PostgreSQL failed.
    #[error("`{program}` failed: {message}")]
    Program {
        /// `pg_dump` or `pg_restore`.
        program: &'static str,
        /// The last line of its stderr.
        message: String,
    },
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(Arc<io::Error>),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// One sentence of advice, without a final period.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unavailable { .. } => {
                "look whether the database runs, its disk has room and nobody else holds it locked; nothing else is \
                 needed once it answers again"
                    .into()
            }
            Self::Migration(_) => "a newer version of nephros may have made the tables: use that one".into(),
            Self::Address { .. } => {
                "`store/receipts.db`, or `postgres://user@host/database` in DATABASE_URL".into()
            }
            Self::Missing { .. } => "`nephros serve` in a project makes it; name another with `--store`".into(),
            Self::Exists { .. } => "move the file aside, with those that end in `-wal` and `-shm`".into(),
            Self::NotEmpty => "create an empty database and name it".into(),
            Self::NoMasterKey => {
                "name its file as `store.master_key_file` in config/config.yaml, or set NEPHROS_STORE_KEY".into()
            }
            Self::OtherMasterKey { .. } => {
                "after `nephros store rotate` every server has to be started again, with the new key".into()
            }
            Self::Key(error) => return error.hint(),
            Self::BadBackup { .. } => "take an older backup: nothing was restored".into(),
            Self::Program { .. } => {
                "the client programs of PostgreSQL have to be installed, of the server's version or later".into()
            }
            Self::Database(_)
            | Self::Invalid { .. }
            | Self::UnknownReceipt { .. }
            | Self::Erased { .. }
            | Self::Unreadable { .. }
            | Self::Checkpoint
            | Self::Io(_)
            | Self::Closed => return None,
        })
    }

    /// Whether the same call may work a little later.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// Whether the record alone is at fault, so that others of its batch can go on.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Invalid { .. }
                | Self::UnknownReceipt { .. }
                | Self::Erased { .. }
                | Self::NoMasterKey
                | Self::OtherMasterKey { .. }
                | Self::Key(_)
        )
    }

    pub(crate) fn timeout() -> Self {
        Self::Unavailable { reason: "it did not answer in time", source: None }
    }
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match unavailable(&error) {
            Some(reason) => Self::Unavailable { reason, source: Some(Arc::new(error)) },
            None => Self::Database(Arc::new(error)),
        }
    }
}

/// Why a database does not answer, where its answer may be another one later.
fn unavailable(error: &sqlx::Error) -> Option<&'static str> {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) => Some("it cannot be reached"),
        sqlx::Error::PoolTimedOut => Some("it did not answer in time"),
        sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => Some("its connection broke"),
        sqlx::Error::Database(database) => {
            let code = database.code()?;
            match database.try_downcast_ref::<PgDatabaseError>() {
                Some(_) => postgres(&code),
                None => sqlite(code.parse().ok()?),
            }
        }
        _ => None,
    }
}

/// Source: <https://www.sqlite.org/rescode.html>; the low byte is the primary code.
fn sqlite(code: u32) -> Option<&'static str> {
    match code & 0xff {
        5 | 6 => Some("another process holds it locked"),
        8 => Some("it can only be read"),
        10 => Some("its disk cannot be read or written"),
        13 => Some("its disk is full"),
        14 => Some("its file cannot be opened"),
        _ => None,
    }
}

/// Source: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn postgres(code: &str) -> Option<&'static str> {
    match code {
        "25006" => Some("it can only be read"),
        "53100" => Some("its disk is full"),
        "40001" | "40P01" | "55P03" => Some("another process holds it locked"),
        _ if code.starts_with("53") => Some("it has no room for more connections or memory"),
        _ if code.starts_with("57P") || code.starts_with("08") => Some("it is stopping or starting"),
        _ if code.starts_with("58") => Some("its disk cannot be read or written"),
        _ => None,
    }
}
