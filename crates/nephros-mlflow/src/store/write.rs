//! Runs as they are written.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OptionalExtension as _, params};
use walkdir::WalkDir;

use super::{Store, StoreError, artifact_path, new_id, note};
use crate::{
    event::Event,
    run::{Batch, DIGEST_LIMIT, DatasetInput, Entry, Metric, NewRun, RunStatus, now_ms, shortened},
};

impl Store {
    /// Begins a run and gives its id.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn create_run(&self, run: &NewRun) -> Result<String, StoreError> {
        let experiment = self.experiment(&run.experiment)?;
        self.change(|connection| {
            let id = new_id(connection)?;
            let folder: String = connection.query_row(
                "SELECT artifact_location FROM experiments WHERE experiment_id = ?1",
                [experiment],
                |row| row.get(0),
            )?;
            let artifacts = format!("{folder}/{id}/artifacts");
            connection.execute(
                "INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, \
                 start_time, source_version, lifecycle_stage, artifact_uri, experiment_id) \
                 VALUES (?1, ?2, 'UNKNOWN', '', '', ?3, 'RUNNING', ?4, '', 'active', ?5, ?6)",
                params![id, run.name, run.user, now_ms(), artifacts, experiment],
            )?;
            let batch = Batch { tags: run.all_tags(), ..Batch::default() }.within_limits();
            set_tags(connection, &id, &batch.tags)?;
            note(connection, &id, &Event::Batch(batch))?;
            Ok(id)
        })
    }

    /// Number of the experiment of this name, made where there is none.
    fn experiment(&self, name: &str) -> Result<i64, StoreError> {
        let root = self.artifacts.display().to_string();
        let (id, stage) = self.change(|connection| {
            let query = "SELECT experiment_id, lifecycle_stage FROM experiments \
                         WHERE name = ?1 AND workspace = 'default'";
            let found =
                connection.query_row(query, [name], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
            if let Some(found) = found {
                return Ok(found);
            }
            connection.execute(
                "INSERT INTO experiments (name, lifecycle_stage, creation_time, last_update_time, workspace) \
                 VALUES (?1, 'active', ?2, ?2, 'default')",
                params![name, now_ms()],
            )?;
            let id: i64 = connection.last_insert_rowid();
            connection.execute(
                "UPDATE experiments SET artifact_location = ?1 WHERE experiment_id = ?2",
                params![format!("{root}/{id}"), id],
            )?;
            Ok((id, "active".to_owned()))
        })?;
        if stage == "deleted" {
            return Err(StoreError::ExperimentDeleted { name: name.to_owned(), path: self.path.clone() });
        }
        Ok(id)
    }

    /// Logs metrics, parameters and tags.
    ///
    /// # Errors
    /// [`StoreError::ParamChanged`], and nothing is logged; see [`StoreError`].
    pub fn log(&self, run: &str, batch: Batch) -> Result<(), StoreError> {
        let mut batch = batch.within_limits();
        let logged: HashMap<String, String> =
            self.params(run)?.into_iter().map(|param| (param.key, param.value)).collect();
        for param in &batch.params {
            if let Some(old) = logged.get(&param.key).filter(|old| **old != param.value) {
                return Err(StoreError::ParamChanged {
                    key: param.key.clone(),
                    run: run.to_owned(),
                    old: old.clone(),
                    new: param.value.clone(),
                });
            }
        }
        batch.params.retain(|param| !logged.contains_key(&param.key));
        if batch.is_empty() {
            return Ok(());
        }
        self.change(|connection| {
            for metric in &batch.metrics {
                add_metric(connection, run, metric)?;
            }
            for Entry { key, value } in &batch.params {
                let insert = "INSERT INTO params (\"key\", value, run_uuid) VALUES (?1, ?2, ?3)";
                connection.execute(insert, [key, value, run])?;
            }
            set_tags(connection, run, &batch.tags)?;
            note(connection, run, &Event::Batch(batch))
        })
    }

    /// As [`Self::log`], without the metrics that have a value at the same step: an epoch that is run again
    /// is not logged again.
    ///
    /// # Errors
    /// As [`Self::log`].
    pub fn log_new_steps(&self, run: &str, mut batch: Batch) -> Result<(), StoreError> {
        let known = self.read(|connection| {
            let mut query =
                connection.prepare("SELECT DISTINCT \"key\", step FROM metrics WHERE run_uuid = ?1")?;
            let rows = query.query_map([run], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))?;
            rows.collect::<rusqlite::Result<std::collections::HashSet<_>>>()
        })?;
        batch.metrics.retain(|metric| !known.contains(&(metric.key.clone(), metric.step)));
        self.log(run, batch)
    }

    /// Logs the data that a run used; data that it has already is not logged again.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn log_inputs(&self, run: &str, mut datasets: Vec<DatasetInput>) -> Result<(), StoreError> {
        for dataset in &mut datasets {
            dataset.digest = shortened(&dataset.digest, DIGEST_LIMIT);
        }
        self.change(|connection| {
            for dataset in &datasets {
                add_input(connection, run, dataset)?;
            }
            note(connection, run, &Event::Inputs { datasets })
        })
    }

    /// Copies a file, or a folder with everything below it, to `path` below the run's artifacts.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn log_artifact(&self, run: &str, source: &Path, path: &str) -> Result<(), StoreError> {
        let copied = copy_tree(source, &self.run_folder(run)?, path)?;
        self.change(|connection| {
            copied.into_iter().try_for_each(|path| note(connection, run, &Event::Artifact { path }))
        })
    }

    /// As [`Self::log_artifact`], for this machine alone: no server gets the file.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn keep_artifact(&self, run: &str, source: &Path, path: &str) -> Result<(), StoreError> {
        copy_tree(source, &self.run_folder(run)?, path)?;
        Ok(())
    }

    /// Says how far a run is; an end gets the time of now.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn set_status(&self, run: &str, status: RunStatus) -> Result<(), StoreError> {
        let ended = !matches!(status, RunStatus::Running | RunStatus::Scheduled);
        let end_ms = ended.then(now_ms);
        self.change(|connection| {
            let update = "UPDATE runs SET status = ?1, end_time = ?2 WHERE run_uuid = ?3";
            connection.execute(update, params![status.name(), end_ms, run])?;
            note(connection, run, &Event::Status { status, end_ms })
        })
    }

    /// Folder of a run's artifacts; also where the project was moved since, with its `mlruns`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn run_folder(&self, run: &str) -> Result<PathBuf, StoreError> {
        let info = self.run_info(run)?;
        Ok(self.located(&info.artifact_uri))
    }

    /// The folder that an artifact location names. One whose absolute path is gone is looked for below the
    /// store's own `mlruns`.
    pub(super) fn located(&self, location: &str) -> PathBuf {
        let path = PathBuf::from(location.strip_prefix("file://").unwrap_or(location));
        if path.starts_with(&self.artifacts) {
            return path;
        }
        match location.rsplit_once(&format!("/{}/", super::ARTIFACTS)) {
            Some((_, below)) if !path.exists() => self.artifacts.join(below),
            _ => path,
        }
    }
}

