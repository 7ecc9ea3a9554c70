//! What happened to a run, in the order in which it happened: what a server is fed with.

use serde::{Deserialize, Serialize};

use crate::run::{Batch, DatasetInput, RunStatus};

/// One thing that happened. Each can be told twice without harm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// Metrics, parameters and tags.
    Batch(Batch),
    /// Data that the run used.
    Inputs {
        /// The data.
        datasets: Vec<DatasetInput>,
    },
    /// A file of the run.
    Artifact {
        /// Path below the run's artifacts, with `/`.
        path: String,
    },
    /// A model came out of the run.
    Model {
        /// Its id.
        model: String,
    },
    /// A file of a model was replaced.
    ModelFile {
        /// Id of the model.
        model: String,
        /// Path below the model's folder, with `/`.
        path: String,
    },
    /// The model was registered.
    Version {
        /// Name in the registry.
        name: String,
        /// Id of the model.
        model: String,
        /// Number in this registry; another registry counts for itself.
        version: u32,
    },
    /// The run began again or ended.
    Status {
        /// How far it is.
        status: RunStatus,
        /// End, in milliseconds since 1970.
        end_ms: Option<i64>,
    },
}
