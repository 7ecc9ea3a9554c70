//! A server as a registry.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::Method;

use super::{API, MODEL_TAG, RemoteModel, RemoteRun, Server, ServerError, download::fetch_model, post};
use crate::{
    models::{loadable, nothing_to_load},
    registry::{ModelVersion, Registry, RegistryError, Source},
    run::Entry,
};

/// Versions that a search gives at a time.
const PAGE: u32 = 200;

#[derive(Deserialize)]
struct VersionBody {
    version: String,
    #[serde(default)]
    run_id: String,
    #[serde(default)]
    source: String,
    #[serde(default)]
    current_stage: String,
    #[serde(default)]
    tags: Vec<Entry>,
    #[serde(default)]
    creation_timestamp: i64,
}

#[derive(Deserialize)]
struct AliasBody {
    alias: String,
    version: String,
}

impl Server {
    /// Registers the copy of a model under a name, once; gives the version there.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub fn register(
        &self,
        name: &str,
        local: &str,
        run: &RemoteRun,
        model: Option<&RemoteModel>,
        folder: &str,
        tags: &[Entry],
    ) -> Result<u32, ServerError> {
        match self.post("registered-models/create", &json!({ "name": name })) {
            Err(error) if error.is_refusal("RESOURCE_ALREADY_EXISTS") => {}
            other => drop(other?),
        }
        let mark = Entry::new(MODEL_TAG, local);
        let tags: Vec<&Entry> = tags.iter().chain([&mark]).collect();
        let mut body = json!({ "name": name, "run_id": run.id, "tags": tags });
        match model {
            Some(model) => {
                body["source"] = format!("models:/{}", model.id).into();
                body["model_id"] = model.id.as_str().into();
            }
            None => body["source"] = format!("{}/{folder}", run.artifact_uri).into(),
        }
        self.client.find_or_create(
            || {
                let versions = self.search(name)?;
                let known = versions.iter().find(|version| version.tags.contains(&mark));
                known.map(|version| self.number(version)).transpose()
            },
            |client| {
                let answer = post(client, "model-versions/create", &body)?;
                self.number(&self.part(&answer, "model_version")?)
            },
        )
    }

    fn number(&self, version: &VersionBody) -> Result<u32, ServerError> {
        let wrong = || ServerError::Incomplete { url: self.url().to_owned(), key: "version".into() };
        version.version.parse().map_err(|_| wrong())
    }

    /// All versions of a model, by their numbers; none where there is no such model.
    fn search(&self, name: &str) -> Result<Vec<VersionBody>, ServerError> {
        // A name of MLflow may hold one kind of quotes.
        let filter = if name.contains('\'') { format!("name=\"{name}\"") } else { format!("name='{name}'") };
        let (mut found, mut token) = (Vec::new(), String::new());
        loop {
            let page = PAGE.to_string();
            let mut query = vec![("filter", filter.as_str()), ("max_results", &page)];
            if !token.is_empty() {
                query.push(("page_token", &token));
            }
            let answer = self.get("model-versions/search", &query)?;
            if answer.get("model_versions").is_some() {
                found.extend(self.part::<Vec<VersionBody>>(&answer, "model_versions")?);
            }
            match answer["next_page_token"].as_str() {
                Some(next) if !next.is_empty() => next.clone_into(&mut token),
                _ => break,
            }
        }
        found.sort_by_key(|version| version.version.parse::<u32>().unwrap_or(u32::MAX));
        Ok(found)
    }

    fn delete(&self, path: &str, body: &Value) -> Result<(), ServerError> {
        self.client.json(&Method::DELETE, &format!("{API}/{path}"), Some(body))?;
        Ok(())
    }

    /// Where the files of a source are.
    fn location(&self, source: &Source) -> Result<String, RegistryError> {
        Ok(match source {
            Source::Version(version) => {
                let number = version.version.to_string();
                let query = [("name", version.name.as_str()), ("version", &number)];
                let answer = self.get("model-versions/get-download-uri", &query)?;
                let location: String = self.part(&answer, "artifact_uri")?;
                match (location.strip_prefix("models:/"), location.strip_prefix("runs:/")) {
                    (Some(id), _) => self.model(id)?.artifact_uri,
                    (_, Some(rest)) => {
                        let (run, path) = rest.split_once('/').unwrap_or((rest, ""));
                        format!("{}/{path}", self.run(run)?.artifact_uri)
                    }
                    _ => location,
                }
            }
            Source::Model(id) => self.model(id)?.artifact_uri,
            Source::Run { run, path } => format!("{}/{path}", self.run(run)?.artifact_uri),
        })
    }

    /// Where a run of MLflow 3 has the model that it logged under a name.
    fn model_of_run(&self, run: &str, name: &str) -> Result<Option<String>, ServerError> {
        for id in self.outputs(run)?.iter().rev() {
            let answer = self.get(&format!("logged-models/{id}"), &[])?;
            if answer.pointer("/model/info/name").and_then(Value::as_str) == Some(name) {
                return self.part(&answer, "model.info.artifact_uri").map(Some);
            }
        }
        Ok(None)
    }

    fn fetch_location(&self, location: &str, cache: &Path) -> Result<Option<PathBuf>, RegistryError> {
        let local = Path::new(location.strip_prefix("file://").unwrap_or(location));
        if local.is_dir() {
            return loadable(local).map(Some);
        }
        Ok(fetch_model(self, location, cache)?)
    }
}

