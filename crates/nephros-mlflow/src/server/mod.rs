//! A tracking server of MLflow 3 or 2, or one that speaks as they do, over HTTP.

mod artifacts;
mod client;
mod download;
mod error;
mod models;
mod registry;

use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::Method;

pub use client::Patience;
pub use error::ServerError;
pub use models::RemoteModel;

use crate::{
    run::{Batch, DatasetInput, Entry, NewRun, RunStatus},
    settings::Address,
};
use client::Client;

/// Tag of a run's copy that holds the id of the run in the embedded store.
pub const RUN_TAG: &str = "nephros.run_id";
/// Tag of a model's copy that holds the id of the model in the embedded store.
pub const MODEL_TAG: &str = "nephros.model_id";

/// What JSON adds to a metric or an entry, beside that a byte of a text may become six.
const FRAME: usize = 120;

/// Start of all paths.
const API: &str = "/api/2.0/mlflow";
/// Limits of MLflow for one batch.
const METRICS_LIMIT: usize = 1000;
const ENTRIES_LIMIT: usize = 100;
/// A request of MLflow has at most 1 MB; this leaves room for what stands around a batch.
const BYTES_LIMIT: usize = 900_000;

/// A server.
#[derive(Debug)]
pub struct Server {
    client: Client,
}

/// A run on a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteRun {
    /// Its id there.
    pub id: String,
    /// Where its artifacts go.
    pub artifact_uri: String,
    /// Its experiment.
    pub experiment: String,
}

#[derive(Deserialize)]
struct RunBody {
    run_id: String,
    artifact_uri: String,
    experiment_id: String,
    #[serde(default)]
    lifecycle_stage: String,
}

impl Server {
    /// A client of the server; nothing is sent yet.
    pub fn new(address: &Address, patience: Patience) -> Self {
        Self { client: Client::new(address, patience) }
    }

    /// The address, without credentials.
    pub fn url(&self) -> &str {
        &self.client.url
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value, ServerError> {
        post(&self.client, path, body)
    }

    fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, ServerError> {
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        let question = if query.is_empty() { "" } else { "?" };
        self.client.json(&Method::GET, &format!("{API}/{path}{question}{query}"), None)
    }

    /// What a key of an answer holds.
    fn part<T: serde::de::DeserializeOwned>(&self, answer: &Value, key: &str) -> Result<T, ServerError> {
        let pointer = format!("/{}", key.replace('.', "/"));
        answer
            .pointer(&pointer)
            .and_then(|value| T::deserialize(value).ok())
            .ok_or_else(|| ServerError::Incomplete { url: self.client.url.clone(), key: key.to_owned() })
    }

    /// The number of an experiment, made where there is none.
    ///
    /// # Errors
    /// [`ServerError::ExperimentDeleted`]; see [`ServerError`].
    pub fn experiment(&self, name: &str) -> Result<String, ServerError> {
        let find = || self.find_experiment(name);
        self.client.find_or_create(find, |client| {
            match post(client, "experiments/create", &json!({ "name": name })) {
                // Another was faster.
                Err(error) if error.is_refusal("RESOURCE_ALREADY_EXISTS") => find()?.ok_or(error),
                other => self.part(&other?, "experiment_id"),
            }
        })
    }

    fn find_experiment(&self, name: &str) -> Result<Option<String>, ServerError> {
        let answer = match self.get("experiments/get-by-name", &[("experiment_name", name)]) {
            Err(error) if error.is_refusal("RESOURCE_DOES_NOT_EXIST") => return Ok(None),
            other => other?,
        };
        let stage: String = self.part(&answer, "experiment.lifecycle_stage")?;
        if stage == "deleted" {
            return Err(ServerError::ExperimentDeleted {
                name: name.to_owned(),
                url: self.client.url.clone(),
            });
        }
        self.part(&answer, "experiment.experiment_id").map(Some)
    }

    /// The copy of the run `local`, made where there is none: however often a request had to be repeated,
    /// there is one.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub fn copy_of_run(&self, local: &str, run: &NewRun, start_ms: i64) -> Result<RemoteRun, ServerError> {
        let experiment = self.experiment(&run.experiment)?;
        let search = json!({
            "experiment_ids": [experiment],
            "filter": format!("tags.`{RUN_TAG}` = '{local}'"),
            "max_results": 1,
        });
        let mut tags = run.all_tags();
        tags.push(Entry::new(RUN_TAG, local));
        let body = json!({
            "experiment_id": experiment,
            "run_name": run.name,
            "user_id": run.user,
            "start_time": start_ms,
            "tags": tags,
        });
        self.client.find_or_create(
            || {
                let found = self.post("runs/search", &search)?;
                found.pointer("/runs/0").map(|run| self.remote_run(run)).transpose()
            },
            |client| self.remote_run(&post(client, "runs/create", &body)?["run"]),
        )
    }

    /// A run by its id there.
    ///
    /// # Errors
    /// [`ServerError::RunDeleted`]; see [`ServerError`].
    pub fn run(&self, id: &str) -> Result<RemoteRun, ServerError> {
        match self.get("runs/get", &[("run_id", id)]) {
            Err(error) if error.is_refusal("RESOURCE_DOES_NOT_EXIST") => Err(self.deleted(id)),
            other => self.remote_run(&other?["run"]),
        }
    }

