//! The tables: MLflow's own, and ours beside them.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use super::StoreError;
use crate::run::now_ms;

/// The schema as MLflow's migrations leave it; see `scripts/golden/mlflow_schema.py`.
const SCHEMA: &str = include_str!("schema.sql");
/// Revision of that schema in `alembic_version`.
pub const KNOWN_REVISION: &str = "dc11669786a5";
/// A version of MLflow with that revision.
pub const KNOWN_VERSION: &str = "3.17.2";

/// What a server has to be told, and how much of it each one was: MLflow looks at no table but its own.
const OWN_TABLES: &str = "
CREATE TABLE IF NOT EXISTS nephros_events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    run_uuid VARCHAR(32) NOT NULL,
    event TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS index_nephros_events_run_uuid ON nephros_events (run_uuid, seq);
CREATE TABLE IF NOT EXISTS nephros_copies (
    run_uuid VARCHAR(32) NOT NULL,
    server TEXT NOT NULL,
    remote_run VARCHAR(64),
    cursor INTEGER NOT NULL DEFAULT 0,
    left_out INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (run_uuid, server)
);
CREATE TABLE IF NOT EXISTS nephros_copied_models (
    model_id VARCHAR(36) NOT NULL,
    server TEXT NOT NULL,
    remote_model VARCHAR(64) NOT NULL,
    PRIMARY KEY (model_id, server)
);
";

/// Makes the tables where there are none, and refuses those of another schema.
pub(super) fn prepare(connection: &mut Connection, path: &Path, artifacts: &Path) -> Result<(), StoreError> {
    let wrap = |source| StoreError::Database { path: path.to_owned(), source };
    // Whoever comes second waits here and then finds the tables.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(wrap)?;
    if is_empty(&transaction).map_err(wrap)? {
        transaction.execute_batch(SCHEMA).map_err(wrap)?;
        fill(&transaction, artifacts).map_err(wrap)?;
    }
    check_revision(&transaction, path)?;
    transaction.execute_batch(OWN_TABLES).map_err(wrap)?;
    transaction.commit().map_err(wrap)
}

/// Whether the file has the schema that is known here.
pub(super) fn check_revision(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let wrap = |source| StoreError::Database { path: path.to_owned(), source };
    if !has_table(connection, "alembic_version").map_err(wrap)? {
        return Err(StoreError::Foreign { path: path.to_owned() });
    }
    let query = "SELECT version_num FROM alembic_version";
    let got: Option<String> = connection.query_row(query, [], |row| row.get(0)).optional().map_err(wrap)?;
    match got {
        Some(got) if got == KNOWN_REVISION => Ok(()),
        got => Err(StoreError::Revision {
            path: path.to_owned(),
            expected: KNOWN_REVISION,
            version: KNOWN_VERSION,
            got: got.unwrap_or_default(),
        }),
    }
}

pub(super) fn has_table(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    let query = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1)";
    connection.query_row(query, [name], |row| row.get(0))
}

fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT NOT EXISTS (SELECT 1 FROM sqlite_master)", [], |row| row.get(0))
}

/// The rows of a new file, as MLflow writes them.
fn fill(connection: &Connection, artifacts: &Path) -> rusqlite::Result<()> {
    connection.execute("INSERT INTO alembic_version (version_num) VALUES (?1)", [KNOWN_REVISION])?;
    connection.execute(
        "INSERT INTO workspaces (name, description) VALUES ('default', 'Default workspace for legacy resources')",
        [],
    )?;
    let (folder, now) = (artifacts.join("0").display().to_string(), now_ms());
    connection.execute(
        "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, creation_time, \
         last_update_time, workspace) VALUES (0, 'Default', ?1, 'active', ?2, ?2, 'default')",
        params![folder, now],
    )?;
    Ok(())
}
