//! What is said about a model in every file of it.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    bundle::{BundleMeta, Evaluation},
    network::Architecture,
    preprocessing::Preprocessing,
};

/// What weights alone do not say; JSON in every exported file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct About {
    /// Version of nephros that wrote the file.
    pub nephros_version: String,
    /// Id of the model, such as `vgg16-1a2b3c4d`.
    pub model_id: String,
    /// Network.
    pub architecture: Architecture,
    /// Labels, in the order of the outputs.
    pub labels: Vec<String>,
    /// From a decoded image to the input. It is not in the file: whoever calls the model does it.
    pub preprocessing: Preprocessing,
    /// Which of the fields the source did not say, so that they are assumed: `labels`,
    /// `preprocessing`.
    pub assumed: Vec<&'static str>,
    /// What the input is.
    pub input: String,
    /// What the output is.
    pub output: String,
    /// What the logarithms of the output are divided by, before they are normalised again, for
    /// calibrated probabilities; `None` where the model has no calibration.
    pub temperature: Option<f64>,
    /// `passed`, `refused: …` with the reasons, or `never evaluated`.
    pub evaluation: String,
    /// Digest of the dataset trained on, where it is known.
    pub dataset_digest: Option<String>,
    /// Digest of the split trained with, where it is known.
    pub split_digest: Option<String>,
    /// What the model is for.
    pub intended_use: &'static str,
}

impl About {
    pub(super) fn of_bundle(meta: BundleMeta, evaluation: Option<&Evaluation>) -> Self {
        let evaluation = match evaluation {
            None => "never evaluated".to_owned(),
            Some(Evaluation { gate, .. }) if gate.refuses() => format!("refused: {gate}"),
            Some(_) => "passed".to_owned(),
        };
        let known = |digest: String| Some(digest).filter(|digest| !digest.is_empty());
        Self {
            assumed: Vec::new(),
            temperature: meta.calibration.map(|calibration| calibration.temperature),
            evaluation,
            dataset_digest: known(meta.dataset_digest),
            split_digest: known(meta.split_digest),
            ..Self::of_network(meta.id, meta.architecture, meta.labels, meta.preprocessing)
        }
    }

    /// What a Keras file does not say is marked as assumed.
    pub(super) fn of_keras(
        model_id: String,
        architecture: Architecture,
        labels: Vec<String>,
        preprocessing: Preprocessing,
        preprocessing_known: bool,
    ) -> Self {
        let assumed = if preprocessing_known { vec!["labels"] } else { vec!["labels", "preprocessing"] };
        Self { assumed, ..Self::of_network(model_id, architecture, labels, preprocessing) }
    }

    fn of_network(
        model_id: String,
        architecture: Architecture,
        labels: Vec<String>,
        preprocessing: Preprocessing,
    ) -> Self {
        let [height, width, channels] = preprocessing.image_size;
        Self {
            nephros_version: env!("CARGO_PKG_VERSION").to_owned(),
            model_id,
            architecture,
            input: format!("float32 [batch, {height}, {width}, {channels}], pixels after the preprocessing"),
            output: format!(
                "float32 [batch, {}], softmax of the network before calibration, in the order of the labels",
                labels.len()
            ),
            labels,
            preprocessing,
            assumed: Vec::new(),
            temperature: None,
            evaluation: "never evaluated".to_owned(),
            dataset_digest: None,
            split_digest: None,
            intended_use: "research, teaching and method comparison; not a medical device",
        }
    }

    /// The fields as a JSON object.
    pub fn to_json(&self) -> String {
        Value::Object(self.fields()).to_string()
    }

    /// The fields by name.
    pub fn fields(&self) -> Map<String, Value> {
        // A struct of these fields always becomes an object.
        match serde_json::to_value(self) {
            Ok(Value::Object(fields)) => fields,
            _ => Map::new(),
        }
    }
}
