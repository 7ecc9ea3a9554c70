//! What a model makes of its features.

use nephros_conv::Network;

use super::{PredictError, Prediction};
use crate::{
    network::{Architecture, NetworkError, PlaceHead},
    weights::Arrays,
};

/// The part of a model after its feature extractor; on its own for features that are cached.
#[derive(Debug)]
pub struct Head(Kind);

#[derive(Debug)]
enum Kind {
    /// Sees the map as a whole.
    Dense(Network),
    Places(PlaceHead),
}

impl Head {
    /// Builds the head of a model for `classes` labels; of the weights only its own are read.
    ///
    /// # Errors
    /// See [`NetworkError`].
    pub fn new(
        architecture: Architecture,
        hidden_units: usize,
        classes: usize,
        image_size: [usize; 3],
        weights: &dyn Arrays,
    ) -> Result<Self, NetworkError> {
        Ok(Self(if architecture.judges_places() {
            Kind::Places(architecture.build_place_head(weights, classes, image_size)?)
        } else {
            Kind::Dense(architecture.build_head(weights, classes, hidden_units, image_size)?)
        }))
    }

    /// Classifies features as [`super::Predictor::features`] gives them.
    ///
    /// # Errors
    /// See [`PredictError`].
    pub fn predict(&self, features: &[f32], batch: usize) -> Result<Vec<Prediction>, PredictError> {
        let logits = self.logits(features, batch)?;
        let images = logits.chunks_exact(self.classes());
        images.enumerate().map(|(image, logits)| prediction(image, logits)).collect()
    }

    /// What the softmax is taken of, `[batch, classes]`.
    ///
    /// # Errors
    /// See [`PredictError`].
    pub fn logits(&self, features: &[f32], batch: usize) -> Result<Vec<f32>, PredictError> {
        match &self.0 {
            Kind::Dense(network) => {
                let mut logits = vec![0.0; batch * network.output().len()];
                network.forward(features, batch, &mut logits)?;
                Ok(logits)
            }
            Kind::Places(head) => Ok(head.forward(features, batch)?),
        }
    }

    fn classes(&self) -> usize {
        match &self.0 {
            Kind::Dense(network) => network.output().len(),
            Kind::Places(head) => head.classes(),
        }
    }
}

/// Softmax in f64, after subtracting the maximum: no logit overflows and the rounding of the sum
/// stays below that of f32.
fn prediction(image: usize, logits: &[f32]) -> Result<Prediction, PredictError> {
    if logits.iter().any(|logit| !logit.is_finite()) {
        return Err(PredictError::NotFinite { image, logits: logits.to_vec() });
    }
    let maximum = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> =
        logits.iter().map(|logit| (f64::from(*logit) - f64::from(maximum)).exp()).collect();
    let sum: f64 = powers.iter().sum();
    Ok(Prediction { probabilities: powers.iter().map(|power| (power / sum) as f32).collect() })
}
