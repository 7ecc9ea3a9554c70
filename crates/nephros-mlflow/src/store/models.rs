//! Models that come out of runs.

use std::path::{Path, PathBuf};

use rusqlite::params;

use super::{Store, StoreError, new_id, note, write::copy_tree};
use crate::{
    event::Event,
    run::{Entry, now_ms},
};

/// The tag of a model in which MLflow keeps its versions in the registry.
pub(super) const VERSIONS_TAG: &str = "mlflow.modelVersions";
/// MLflow's number for a model whose files are all there.
const READY: i64 = 2;

/// A model whose files are still to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewModel {
    /// `m-` and 32 hexadecimal digits.
    pub id: String,
    /// The run that it comes out of.
    pub run: String,
    /// Name.
    pub name: String,
    experiment: i64,
    /// The folder, as the store names it.
    pub location: String,
    /// The folder for its files; it may not be there yet.
    pub folder: PathBuf,
}

impl Store {
    /// The id of a new model of a run, and the folder for its files. It is none before
    /// [`Self::finish_model`].
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn begin_model(&self, run: &str, name: &str) -> Result<NewModel, StoreError> {
        self.read(|connection| {
            let query = "SELECT experiment_id, artifact_location FROM runs JOIN experiments USING (experiment_id) \
                         WHERE run_uuid = ?1";
            let (experiment, folder): (i64, String) =
                connection.query_row(query, [run], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let id = format!("m-{}", new_id(connection)?);
            let location = format!("{folder}/models/{id}/artifacts");
            let folder = self.located(&location);
            Ok(NewModel { id, run: run.to_owned(), name: name.to_owned(), experiment, location, folder })
        })
    }

    /// Records a model whose files are all in its folder.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn finish_model(&self, model: &NewModel, tags: &[Entry]) -> Result<(), StoreError> {
        let NewModel { id, run, name, experiment, location, .. } = model;
        let params = self.params(run)?;
        self.change(|connection| {
            connection.execute(
                "INSERT INTO logged_models (model_id, experiment_id, name, artifact_location, creation_timestamp_ms, \
                 last_updated_timestamp_ms, status, lifecycle_stage, model_type, source_run_id) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6, 'active', '', ?7)",
                params![id, experiment, name, location, now_ms(), READY, run],
            )?;
            for Entry { key, value } in params {
                connection.execute(
                    "INSERT INTO logged_model_params (model_id, experiment_id, param_key, param_value) \
                     VALUES (?1, ?2, ?3, ?4)",
                    params![id, experiment, key, value],
                )?;
            }
            for Entry { key, value } in tags {
                connection.execute(
                    "INSERT INTO logged_model_tags (model_id, experiment_id, tag_key, tag_value) \
                     VALUES (?1, ?2, ?3, ?4)",
                    params![id, experiment, key, value],
                )?;
            }
            connection.execute(
                "INSERT INTO inputs (input_uuid, source_type, source_id, destination_type, destination_id, step) \
                 VALUES (?1, 'RUN_OUTPUT', ?2, 'MODEL_OUTPUT', ?3, 0)",
                [&new_id(connection)?, run, id],
            )?;
            note(connection, run, &Event::Model { model: id.clone() })
        })
    }

    /// Replaces the file at `path` below the folder of a model.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn replace_model_file(&self, model: &str, source: &Path, path: &str) -> Result<(), StoreError> {
        let missing =
            || StoreError::Row { path: self.path.clone(), what: format!("found no model `{model}`") };
        let logged = self.logged_model(model)?.ok_or_else(missing)?;
        let run = logged.run.ok_or_else(missing)?;
        copy_tree(source, &logged.folder, path)?;
        self.change(|connection| {
            note(connection, &run, &Event::ModelFile { model: model.to_owned(), path: path.to_owned() })
        })
    }

    /// Name and folder of each model of a run, the first first.
    pub(crate) fn models_of(&self, run: &str) -> Result<Vec<(String, PathBuf)>, StoreError> {
        let rows: Vec<(String, String)> = self.read(|connection| {
            let query = "SELECT name, artifact_location FROM logged_models WHERE source_run_id = ?1 \
                         ORDER BY creation_timestamp_ms, model_id";
            let mut query = connection.prepare(query)?;
            query.query_map([run], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })?;
        Ok(rows.into_iter().map(|(name, location)| (name, self.located(&location))).collect())
    }

    /// Tags of a model; another registry has versions of its own, and MLflow notes those itself.
    pub(crate) fn model_tags(&self, model: &str) -> Result<Vec<Entry>, StoreError> {
        self.read(|connection| {
            let query = "SELECT tag_key, tag_value FROM logged_model_tags \
                         WHERE model_id = ?1 AND tag_key <> ?2 ORDER BY tag_key";
            let mut query = connection.prepare(query)?;
            query
                .query_map([model, VERSIONS_TAG], |row| Ok(Entry { key: row.get(0)?, value: row.get(1)? }))?
                .collect()
        })
    }
}
