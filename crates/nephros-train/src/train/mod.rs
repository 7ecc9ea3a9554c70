//! Stage `train`: from a prepared network and ingested images to a model bundle.

mod checkpoint;
mod cpu;
pub mod data;
mod drawn;
mod features;
mod fit;
pub mod history;
mod inputs;
mod lbfgs;
mod logistic;
mod network;
mod optimum;
mod places;
mod pretraining;
mod regions;
mod sampling;
mod stage;
#[cfg(test)]
mod tests;

pub use checkpoint::Checkpoint;
pub use cpu::CpuGradients;
pub use drawn::draw;
pub use features::{FeatureStore, Key};
pub use fit::{Fit, Fitted};
pub use inputs::Inputs;
pub use network::{Classifier, Layout, Said, Trained};
pub use pretraining::pretrained_on_drawn;
pub(crate) use regions::UNITS_OF_LARGER;
pub use sampling::Sampler;
pub(crate) use stage::write_keras;
pub use stage::{TrainSummary, cached_features, class_weights, train, trained_part};

use burn::store::RecordError;
use nephros_conv::ConvError;
use nephros_core::{
    bundle::BundleError,
    hint::Hint,
    keras::KerasError,
    network::NetworkError,
    predictor::{ModelError, PredictError},
    weights::WeightsError,
};

use crate::{manifest::ManifestError, pretrained::PretrainedError, progress::Cancelled, split::SplitError};

/// Why a training did not end in a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The manifest is missing or broken.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The starting weights cannot be had.
    #[error(transparent)]
    Pretrained(#[from] PretrainedError),
    /// The images cannot be split.
    #[error(transparent)]
    Split(#[from] SplitError),
    /// An image cannot be used.
    #[error(transparent)]
    Data(#[from] data::DataError),
    /// The prepared network cannot be read, or the trained one written.
    #[error(transparent)]
    Keras(#[from] KerasError),
    /// Weights do not fit the network.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The network cannot be built.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The network gave no answer.
    #[error(transparent)]
    Predict(#[from] PredictError),
    /// The frozen part of the network cannot be built.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The part that is trained does not fit together.
    #[error(transparent)]
    Engine(#[from] ConvError),
    /// The bundle cannot be written.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A checkpoint cannot be written or read.
    #[error("checkpoint failed: {0}")]
    Record(String),
    /// The prepared network is not the one that params.yaml asks for.
    #[error("`{path}` holds {got}, but params.yaml asks for {expected}")]
    Prepared {
        /// The file.
        path: String,
        /// What params.yaml says.
        expected: String,
        /// What is in the file.
        got: String,
    },
    /// A class has no drawn patients.
    #[error("expected classes that can be drawn (Normal, Tumor, Cyst, Stone), got `{class}`")]
    Undrawable {
        /// The class.
        class: String,
    },
    /// A network that judges places asks for evidence of every class but the first.
    #[error("expected the class without a lesion, `Normal`, to be the first, got {labels:?}")]
    FirstClass {
        /// The classes.
        labels: Vec<String>,
    },
    /// The loss became NaN or infinite.
    #[error("the loss is not finite after epoch {epoch} at LEARNING_RATE {learning_rate}")]
    Diverged {
        /// The epoch.
        epoch: usize,
        /// `LEARNING_RATE`.
        learning_rate: f64,
    },
    /// The user asked to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl TrainError {
    #[allow(clippy::needless_pass_by_value, reason = "a target of map_err")]
    pub(crate) fn record(error: RecordError) -> Self {
        Self::Record(error.to_string())
    }
}

impl Hint for TrainError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Manifest(error) => error.hint(),
            Self::Pretrained(error) => error.hint(),
            Self::Split(error) => error.hint(),
            Self::Data(error) => error.hint(),
            Self::Keras(error) => error.hint(),
            Self::Weights(error) => error.hint(),
            Self::Model(error) => error.hint(),
            Self::Predict(error) => error.hint(),
            Self::Network(error) => error.hint(),
            Self::Bundle(error) => error.hint(),
            Self::Record(_) => {
                Some("delete the checkpoint folder in artifacts/training and train again".into())
            }
            Self::Prepared { .. } => Some("run `nephros prepare` after changing params.yaml".into()),
            Self::Undrawable { .. } => Some("set `PHANTOM_PATIENTS: 0` in params.yaml".into()),
            Self::FirstClass { .. } => Some("name it first in `CLASS_NAMES` in params.yaml".into()),
            Self::Diverged { .. } => Some("lower LEARNING_RATE, by a factor of 10 at first".into()),
            Self::Io(_) | Self::Engine(_) | Self::Cancelled(_) => None,
        }
    }
}
