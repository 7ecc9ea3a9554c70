//! Stage `prepare`: the network with its starting weights, and an untrained head on it.

use std::{fmt, path::PathBuf};

use nephros_core::{
    hint::Hint,
    network::Architecture,
    preprocessing::Normalization,
    weights::{Tensor, Weights},
};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::{
    config::Params,
    manifest::ManifestError,
    pretrained::{self, Pretrained, PretrainedError},
    progress::Progress,
    stages::Project,
    train::{TrainError, write_keras},
};

/// What was prepared.
#[derive(Debug, Clone, PartialEq)]
pub struct PrepareSummary {
    /// Network.
    pub architecture: Architecture,
    /// Where the weights came from.
    pub source: String,
    /// Pixel convention of the weights.
    pub normalization: Normalization,
    /// Values in the feature extractor and head.
    pub parameters: usize,
    /// The network with its head.
    pub file: PathBuf,
}

impl fmt::Display for PrepareSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} with {} parameters, weights: {}", self.architecture, self.parameters, self.source)?;
        write!(f, "written to {}", self.file.display())
    }
}

/// Why nothing could be prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// The weights cannot be had.
    #[error(transparent)]
    Pretrained(#[from] PretrainedError),
    /// The manifest has other classes than params.yaml.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The model files cannot be written.
    #[error(transparent)]
    Write(#[from] TrainError),
    /// A file cannot be written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl Hint for PrepareError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Pretrained(error) => error.hint(),
            Self::Manifest(error) => error.hint(),
            Self::Write(error) => error.hint(),
            Self::Io(_) => None,
        }
    }
}

/// Writes `base_model.h5`, `base_model_updated.h5` and the preprocessing that the weights call for.
///
/// # Errors
/// See [`PrepareError`].
pub fn prepare(project: &Project, progress: &dyn Progress) -> Result<PrepareSummary, PrepareError> {
    let params = &project.params;
    let cache = pretrained::cache_dir();
    let Pretrained { mut weights, normalization, source, .. } = pretrained::load(
        params.architecture,
        params.image_size,
        &params.weights,
        params.seed,
        &cache,
        progress,
    )?;
    let files = &project.config.prepare_base_model;
    write_keras(&project.path(&files.base_model_path), params, None, &weights)?;
    add_head(&mut weights, params, params.classes);
    let file = project.path(&files.updated_base_model_path);
    write_keras(&file, params, Some(params.classes), &weights)?;
    let preprocessing = params.preprocessing(normalization);
    let normalization = preprocessing.normalization;
    project.write_preprocessing(&preprocessing)?;
    let parameters = weights.0.values().map(|tensor| tensor.values.len()).sum();
    Ok(PrepareSummary { architecture: params.architecture, source, normalization, parameters, file })
}

/// Adds an untrained head: Glorot uniform weights and zero biases, as Keras' `Dense` starts.
///
/// Source: Glorot and Bengio, Understanding the difficulty of training deep feedforward neural
/// networks, 2010.
pub fn add_head(weights: &mut Weights, params: &Params, classes: usize) {
    let mut rng = ChaCha8Rng::seed_from_u64(params.seed);
    // A stream of its own, so that the head does not repeat the numbers of the base.
    rng.set_stream(u64::MAX);
    let shapes = params.architecture.expected_shapes(classes, params.head_units(), params.image_size);
    for (key, shape) in shapes.into_iter().filter(|(key, _)| key.starts_with("head.")) {
        let count = shape.iter().product();
        let values = match shape.as_slice() {
            // Evidence of a class speaks for it, whatever the seed.
            [outputs, inputs] if params.architecture.judges_places() && key == "head.weight" => {
                let speaks_for = |at: usize| f32::from(u8::from(at / inputs == at % inputs + 1));
                (0..outputs * inputs).map(speaks_for).collect()
            }
            [outputs, inputs] => {
                let limit = (6.0 / (inputs + outputs) as f32).sqrt();
                (0..count).map(|_| rng.random_range(-limit..limit)).collect()
            }
            _ => vec![0.0; count],
        };
        weights.0.insert(key, Tensor { shape, values });
    }
}
