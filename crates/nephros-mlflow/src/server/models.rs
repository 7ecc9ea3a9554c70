//! Models of runs: a resource of its own in MLflow 3, a folder of the run's artifacts in MLflow 2.

use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::Method;

use super::{API, MODEL_TAG, RemoteRun, Server, ServerError, post};
use crate::run::Entry;

/// A model on a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteModel {
    /// Its id there.
    pub id: String,
    /// Where its files go.
    pub artifact_uri: String,
}

#[derive(Deserialize)]
struct ModelBody {
    model_id: String,
    artifact_uri: String,
}

#[derive(Deserialize)]
struct Output {
    model_id: String,
}

impl Server {
    /// The copy of the model `local` in a run, made where there is none; `None` where the server knows no
    /// models of runs, as MLflow 2.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub fn copy_of_model(
        &self,
        local: &str,
        run: &RemoteRun,
        name: &str,
        params: &[Entry],
        tags: &[Entry],
    ) -> Result<Option<RemoteModel>, ServerError> {
        let tags: Vec<Entry> = tags.iter().cloned().chain([Entry::new(MODEL_TAG, local)]).collect();
        let body = json!({
            "experiment_id": run.experiment,
            "name": name,
            "source_run_id": run.id,
            "params": params,
            "tags": tags,
        });
        let made = self.client.find_or_create(
            || self.find_model(local, run),
            |client| self.remote_model(&post(client, "logged-models", &body)?["model"]),
        );
        match made {
            Err(ServerError::NoEndpoint { .. }) => Ok(None),
            other => other.map(Some),
        }
    }

    fn find_model(&self, local: &str, run: &RemoteRun) -> Result<Option<RemoteModel>, ServerError> {
        let search = json!({
            "experiment_ids": [run.experiment],
            "filter": format!("source_run_id = '{}'", run.id),
            "max_results": 50,
        });
        let found = self.post("logged-models/search", &search)?;
        let is_copy = |model: &&Value| {
            let tags = model.pointer("/info/tags").and_then(|tags| Vec::<Entry>::deserialize(tags).ok());
            tags.unwrap_or_default().contains(&Entry::new(MODEL_TAG, local))
        };
        let copy = found["models"].as_array().and_then(|models| models.iter().find(is_copy));
        copy.map(|model| self.remote_model(model)).transpose()
    }

    /// A model by its id there.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub fn model(&self, id: &str) -> Result<RemoteModel, ServerError> {
        let answer = self.get(&format!("logged-models/{id}"), &[])?;
        self.remote_model(&answer["model"])
    }

    fn remote_model(&self, model: &Value) -> Result<RemoteModel, ServerError> {
        let body: ModelBody = self.part(model, "info")?;
        Ok(RemoteModel { id: body.model_id, artifact_uri: body.artifact_uri })
    }

    /// Says that all files of a model are there, and that it came out of the run.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub fn finish_model(&self, run: &str, model: &str) -> Result<(), ServerError> {
        let path = format!("{API}/logged-models/{model}");
        let body = json!({ "model_id": model, "status": "LOGGED_MODEL_READY" });
        self.client.json(&Method::PATCH, &path, Some(&body))?;
        // MLflow fails on an output that it has already.
        let known = self.outputs(run)?;
        if !known.iter().any(|output| output == model) {
            let body = json!({ "run_id": run, "models": [{ "model_id": model, "step": 0 }] });
            self.post("runs/outputs", &body)?;
        }
        Ok(())
    }

    /// Ids of the models that came out of a run.
    pub(super) fn outputs(&self, run: &str) -> Result<Vec<String>, ServerError> {
        let answer = self.get("runs/get", &[("run_id", run)])?;
        let outputs = answer.pointer("/run/outputs/model_outputs");
        let outputs =
            outputs.and_then(|outputs| Vec::<Output>::deserialize(outputs).ok()).unwrap_or_default();
        Ok(outputs.into_iter().map(|output| output.model_id).collect())
    }
}
