//! The database itself: its address, its connections, its tables.

use std::{
    borrow::Cow,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use log::LevelFilter;
use sqlx::{
    AnyPool, ConnectOptions as _,
    any::{AnyConnectOptions, AnyPoolOptions},
    migrate::{Migration, MigrationType, Migrator},
};
use url::Url;

use crate::{chain, error::StoreError, keys, transaction::Tx};

/// Connections of a process; one of them writes.
const CONNECTIONS: u32 = 4;
/// Bytes that have to fit on the disk before a store that had no room counts as usable again: some records
/// with the pages of their indexes.
const ROOM: usize = 256 << 10;

/// Where the receipts are.
#[derive(Clone, PartialEq, Eq)]
pub enum Database {
    /// A file.
    Sqlite(PathBuf),
    /// A server; the address may hold a password.
    Postgres(Url),
}

impl FromStr for Database {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return Ok(Self::Sqlite(path.split('?').next().unwrap_or(path).into()));
        }
        match text.split_once("://") {
            Some(("postgres" | "postgresql", _)) => {
                let got = "an address that cannot be read".to_owned();
                Url::parse(text).map(Self::Postgres).map_err(|_| StoreError::Address { got })
            }
            Some((scheme, _)) => Err(StoreError::Address { got: format!("`{scheme}://…`") }),
            None if text.is_empty() => Err(StoreError::Address { got: "nothing".to_owned() }),
            None => Ok(Self::Sqlite(text.into())),
        }
    }
}

/// Without the password.
impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(f),
            Self::Postgres(url) => {
                let (host, port) = (url.host_str().unwrap_or_default(), url.port().unwrap_or(5432));
                write!(f, "postgres://{host}:{port}{}", url.path())
            }
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database({self})")
    }
}

impl Database {
    /// Whether a database is there may be made, or has to be there.
    pub(crate) async fn connect(&self, create: bool, patience: Duration) -> Result<AnyPool, StoreError> {
        sqlx::any::install_default_drivers();
        let options = self
            .options(create)?
            // Their texts, which hold no values; for whoever asks for everything.
            .log_statements(LevelFilter::Trace)
            .log_slow_statements(LevelFilter::Off, Duration::MAX);
        let statements = self.settings(patience);
        let pool = AnyPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(patience)
            .after_connect(move |connection, _| {
                let statements = statements.clone();
                Box::pin(async move {
                    sqlx::raw_sql(sqlx::AssertSqlSafe(statements)).execute(connection).await.map(drop)
                })
            })
            .connect_with(options)
            .await?;
        if !create && !self.has_tables(&pool).await? {
            return Err(StoreError::Missing { database: self.to_string() });
        }
        self.prepare(&pool).await?;
        Ok(pool)
    }

    fn options(&self, create: bool) -> Result<AnyConnectOptions, StoreError> {
        let address = match self {
            Self::Postgres(url) => url.to_string(),
            Self::Sqlite(path) => {
                if !create && !path.is_file() {
                    return Err(StoreError::Missing { database: self.to_string() });
                }
                if create {
                    make_file(path)?;
                }
                format!("sqlite://{}?mode=rw", encoded(&std::path::absolute(path)?)?)
            }
        };
        Ok(address.parse()?)
    }

    /// What each connection is set to. FULL waits for the disk at each commit: an acknowledged receipt
    /// outlives a power cut. `secure_delete` overwrites what is deleted.
    fn settings(&self, patience: Duration) -> String {
        let milliseconds = patience.as_millis();
        match self {
            Self::Sqlite(_) => format!(
                "PRAGMA busy_timeout = {milliseconds}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                 PRAGMA secure_delete = ON;"
            ),
            Self::Postgres(_) => format!(
                "SET lock_timeout = {milliseconds}; SELECT set_config('synchronous_commit', 'on', false) \
                 WHERE current_setting('synchronous_commit') IN ('off', 'local');"
            ),
        }
    }

    async fn has_tables(&self, pool: &AnyPool) -> Result<bool, StoreError> {
        let query = match self {
            Self::Sqlite(_) => "SELECT 1 AS found FROM sqlite_master WHERE name = 'receipt_head'",
            Self::Postgres(_) => "SELECT 1 AS found FROM pg_tables WHERE tablename = 'receipt_head'",
        };
        Ok(sqlx::query(query).fetch_optional(pool).await?.is_some())
    }

    /// Whether anything of a store is there.
    pub(crate) async fn is_empty(&self, patience: Duration) -> Result<bool, StoreError> {
        sqlx::any::install_default_drivers();
        let options = self.options(false)?.disable_statement_logging();
        let pool =
            AnyPoolOptions::new().max_connections(1).acquire_timeout(patience).connect_with(options).await?;
        let empty = !self.has_tables(&pool).await?;
        pool.close().await;
        Ok(empty)
    }

