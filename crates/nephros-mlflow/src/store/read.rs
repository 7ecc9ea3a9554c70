//! Runs as they are read, those of other MLflow clients too.

use std::path::PathBuf;

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use walkdir::WalkDir;

use super::{Store, StoreError};
use crate::run::{DatasetInput, Entry, Metric, RunInfo, RunRecord, RunStatus};

/// A model that came out of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedModel {
    /// `m-` and 32 hexadecimal digits.
    pub id: String,
    /// Name.
    pub name: String,
    /// The run that it came out of.
    pub run: Option<String>,
    /// Its folder.
    pub folder: PathBuf,
}

const RUN_COLUMNS: &str = "SELECT run_uuid, experiments.name, runs.name, user_id, status, start_time, end_time, \
     artifact_uri FROM runs JOIN experiments USING (experiment_id) WHERE runs.lifecycle_stage = 'active'";

impl Store {
    /// All runs that are not deleted, or those of one experiment; the latest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn runs(&self, experiment: Option<&str>) -> Result<Vec<RunRecord>, StoreError> {
        let infos = self.read(|connection| {
            let query = format!(
                "{RUN_COLUMNS} AND (?1 IS NULL OR experiments.name = ?1) ORDER BY start_time DESC, runs.rowid DESC"
            );
            let mut query = connection.prepare(&query)?;
            query.query_map([experiment], run_info)?.collect::<rusqlite::Result<Vec<_>>>()
        })?;
        infos.into_iter().map(|info| self.record(info)).collect()
    }

    /// The run whose id is `id` or starts so.
    ///
    /// # Errors
    /// [`StoreError::NoRun`] and [`StoreError::Ambiguous`]; see [`StoreError`].
    pub fn run(&self, id: &str) -> Result<RunRecord, StoreError> {
        let ids: Vec<String> = self.read(|connection| {
            let query =
                "SELECT run_uuid FROM runs WHERE lifecycle_stage = 'active' AND substr(run_uuid, 1, ?2) = ?1";
            let mut query = connection.prepare(query)?;
            query.query_map(params![id, id.chars().count() as i64], |row| row.get(0))?.collect()
        })?;
        match ids.as_slice() {
            [whole] => self.record(self.run_info(whole)?),
            [] => Err(StoreError::NoRun { id: id.to_owned(), path: self.path.clone() }),
            several => Err(StoreError::Ambiguous { id: id.to_owned(), count: several.len() }),
        }
    }

    /// A run without what was logged to it.
    ///
    /// # Errors
    /// [`StoreError::NoRun`], also for one that was deleted; see [`StoreError`].
    pub fn run_info(&self, id: &str) -> Result<RunInfo, StoreError> {
        let found = self.read(|connection| {
            let query = format!("{RUN_COLUMNS} AND run_uuid = ?1");
            connection.query_row(&query, [id], run_info).optional()
        })?;
        found.ok_or_else(|| StoreError::NoRun { id: id.to_owned(), path: self.path.clone() })
    }

    fn record(&self, info: RunInfo) -> Result<RunRecord, StoreError> {
        let id = info.id.clone();
        let params = self.params(&id)?;
        let tags = self.entries("tags", &id)?;
        let metrics = self.metrics(
            "SELECT \"key\", value, timestamp, step, is_nan FROM latest_metrics \
                                    WHERE run_uuid = ?1 ORDER BY \"key\"",
            &[&id],
        )?;
        let datasets = self.read(|connection| datasets(connection, &id))?;
        let models = self.read(|connection| {
            let query = "SELECT destination_id FROM inputs WHERE source_type = 'RUN_OUTPUT' AND source_id = ?1 \
                         AND destination_type = 'MODEL_OUTPUT' ORDER BY rowid";
            connection.prepare(query)?.query_map([&id], |row| row.get(0))?.collect()
        })?;
        Ok(RunRecord { info, params, metrics, tags, datasets, models })
    }

    /// Parameters of a run, sorted by key.
    pub(super) fn params(&self, run: &str) -> Result<Vec<Entry>, StoreError> {
        self.entries("params", run)
    }

    fn entries(&self, table: &'static str, run: &str) -> Result<Vec<Entry>, StoreError> {
        self.read(|connection| {
            let query = format!("SELECT \"key\", value FROM {table} WHERE run_uuid = ?1 ORDER BY \"key\"");
            let entry = |row: &Row<'_>| {
                let value: Option<String> = row.get(1)?;
                Ok(Entry { key: row.get(0)?, value: value.unwrap_or_default() })
            };
            connection.prepare(&query)?.query_map([run], entry)?.collect()
        })
    }

    /// All values of a metric, in the order in which they were logged.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn history(&self, run: &str, key: &str) -> Result<Vec<Metric>, StoreError> {
        self.metrics("SELECT \"key\", value, timestamp, step, is_nan FROM metrics WHERE run_uuid = ?1 AND \"key\" = ?2 \
                      ORDER BY step, timestamp, rowid", &[run, key])
    }

    fn metrics(&self, query: &str, arguments: &[&str]) -> Result<Vec<Metric>, StoreError> {
        self.read(|connection| {
            let mut query = connection.prepare(query)?;
            query.query_map(rusqlite::params_from_iter(arguments), metric)?.collect()
        })
    }

    /// Paths of a run's files, with `/`, sorted.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn artifact_paths(&self, run: &str) -> Result<Vec<String>, StoreError> {
        let folder = self.run_folder(run)?;
        Ok(files_below(&folder)?)
    }

    /// A model by its id.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn logged_model(&self, id: &str) -> Result<Option<LoggedModel>, StoreError> {
        let found = self.read(|connection| {
            let query = "SELECT model_id, name, source_run_id, artifact_location FROM logged_models \
                         WHERE model_id = ?1 AND lifecycle_stage = 'active'";
            let row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get::<_, String>(3)?));
            connection.query_row(query, [id], row).optional()
        })?;
        Ok(found.map(|(id, name, run, location)| LoggedModel {
            id,
            name,
            run,
            folder: self.located(&location),
        }))
    }
}

