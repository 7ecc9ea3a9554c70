//! The embedded store as a registry.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde_json::{Value, json};

use super::{Store, StoreError, artifact_path, models::VERSIONS_TAG, note};
use crate::{
    event::Event,
    models::{loadable, nothing_to_load},
    registry::{Action, Change, ModelVersion, Registry, RegistryError, Source, history_tag},
    run::{Entry, now_ms},
};

impl Store {
    /// Registers a model under a name; gives the version, which stays the same when the model has one.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn register(
        &self,
        name: &str,
        model: &str,
        tags: &[Entry],
        user: &str,
        forced: bool,
    ) -> Result<u32, StoreError> {
        let missing =
            || StoreError::Row { path: self.path.clone(), what: format!("found no model `{model}`") };
        let logged = self.logged_model(model)?.ok_or_else(missing)?;
        let run = logged.run.ok_or_else(missing)?;
        let location = logged.folder.display().to_string();
        let source = format!("models:/{model}");
        self.change(|connection| {
            let known = "SELECT version FROM model_versions WHERE name = ?1 AND source = ?2";
            if let Some(version) = connection.query_row(known, [name, &source], |row| row.get(0)).optional()? {
                return Ok(version);
            }
            let now = now_ms();
            connection.execute(
                "INSERT INTO registered_models (name, creation_time, last_updated_time, workspace) \
                 VALUES (?1, ?2, ?2, 'default') ON CONFLICT DO UPDATE SET last_updated_time = ?2",
                params![name, now],
            )?;
            let latest = "SELECT coalesce(max(version), 0) + 1 FROM model_versions WHERE name = ?1";
            let version: u32 = connection.query_row(latest, [name], |row| row.get(0))?;
            connection.execute(
                "INSERT INTO model_versions (name, version, creation_time, last_updated_time, user_id, current_stage, \
                 source, run_id, status, storage_location, workspace) \
                 VALUES (?1, ?2, ?3, ?3, ?4, 'None', ?5, ?6, 'READY', ?7, 'default')",
                params![name, version, now, user, source, run, location],
            )?;
            let (action, user) = (Action::Registered, user.to_owned());
            let change = Change { time_ms: now, action, version, alias: None, instead_of: None, user, forced };
            for tag in tags.iter().chain([&history_tag(&change)]) {
                set_tag(connection, name, version, tag)?;
            }
            tell_model(connection, model, name, version)?;
            note(connection, &run, &Event::Version { name: name.to_owned(), model: model.to_owned(), version })?;
            Ok(version)
        })
    }
}

impl Registry for Store {
    fn names(&self) -> Result<Vec<String>, RegistryError> {
        Ok(self.read(|connection| {
            let query = "SELECT name FROM registered_models WHERE workspace = 'default' ORDER BY name";
            connection.prepare(query)?.query_map([], |row| row.get(0))?.collect()
        })?)
    }

    fn versions(&self, name: &str) -> Result<Vec<ModelVersion>, RegistryError> {
        let versions = self.read(|connection| {
            let known = "SELECT EXISTS (SELECT 1 FROM registered_models WHERE name = ?1)";
            if !connection.query_row(known, [name], |row| row.get::<_, bool>(0))? {
                return Ok(None);
            }
            let query = "SELECT name, version, run_id, source, current_stage, creation_time FROM model_versions \
                         WHERE name = ?1 AND current_stage IS NOT 'Deleted_Internal' ORDER BY version";
            let mut query = connection.prepare(query)?;
            let versions: Vec<ModelVersion> = query.query_map([name], version)?.collect::<rusqlite::Result<_>>()?;
            let complete = |version| complete(connection, version);
            versions.into_iter().map(complete).collect::<rusqlite::Result<Vec<_>>>().map(Some)
        })?;
        versions.ok_or_else(|| RegistryError::NoModel { name: name.to_owned() })
    }

    fn set_alias(&self, name: &str, alias: &str, version: u32) -> Result<(), RegistryError> {
        self.change(|connection| {
            connection.execute(
                "INSERT INTO registered_model_aliases (alias, version, name, workspace) \
                 VALUES (?1, ?2, ?3, 'default') ON CONFLICT DO UPDATE SET version = excluded.version",
                params![alias, version, name],
            )
        })?;
        Ok(())
    }

    fn delete_alias(&self, name: &str, alias: &str) -> Result<(), RegistryError> {
        let delete = "DELETE FROM registered_model_aliases WHERE name = ?1 AND alias = ?2";
        self.change(|connection| connection.execute(delete, [name, alias]))?;
        Ok(())
    }

    fn set_stage(&self, name: &str, version: u32, stage: &str, archive: bool) -> Result<bool, RegistryError> {
        self.change(|connection| {
            let now = now_ms();
            if archive {
                connection.execute(
                    "UPDATE model_versions SET current_stage = 'Archived', last_updated_time = ?3 \
                     WHERE name = ?1 AND current_stage = ?2",
                    params![name, stage, now],
                )?;
            }
            connection.execute(
                "UPDATE model_versions SET current_stage = ?3, last_updated_time = ?4 \
                 WHERE name = ?1 AND version = ?2",
                params![name, version, stage, now],
            )
        })?;
        Ok(true)
    }