    fn remote_run(&self, run: &Value) -> Result<RemoteRun, ServerError> {
        let body: RunBody = self.part(run, "info")?;
        if body.lifecycle_stage == "deleted" {
            return Err(self.deleted(&body.run_id));
        }
        Ok(RemoteRun { id: body.run_id, artifact_uri: body.artifact_uri, experiment: body.experiment_id })
    }

    fn deleted(&self, run: &str) -> ServerError {
        ServerError::RunDeleted { run: run.to_owned(), url: self.client.url.clone() }
    }

    /// Logs a batch, in as many requests as MLflow's limits ask for.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub fn log_batch(&self, run: &str, batch: &Batch) -> Result<(), ServerError> {
        let (undefined, metrics) = batch.metrics.iter().cloned().partition(|metric| metric.value.is_nan());
        for part in within_limits(&Batch { metrics, ..batch.clone() }) {
            self.log_part(run, &part)?;
        }
        // MLflow ignores a metric that it has already, but version 2 fails on one that is NaN.
        for metric in undefined {
            match self.log_part(run, &Batch { metrics: vec![metric], ..Batch::default() }) {
                Err(ServerError::Refused { message, .. }) if is_known(&message) => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn log_part(&self, run: &str, part: &Batch) -> Result<(), ServerError> {
        let mut body = serde_json::to_value(part).map_err(std::io::Error::from)?;
        body["run_id"] = run.into();
        self.post("runs/log-batch", &body)?;
        Ok(())
    }

    /// Logs the data that a run used.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub fn log_inputs(&self, run: &str, datasets: &[DatasetInput]) -> Result<(), ServerError> {
        let datasets: Vec<Value> = datasets
            .iter()
            .map(|dataset| {
                json!({
                    "tags": [{ "key": "mlflow.data.context", "value": dataset.context }],
                    "dataset": {
                        "name": dataset.name,
                        "digest": dataset.digest,
                        "source_type": dataset.source_type,
                        "source": dataset.source,
                        "profile": dataset.profile,
                    },
                })
            })
            .collect();
        self.post("runs/log-inputs", &json!({ "run_id": run, "datasets": datasets }))?;
        Ok(())
    }

    /// Says how far a run is.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub fn set_status(&self, run: &str, status: RunStatus, end_ms: Option<i64>) -> Result<(), ServerError> {
        let mut body = json!({ "run_id": run, "status": status });
        if let Some(end_ms) = end_ms {
            body["end_time"] = end_ms.into();
        }
        self.post("runs/update", &body)?;
        Ok(())
    }
}

fn post(client: &Client, path: &str, body: &Value) -> Result<Value, ServerError> {
    client.json(&Method::POST, &format!("{API}/{path}"), Some(body))
}

/// Whether MLflow's database says that it has a row already: SQLite, PostgreSQL and MySQL.
fn is_known(message: &str) -> bool {
    ["UNIQUE constraint failed", "duplicate key", "Duplicate entry"].iter().any(|text| message.contains(text))
}

/// Parts of a batch that MLflow takes in one request each.
fn within_limits(batch: &Batch) -> Vec<Batch> {
    let mut parts = Vec::new();
    let mut part = Batch::default();
    let mut bytes = 0;
    let mut room = |part: &mut Batch, added: usize, parts: &mut Vec<Batch>| {
        let full = part.metrics.len() >= METRICS_LIMIT
            || part.params.len() >= ENTRIES_LIMIT
            || part.tags.len() >= ENTRIES_LIMIT
            || part.metrics.len() + part.params.len() + part.tags.len() >= METRICS_LIMIT;
        if !part.is_empty() && (full || bytes + added > BYTES_LIMIT) {
            parts.push(std::mem::take(part));
            bytes = 0;
        }
        bytes += added;
    };
    for param in &batch.params {
        room(&mut part, FRAME + 6 * (param.key.len() + param.value.len()), &mut parts);
        part.params.push(param.clone());
    }
    for tag in &batch.tags {
        room(&mut part, FRAME + 6 * (tag.key.len() + tag.value.len()), &mut parts);
        part.tags.push(tag.clone());
    }
    for metric in &batch.metrics {
        room(&mut part, FRAME + 6 * metric.key.len(), &mut parts);
        part.metrics.push(metric.clone());
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Metric;

    #[test]
    fn a_large_batch_becomes_parts_within_the_limits_of_mlflow() {
        let metric = |step| Metric { key: "loss".into(), value: 0.5, timestamp: 1, step };
        let entry = |number| Entry::new(format!("key{number}"), "é".repeat(1000));
        let batch = Batch {
            metrics: (0..2345).map(metric).collect(),
            params: (0..250).map(entry).collect(),
            tags: (0..101).map(entry).collect(),
        };
        let parts = within_limits(&batch);
        for part in &parts {
            assert!(part.metrics.len() <= 1000 && part.params.len() <= 100 && part.tags.len() <= 100);
            assert!(part.metrics.len() + part.params.len() + part.tags.len() <= 1000);
            assert!(serde_json::to_vec(part).unwrap().len() < 1_000_000);
        }
        let all =
            |entries: fn(&Batch) -> &Vec<Entry>| parts.iter().flat_map(entries).cloned().collect::<Vec<_>>();
        assert_eq!(all(|part| &part.params), batch.params);
        assert_eq!(all(|part| &part.tags), batch.tags);
        let steps: Vec<i64> = parts.iter().flat_map(|part| &part.metrics).map(|metric| metric.step).collect();
        assert_eq!(steps, (0..2345).collect::<Vec<_>>());
        assert!(within_limits(&Batch::default()).is_empty());
    }
}