/// Paths of the files below a folder, with `/`, sorted; none where there is no folder.
pub(crate) fn files_below(folder: &std::path::Path) -> std::io::Result<Vec<String>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut paths = Vec::new();
    for entry in WalkDir::new(folder).sort_by_file_name() {
        let entry = entry.map_err(std::io::Error::from)?;
        if entry.file_type().is_file() {
            let below = entry.path().strip_prefix(folder).unwrap_or(entry.path());
            let names: Vec<_> = below.iter().map(|name| name.to_string_lossy()).collect();
            paths.push(names.join("/"));
        }
    }
    Ok(paths)
}

fn run_info(row: &Row<'_>) -> rusqlite::Result<RunInfo> {
    let status: Option<String> = row.get(4)?;
    let text = |index| Ok::<_, rusqlite::Error>(row.get::<_, Option<String>>(index)?.unwrap_or_default());
    Ok(RunInfo {
        id: row.get(0)?,
        experiment: row.get(1)?,
        name: text(2)?,
        user: text(3)?,
        // The table's own check allows no other word.
        status: status.as_deref().and_then(RunStatus::from_name).unwrap_or(RunStatus::Running),
        start_ms: row.get::<_, Option<i64>>(5)?.unwrap_or_default(),
        end_ms: row.get(6)?,
        artifact_uri: text(7)?,
    })
}

fn metric(row: &Row<'_>) -> rusqlite::Result<Metric> {
    let value = if row.get(4)? { f64::NAN } else { row.get(1)? };
    Ok(Metric {
        key: row.get(0)?,
        value,
        timestamp: row.get::<_, Option<i64>>(2)?.unwrap_or_default(),
        step: row.get(3)?,
    })
}

fn datasets(connection: &Connection, run: &str) -> rusqlite::Result<Vec<DatasetInput>> {
    let query = "SELECT datasets.name, digest, dataset_source_type, dataset_source, dataset_profile, input_tags.value \
                 FROM inputs JOIN datasets ON datasets.dataset_uuid = inputs.source_id \
                 LEFT JOIN input_tags ON input_tags.input_uuid = inputs.input_uuid \
                 AND input_tags.name = 'mlflow.data.context' \
                 WHERE source_type = 'DATASET' AND destination_type = 'RUN' AND destination_id = ?1 \
                 ORDER BY inputs.rowid";
    let row = |row: &Row<'_>| {
        Ok(DatasetInput {
            name: row.get(0)?,
            digest: row.get(1)?,
            source_type: row.get(2)?,
            source: row.get(3)?,
            profile: row.get::<_, Option<String>>(4)?.unwrap_or_default(),
            context: row.get::<_, Option<String>>(5)?.unwrap_or_default(),
        })
    };
    connection.prepare(query)?.query_map([run], row)?.collect()
}
