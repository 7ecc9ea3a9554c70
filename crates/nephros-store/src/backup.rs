//! Backup and restore: a copy of a running store, and a store from a copy.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;
use url::Url;

use crate::{
    chain::Checkpoint,
    database::Database,
    error::StoreError,
    store::{Store, StoreConfig},
    verify::Verification,
};

/// Writes a copy of the store to a file, while it is in use: the state of one moment. SQLite's is a
/// database, PostgreSQL's an archive of `pg_dump`. Kept images are in it as they are, encrypted, with
/// their keys, wrapped.
///
/// # Errors
/// See [`StoreError`]; [`StoreError::Exists`] where the file is there.
pub async fn backup(config: StoreConfig, target: &Path) -> Result<Checkpoint, StoreError> {
    if target.exists() {
        return Err(StoreError::Exists { path: target.to_owned() });
    }
    let database = config.database.clone();
    let store = Store::open(StoreConfig { create: false, checkpoint: None, ..config }).await?;
    // The head of the copy is this one or a later one.
    let checkpoint = store.checkpoint().await?;
    let folder = folder_of(target);
    // A folder of our own: nobody else may read the copy while it grows.
    let temporary = tempfile::tempdir_in(&folder)?;
    let copy = temporary.path().join("copy");
    match &database {
        Database::Sqlite(_) => {
            let text = copy
                .to_str()
                .ok_or_else(|| StoreError::Address { got: "a path that is not UTF-8".into() })?;
            sqlx::query("VACUUM INTO $1").bind(text.to_owned()).execute(&store.pool).await?;
        }
        Database::Postgres(url) => {
            let mut dump = program("pg_dump", url)?;
            dump.args(["--format=custom", "--no-owner", "--no-privileges", "--table=receipt_*", "--file"]);
            run("pg_dump", dump.arg(&copy)).await?;
        }
    }
    store.close().await;
    publish(&copy, target)?;
    Ok(checkpoint)
}

/// Makes a store from a copy, and verifies it.
///
/// # Errors
/// See [`StoreError`]; [`StoreError::Exists`] and [`StoreError::NotEmpty`] where receipts are there already,
/// [`StoreError::BadBackup`] where the copy does not verify. SQLite's database is made only if it does.
pub async fn restore(config: StoreConfig, source: &Path) -> Result<Verification, StoreError> {
    if !source.is_file() {
        return Err(StoreError::Missing { database: source.display().to_string() });
    }
    match config.database.clone() {
        Database::Sqlite(target) => restore_file(config, source, &target).await,
        Database::Postgres(url) => {
            if !config.database.is_empty(config.patience).await? {
                return Err(StoreError::NotEmpty);
            }
            let mut restore = program("pg_restore", &url)?;
            restore.args(["--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction"]);
            run("pg_restore", restore.arg(source)).await?;
            verified(config).await
        }
    }
}

async fn restore_file(config: StoreConfig, source: &Path, target: &Path) -> Result<Verification, StoreError> {
    for ending in ["", "-wal", "-shm"] {
        let mut path = target.as_os_str().to_owned();
        path.push(ending);
        let path = PathBuf::from(path);
        if path.exists() {
            return Err(StoreError::Exists { path });
        }
    }
    let folder = folder_of(target);
    fs_err::create_dir_all(&folder)?;
    let temporary = tempfile::tempdir_in(&folder)?;
    let copy = temporary.path().join("copy");
    fs_err::copy(source, &copy)?;
    let found = verified(StoreConfig { database: Database::Sqlite(copy.clone()), ..config }).await?;
    publish(&copy, target)?;
    Ok(found)
}

async fn verified(config: StoreConfig) -> Result<Verification, StoreError> {
    let store = Store::open(StoreConfig { create: false, checkpoint: None, ..config }).await?;
    let found = store.verify(None).await;
    // SQLite writes all of its log into the file when the last connection closes.
    store.close().await;
    let found = found?;
    match &found.broken {
        Some(broken) => Err(StoreError::BadBackup { fault: broken.to_string() }),
        None => Ok(found),
    }
}

fn folder_of(path: &Path) -> PathBuf {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

/// Gives a whole file its name; its bytes are on the disk before.
fn publish(copy: &Path, target: &Path) -> Result<(), StoreError> {
    let file = fs_err::File::open(copy)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    }
    file.sync_all()?;
    fs_err::rename(copy, target)?;
    #[cfg(unix)]
    fs_err::File::open(folder_of(target))?.sync_all()?;
    Ok(())
}

/// A program that connects to `url`; the password is in its environment, which other users cannot see.
fn program(name: &'static str, url: &Url) -> Result<Command, StoreError> {
    let mut address = url.clone();
    let mut command = Command::new(name);
    let password = url.password().map(decoded);
    let in_query = url.query_pairs().find(|(key, _)| key == "password").map(|(_, value)| value.into_owned());
    if let Some(password) = in_query.or(password) {
        command.env("PGPASSWORD", password);
    }
    let kept: Vec<_> = url.query_pairs().into_owned().filter(|(key, _)| key != "password").collect();
    address.set_query(None);
    if !kept.is_empty() {
        address.query_pairs_mut().extend_pairs(kept);
    }
    let unchanged = address.set_password(None).is_err();
    if unchanged && url.password().is_some() {
        return Err(StoreError::Address { got: "an address that cannot be read".into() });
    }
    command.arg("--dbname").arg(address.as_str()).stdin(Stdio::null()).kill_on_drop(true);
    Ok(command)
}

/// `%41` as `A`.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let value = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| byte == b'%');
        bytes.push(value.unwrap_or(byte));
        rest = if value.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn run(program: &'static str, command: &mut Command) -> Result<(), StoreError> {
    let failed = |message: String| StoreError::Program { program, message };
    let output = command.output().await.map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(failed(text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no message").to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_in_the_environment_alone() {
        for url in [
            "postgres://me:s%65cret@host/db?sslmode=require",
            "postgres://me@host/db?password=secret&sslmode=require",
        ] {
            let command = program("pg_dump", &url.parse().unwrap()).unwrap();
            let command = command.as_std();
            let arguments: Vec<_> = command.get_args().map(|text| text.to_str().unwrap()).collect();
            assert_eq!(arguments, ["--dbname", "postgres://me@host/db?sslmode=require"]);
            let environment: Vec<_> = command.get_envs().collect();
            assert_eq!(environment, [("PGPASSWORD".as_ref(), Some("secret".as_ref()))]);
        }
    }
}