/// Copies what is at `source` to `path` below `folder`; gives the paths of the files, with `/`.
pub(super) fn copy_tree(source: &Path, folder: &Path, path: &str) -> Result<Vec<String>, StoreError> {
    let mut copied = Vec::new();
    for entry in WalkDir::new(source).sort_by_file_name() {
        let entry = entry.map_err(io::Error::from)?;
        if !entry.file_type().is_file() {
            continue;
        }
        let below = entry.path().strip_prefix(source).unwrap_or(Path::new(""));
        let below: Vec<_> = below.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        let name = std::iter::once(path.to_owned()).filter(|path| !path.is_empty()).chain(below);
        let name = name.collect::<Vec<_>>().join("/");
        copy_file(entry.path(), &folder.join(artifact_path(&name)?))?;
        copied.push(name);
    }
    Ok(copied)
}

/// Copies by a temporary name, so that a file under its own name is whole.
fn copy_file(source: &Path, target: &Path) -> io::Result<()> {
    let folder = target.parent().unwrap_or(Path::new("."));
    fs_err::create_dir_all(folder)?;
    let mut temporary = tempfile::Builder::new();
    // As any other new file: `mlflow ui` may run as another user.
    #[cfg(unix)]
    temporary.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = temporary.prefix(".nephros-").tempfile_in(folder)?;
    io::copy(&mut fs_err::File::open(source)?, &mut file)?;
    file.persist(target).map_err(|error| error.error)?;
    Ok(())
}