impl Registry for Server {
    fn names(&self) -> Result<Vec<String>, RegistryError> {
        let (mut names, mut token) = (Vec::new(), String::new());
        loop {
            let mut query = vec![("max_results", "100")];
            if !token.is_empty() {
                query.push(("page_token", &token));
            }
            let answer = self.get("registered-models/search", &query)?;
            let models = answer["registered_models"].as_array().cloned().unwrap_or_default();
            names.extend(models.iter().filter_map(|model| model["name"].as_str()).map(str::to_owned));
            match answer["next_page_token"].as_str() {
                Some(next) if !next.is_empty() => next.clone_into(&mut token),
                _ => break,
            }
        }
        names.sort();
        Ok(names)
    }

    fn versions(&self, name: &str) -> Result<Vec<ModelVersion>, RegistryError> {
        let answer = match self.get("registered-models/get", &[("name", name)]) {
            Err(error) if error.is_refusal("RESOURCE_DOES_NOT_EXIST") => {
                return Err(RegistryError::NoModel { name: name.to_owned() });
            }
            other => other?,
        };
        // A search of versions does not tell their aliases.
        let aliases = answer.pointer("/registered_model/aliases");
        let aliases =
            aliases.and_then(|aliases| Vec::<AliasBody>::deserialize(aliases).ok()).unwrap_or_default();
        let complete = |body: VersionBody| {
            let mine = aliases.iter().filter(|alias| alias.version == body.version);
            Ok(ModelVersion {
                name: name.to_owned(),
                version: self.number(&body)?,
                run: Some(body.run_id).filter(|run| !run.is_empty()),
                source: body.source,
                stage: body.current_stage,
                aliases: mine.map(|alias| alias.alias.clone()).collect(),
                tags: body.tags,
                created_ms: body.creation_timestamp,
            })
        };
        self.search(name)?.into_iter().map(complete).collect()
    }

    fn set_alias(&self, name: &str, alias: &str, version: u32) -> Result<(), RegistryError> {
        let body = json!({ "name": name, "alias": alias, "version": version.to_string() });
        self.post("registered-models/alias", &body)?;
        Ok(())
    }

    fn delete_alias(&self, name: &str, alias: &str) -> Result<(), RegistryError> {
        Ok(self.delete("registered-models/alias", &json!({ "name": name, "alias": alias }))?)
    }

    fn set_stage(&self, name: &str, version: u32, stage: &str, archive: bool) -> Result<bool, RegistryError> {
        let body = json!({
            "name": name,
            "version": version.to_string(),
            "stage": stage,
            "archive_existing_versions": archive,
        });
        match self.post("model-versions/transition-stage", &body) {
            // A later MLflow without stages.
            Err(ServerError::NoEndpoint { .. }) => Ok(false),
            other => Ok(other.map(|_| true)?),
        }
    }

    fn set_tag(&self, name: &str, version: u32, tag: &Entry) -> Result<(), RegistryError> {
        let body =
            json!({ "name": name, "version": version.to_string(), "key": tag.key, "value": tag.value });
        self.post("model-versions/set-tag", &body)?;
        Ok(())
    }

    fn fetch(&self, source: &Source, cache: &Path) -> Result<PathBuf, RegistryError> {
        let location = self.location(source)?;
        if let Some(path) = self.fetch_location(&location, cache)? {
            return Ok(path);
        }
        if let Source::Run { run, path } = source
            && let Some(location) = self.model_of_run(run, path)?
            && let Some(path) = self.fetch_location(&location, cache)?
        {
            return Ok(path);
        }
        Err(nothing_to_load(&location))
    }
}