    fn set_tag(&self, name: &str, version: u32, tag: &Entry) -> Result<(), RegistryError> {
        Ok(self.change(|connection| set_tag(connection, name, version, tag))?)
    }

    fn fetch(&self, source: &Source, _cache: &Path) -> Result<PathBuf, RegistryError> {
        match source {
            Source::Model(id) => self.fetch_model(id),
            Source::Run { run, path } => self.fetch_from_run(run, path),
            Source::Version(version) => {
                let (model, run) =
                    (version.source.strip_prefix("models:/"), version.source.strip_prefix("runs:/"));
                match (model, run.and_then(|rest| rest.split_once('/'))) {
                    (Some(id), _) => self.fetch_model(id),
                    (_, Some((run, path))) => self.fetch_from_run(run, path),
                    _ => loadable(&self.located(&version.source)),
                }
            }
        }
    }
}

impl Store {
    /// Tags of a version.
    pub(crate) fn version_tags(&self, name: &str, version: u32) -> Result<Vec<Entry>, StoreError> {
        self.read(|connection| tags(connection, name, version))
    }

    fn fetch_model(&self, id: &str) -> Result<PathBuf, RegistryError> {
        let missing = || nothing_to_load(&format!("models:/{id}"));
        loadable(&self.logged_model(id)?.ok_or_else(missing)?.folder)
    }

    /// A folder of a run; without one of that name, the model that the run logged under it.
    fn fetch_from_run(&self, run: &str, path: &str) -> Result<PathBuf, RegistryError> {
        let record = self.run(run)?;
        let folder = self.run_folder(&record.info.id)?.join(artifact_path(path)?);
        if folder.is_dir() {
            return loadable(&folder);
        }
        for id in record.models.iter().rev() {
            if let Some(model) = self.logged_model(id)?.filter(|model| model.name == path) {
                return loadable(&model.folder);
            }
        }
        Err(nothing_to_load(&format!("runs:/{run}/{path}")))
    }
}

fn version(row: &Row<'_>) -> rusqlite::Result<ModelVersion> {
    let text = |index| Ok::<_, rusqlite::Error>(row.get::<_, Option<String>>(index)?.unwrap_or_default());
    Ok(ModelVersion {
        name: row.get(0)?,
        version: row.get(1)?,
        run: row.get::<_, Option<String>>(2)?.filter(|run| !run.is_empty()),
        source: text(3)?,
        stage: text(4)?,
        aliases: Vec::new(),
        tags: Vec::new(),
        created_ms: row.get::<_, Option<i64>>(5)?.unwrap_or_default(),
    })
}

fn complete(connection: &Connection, version: ModelVersion) -> rusqlite::Result<ModelVersion> {
    let which = params![version.name, version.version];
    let query = "SELECT alias FROM registered_model_aliases WHERE name = ?1 AND version = ?2 ORDER BY alias";
    let aliases =
        connection.prepare(query)?.query_map(which, |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let tags = tags(connection, &version.name, version.version)?;
    Ok(ModelVersion { aliases, tags, ..version })
}

fn tags(connection: &Connection, name: &str, version: u32) -> rusqlite::Result<Vec<Entry>> {
    let query =
        "SELECT \"key\", value FROM model_version_tags WHERE name = ?1 AND version = ?2 ORDER BY \"key\"";
    let tag = |row: &Row<'_>| {
        Ok(Entry { key: row.get(0)?, value: row.get::<_, Option<String>>(1)?.unwrap_or_default() })
    };
    connection.prepare(query)?.query_map(params![name, version], tag)?.collect()
}

/// Adds a version to those that the tag of a model names, as MLflow does: its list of models shows them.
fn tell_model(connection: &Connection, model: &str, name: &str, version: u32) -> rusqlite::Result<()> {
    let query = "SELECT tag_value FROM logged_model_tags WHERE model_id = ?1 AND tag_key = ?2";
    let known =
        connection.query_row(query, [model, VERSIONS_TAG], |row| row.get::<_, String>(0)).optional()?;
    let known = known.and_then(|text| serde_json::from_str::<Vec<Value>>(&text).ok());
    let mut versions = known.unwrap_or_default();
    versions.push(json!({ "name": name, "version": version }));
    connection.execute(
        "INSERT INTO logged_model_tags (model_id, experiment_id, tag_key, tag_value) \
         SELECT model_id, experiment_id, ?2, ?3 FROM logged_models WHERE model_id = ?1 \
         ON CONFLICT (model_id, tag_key) DO UPDATE SET tag_value = excluded.tag_value",
        params![model, VERSIONS_TAG, Value::Array(versions).to_string()],
    )?;
    Ok(())
}

fn set_tag(connection: &Connection, name: &str, version: u32, tag: &Entry) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO model_version_tags (\"key\", value, name, version, workspace) \
         VALUES (?1, ?2, ?3, ?4, 'default') ON CONFLICT DO UPDATE SET value = excluded.value",
        params![tag.key, tag.value, name, version],
    )?;
    Ok(())
}
