//! What a model is fitted on: images that are augmented anew each epoch, or cached features.

use nephros_core::{
    predictor::{Head, PredictError, Prediction, Predictor},
    weights::Weights,
};

use rayon::prelude::*;

use super::{
    TrainError,
    data::{Pipeline, Sample, View},
    features::{FeatureStore, Key},
    network::Layout,
};
use crate::{evaluate::metrics::Predictions, input_gate::pooled};

/// Labelled inputs of the part of the network that is trained.
#[derive(Debug)]
pub enum Inputs<'a> {
    /// Resized images; network input is made on demand.
    Images {
        /// The images.
        samples: Vec<&'a Sample>,
        /// From image to network input.
        pipeline: &'a Pipeline,
    },
    /// Frozen features, one or more views of each image.
    Features {
        /// Where they are.
        store: &'a FeatureStore,
        /// Views of each image, in turn over the epochs; the first is the plain one.
        keys: Vec<Vec<Key>>,
        /// Label of each image.
        labels: Vec<usize>,
    },
}

/// Images scored at a time, so that network input of a large set is never in memory at once.
const GROUP: usize = 32;

impl<'a> Inputs<'a> {
    /// Images.
    pub fn len(&self) -> usize {
        match self {
            Self::Images { samples, .. } => samples.len(),
            Self::Features { labels, .. } => labels.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Label of an image.
    pub fn label(&self, position: usize) -> usize {
        match self {
            Self::Images { samples, .. } => samples[position].label,
            Self::Features { labels, .. } => labels[position],
        }
    }

    /// Values of some images one after the other, as seen in an epoch or (`None`) as they are.
    pub fn batch(&self, positions: &[usize], epoch: Option<u64>) -> Vec<f32> {
        match self {
            Self::Images { samples, pipeline } => {
                let samples: Vec<&Sample> = positions.iter().map(|&position| samples[position]).collect();
                pipeline.batch(&samples, epoch.map_or(View::Plain, View::Augmented))
            }
            Self::Features { store, keys, .. } => {
                let mut values = Vec::new();
                for &position in positions {
                    let views = &keys[position];
                    let view = epoch.map_or(0, |epoch| epoch as usize % views.len());
                    values.extend_from_slice(store.get(&views[view]).unwrap_or_default());
                }
                values
            }
        }
    }

    /// The lesions of some images, as [`Pipeline::lesion`] gives them for places of `side` pixels, each with its
    /// label.
    pub fn lesions(
        &self,
        positions: &[usize],
        epoch: u64,
        side: usize,
    ) -> Vec<Option<(Option<usize>, Vec<f32>)>> {
        let Self::Images { samples, pipeline } = self else { return vec![None; positions.len()] };
        let of = |&position: &usize| {
            let sample = samples[position];
            let places = pipeline.lesion(sample, View::Augmented(epoch), side)?;
            Some((sample.lesion.as_ref()?.label, places))
        };
        positions.par_iter().map(of).collect()
    }

    /// The cached views of an image; none where images are not cached as features.
    pub fn views(&self, position: usize) -> Vec<&'a [f32]> {
        match self {
            Self::Images { .. } => Vec::new(),
            Self::Features { store, keys, .. } => {
                let store: &'a FeatureStore = store;
                keys[position].iter().filter_map(|key| store.get(key)).collect()
            }
        }
    }

    /// The last feature maps of some images as they are, pooled to `[positions, channels]`, by the
    /// engine that serves.
    ///
    /// # Errors
    /// The weights do not fit or give no finite features.
    pub fn pooled_features(
        &self,
        positions: &[usize],
        layout: Layout,
        weights: &Weights,
    ) -> Result<Vec<f32>, TrainError> {
        let channels = layout.architecture.feature_shape(layout.image_size).channels;
        let predictor = match self {
            Self::Images { pipeline, .. } => Some(layout.predictor(pipeline, weights)?),
            Self::Features { .. } => None,
        };
        let mut all = Vec::with_capacity(positions.len() * channels);
        for group in positions.chunks(GROUP) {
            let values = self.batch(group, None);
            let features = match &predictor {
                Some(predictor) => predictor.features(&values, group.len())?,
                None => values,
            };
            all.extend(pooled(&features, group.len(), channels));
        }
        Ok(all)
    }

    /// What a model with these weights says, by the engine that serves.
    ///
    /// # Errors
    /// The weights do not fit or give no finite answer.
    pub fn predict(&self, layout: Layout, weights: &Weights) -> Result<Predictions, TrainError> {
        let Layout { architecture, image_size, hidden_units, classes } = layout;
        match self {
            Self::Images { pipeline, .. } => {
                let predictor = layout.predictor(pipeline, weights)?;
                self.answers(|values, images| predictor.predict_input(values, images))
            }
            Self::Features { .. } => {
                let head = Head::new(architecture, hidden_units, classes, image_size, weights)?;
                self.answers(|values, images| head.predict(values, images))
            }
        }
    }

    fn answers(
        &self,
        predict: impl Fn(&[f32], usize) -> Result<Vec<Prediction>, PredictError>,
    ) -> Result<Predictions, TrainError> {
        let mut predictions = Predictions::default();
        let positions: Vec<usize> = (0..self.len()).collect();
        for group in positions.chunks(GROUP) {
            let answers = predict(&self.batch(group, None), group.len())?;
            for (&position, answer) in group.iter().zip(answers) {
                predictions.push(self.label(position), answer.probabilities);
            }
        }
        Ok(predictions)
    }
}

impl Layout {
    /// A model without names, for what its network gives.
    fn predictor(self, pipeline: &Pipeline, weights: &Weights) -> Result<Predictor, TrainError> {
        let Self { architecture, hidden_units, classes, .. } = self;
        let labels = (0..classes).map(|class| class.to_string()).collect();
        let preprocessing = pipeline.preprocessing.clone();
        Ok(Predictor::from_parts(architecture, hidden_units, labels, preprocessing, weights, String::new())?)
    }
}