    async fn prepare(&self, pool: &AnyPool) -> Result<(), StoreError> {
        self.migrator().run(pool).await.map_err(migration)?;
        let log = keys::random::<16>()?;
        // Whoever comes first names the log.
        sqlx::query(
            "INSERT INTO receipt_head (one, log, position, hash) VALUES (1, $1, 0, $2) ON CONFLICT (one) DO NOTHING",
        )
        .bind(log.to_vec())
        .bind(chain::beginning(&log).to_vec())
        .execute(pool)
        .await?;
        Ok(())
    }

    /// The tables, version by version; one that was released is never changed.
    fn migrator(&self) -> Migrator {
        let receipts = match self {
            Self::Sqlite(_) => include_str!("../migrations/sqlite/0001_receipts.sql"),
            Self::Postgres(_) => include_str!("../migrations/postgres/0001_receipts.sql"),
        };
        let versions = [(1, "receipts", receipts)];
        let migrations = versions.map(|(version, name, sql)| {
            let kind = MigrationType::Simple;
            Migration::new(version, Cow::Borrowed(name), kind, sqlx::SqlStr::from_static(sql), false)
        });
        let mut migrator = Migrator::with_migrations(migrations.to_vec());
        // The database may hold tables of another program that uses the same library.
        migrator.dangerous_set_table_name("receipt_migrations");
        migrator
    }

    /// A transaction that writes.
    pub(crate) async fn begin(&self, pool: &AnyPool) -> Result<Tx, StoreError> {
        let begin = match self {
            // Waits for its turn here, and not in the middle.
            Self::Sqlite(_) => "BEGIN IMMEDIATE",
            Self::Postgres(_) => "BEGIN",
        };
        Ok(Tx::begin(pool, begin).await?)
    }

    /// A transaction that sees one state of all tables.
    pub(crate) async fn snapshot(&self, pool: &AnyPool) -> Result<Tx, StoreError> {
        let begin = match self {
            Self::Sqlite(_) => "BEGIN",
            Self::Postgres(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        };
        Ok(Tx::begin(pool, begin).await?)
    }

    /// Whether there is room for records, as far as that can be seen from here. A few bytes in a page that
    /// the database holds already are not.
    pub(crate) async fn check_room(&self) -> Result<(), StoreError> {
        let Self::Sqlite(path) = self else { return Ok(()) };
        let path = path.clone();
        let checked = tokio::task::spawn_blocking(move || crate::files::check_room(&path, ROOM));
        Ok(checked.await.map_err(std::io::Error::other)??)
    }

    /// Takes what was deleted out of the files, too; `false` where a reader is in the way.
    pub(crate) async fn scrub(&self, pool: &AnyPool) -> Result<bool, StoreError> {
        match self {
            Self::Sqlite(_) => {
                let row = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(pool).await?;
                let busy: i64 = sqlx::Row::try_get(&row, 0)?;
                Ok(busy == 0)
            }
            Self::Postgres(_) => {
                // A plain VACUUM leaves the bytes in their pages until they are used again, which is good
                // enough for images without a key.
                for statement in ["VACUUM FULL receipt_details, receipt_keys", "VACUUM receipt_images"] {
                    sqlx::raw_sql(statement).execute(pool).await?;
                }
                Ok(true)
            }
        }
    }
}

fn migration(error: sqlx::migrate::MigrateError) -> StoreError {
    match error {
        sqlx::migrate::MigrateError::Execute(error) => error.into(),
        other => StoreError::Migration(Arc::new(other)),
    }
}

/// An empty file is an empty database; whoever else is on the machine has no business with it.
fn make_file(path: &Path) -> Result<(), StoreError> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs_err::create_dir_all(folder)?;
    }
    let mut options = fs_err::OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    fs_err::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?;
    Ok(())
}

/// A path as it stands in an address.
fn encoded(path: &Path) -> Result<String, StoreError> {
    let text =
        path.to_str().ok_or_else(|| StoreError::Address { got: "a path that is not UTF-8".to_owned() })?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
    let encode = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    Ok(text.bytes().map(encode).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let sqlite = |text: &str| match text.parse::<Database>().unwrap() {
            Database::Sqlite(path) => path.display().to_string(),
            Database::Postgres(url) => panic!("{url}"),
        };
        assert_eq!(sqlite("store/receipts.db"), "store/receipts.db");
        assert_eq!(sqlite("sqlite:store/receipts.db"), "store/receipts.db");
        assert_eq!(sqlite("sqlite:///var/receipts.db?mode=rwc"), "/var/receipts.db");
        for text in ["", "mysql://host/db", "https://host", "postgres://["] {
            assert!(matches!(text.parse::<Database>(), Err(StoreError::Address { .. })), "{text}");
        }
    }

    #[test]
    fn a_password_is_not_printed() {
        let database: Database = "postgres://user:secret@host/receipts?password=secret".parse().unwrap();
        assert_eq!(database.to_string(), "postgres://host:5432/receipts");
        assert!(!format!("{database:?}").contains("secret"));
        let error = "mysql://user:secret@host/db".parse::<Database>().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"));
    }

    #[test]
    fn a_path_is_whole_in_an_address() {
        assert_eq!(encoded(Path::new("/a b/c?d#e%.db")).unwrap(), "/a%20b/c%3Fd%23e%25.db");
    }
}