/// As MLflow stores it: NaN as 0 with a mark, the infinities as the largest finite numbers.
fn add_metric(connection: &Connection, run: &str, metric: &Metric) -> rusqlite::Result<()> {
    let Metric { key, value, timestamp, step } = metric;
    let is_nan = value.is_nan();
    let value = if is_nan { 0.0 } else { value.clamp(f64::MIN, f64::MAX) };
    let row = params![key, value, timestamp, step, is_nan, run];
    connection.execute(
        "INSERT OR IGNORE INTO metrics (\"key\", value, timestamp, step, is_nan, run_uuid) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        row,
    )?;
    connection.execute(
        "INSERT INTO latest_metrics (\"key\", value, timestamp, step, is_nan, run_uuid) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (\"key\", run_uuid) DO UPDATE SET value = excluded.value, \
         timestamp = excluded.timestamp, step = excluded.step, is_nan = excluded.is_nan \
         WHERE (excluded.step, excluded.timestamp, excluded.value) > (step, timestamp, value)",
        row,
    )?;
    Ok(())
}

fn set_tags(connection: &Connection, run: &str, tags: &[Entry]) -> rusqlite::Result<()> {
    for Entry { key, value } in tags {
        connection.execute(
            "INSERT INTO tags (\"key\", value, run_uuid) VALUES (?1, ?2, ?3) \
             ON CONFLICT (\"key\", run_uuid) DO UPDATE SET value = excluded.value",
            [key, value, run],
        )?;
        if key == "mlflow.runName" {
            connection.execute("UPDATE runs SET name = ?1 WHERE run_uuid = ?2", [value, run])?;
        }
    }
    Ok(())
}

fn add_input(connection: &Connection, run: &str, dataset: &DatasetInput) -> rusqlite::Result<()> {
    let DatasetInput { name, digest, source_type, source, profile, context } = dataset;
    let experiment: i64 =
        connection
            .query_row("SELECT experiment_id FROM runs WHERE run_uuid = ?1", [run], |row| row.get(0))?;
    connection.execute(
        "INSERT OR IGNORE INTO datasets (dataset_uuid, experiment_id, name, digest, dataset_source_type, \
         dataset_source, dataset_schema, dataset_profile) VALUES (?1, ?2, ?3, ?4, ?5, ?6, NULL, ?7)",
        params![new_id(connection)?, experiment, name, digest, source_type, source, profile],
    )?;
    let dataset: String = connection.query_row(
        "SELECT dataset_uuid FROM datasets WHERE experiment_id = ?1 AND name = ?2 AND digest = ?3",
        params![experiment, name, digest],
        |row| row.get(0),
    )?;
    let input = new_id(connection)?;
    let added = connection.execute(
        "INSERT OR IGNORE INTO inputs (input_uuid, source_type, source_id, destination_type, destination_id, step) \
         VALUES (?1, 'DATASET', ?2, 'RUN', ?3, 0)",
        [&input, &dataset, run],
    )?;
    if added > 0 {
        connection.execute(
            "INSERT INTO input_tags (input_uuid, name, value) VALUES (?1, 'mlflow.data.context', ?2)",
            [&input, context],
        )?;
    }
    Ok(())
}
