//! Why a bundle cannot be read or written.

use std::{io, path::PathBuf};

use safetensors::{Dtype, SafeTensorError};

use super::{FORMAT_VERSION, Gate};
use crate::{
    hint::Hint,
    predictor::{ModelError, PredictError},
    weights::WeightsError,
};

/// A bundle that cannot be read, written or trusted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// There is no bundle at the path.
    #[error("no model bundle at `{path}`: it has no `bundle.json`")]
    NotFound {
        /// The folder.
        path: PathBuf,
    },
    /// A file of the bundle is missing.
    #[error("the bundle has no `{path}`")]
    MissingFile {
        /// The file.
        path: PathBuf,
    },
    /// 8-bit weights were asked for.
    #[error("`{path}` has no 8-bit weights")]
    NotQuantized {
        /// The model.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// `bundle.json` is not what this version writes.
    #[error("`{path}` is not a bundle description: {source}")]
    Meta {
        /// `bundle.json`.
        path: PathBuf,
        /// What the reader says, with line and column.
        source: serde_json::Error,
    },
    /// `evaluation.json` or `forced.json` is not what this version writes.
    #[error("`{path}` is not the verdict of an evaluation: {source}")]
    Verdict {
        /// The file.
        path: PathBuf,
        /// What the reader says, with line and column.
        source: serde_json::Error,
    },
    /// The format is of a later version.
    #[error("`{path}` was made by a newer nephros: expected format version {FORMAT_VERSION}, got {got}")]
    Newer {
        /// `bundle.json`.
        path: PathBuf,
        /// Its format version.
        got: u64,
    },
    /// There never was such a format version, or it is that of another content.
    #[error("`{path}`: expected format version {expected}, got {got}")]
    FormatVersion {
        /// `bundle.json`.
        path: PathBuf,
        /// The format version of what it describes.
        expected: u64,
        /// Its format version, as written.
        got: String,
    },
    /// A file is not the one that the bundle was made with.
    #[error("`{path}` was changed after the bundle was made: expected sha256 {expected}, got {got}")]
    Hash {
        /// The file.
        path: PathBuf,
        /// SHA-256 in `bundle.json`.
        expected: String,
        /// SHA-256 of the file.
        got: String,
    },
    /// There are not as many labels as outputs.
    #[error("`{path}` names {labels} labels, but the head has {outputs} outputs")]
    Labels {
        /// `bundle.json`, or the folder to be written.
        path: PathBuf,
        /// Labels named.
        labels: usize,
        /// Rows of `head.weight`.
        outputs: usize,
    },
    /// The calibration or the abstention cannot be applied.
    #[error("`{path}`: expected a usable `{key}`, got {got}")]
    Reading {
        /// `bundle.json`.
        path: PathBuf,
        /// `calibration`, `abstention`, `input_gate` or one of `patient`.
        key: &'static str,
        /// What cannot be used.
        got: String,
    },
    /// What decides which pictures get a label cannot be read or written.
    #[error("`{path}` does not hold what its bundle compares pictures with: {got}")]
    InputGate {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        got: String,
    },
    /// An evaluation speaks against the model.
    #[error("the model in `{path}` failed the gate: {gate}")]
    Refused {
        /// The folder.
        path: PathBuf,
        /// What was found.
        gate: Gate,
    },
    /// The weights cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The networks cannot be built.
    #[error("the bundle `{path}` does not make a model: {source}")]
    Model {
        /// The folder.
        path: PathBuf,
        /// What does not fit.
        source: Box<ModelError>,
    },
    /// No golden image was given to save.
    #[error("a bundle needs at least one golden image, got none")]
    NoGolden,
    /// The goldens are not safetensors.
    #[error("`{path}` does not hold golden images: {source}")]
    GoldenFormat {
        /// The file.
        path: PathBuf,
        /// What the reader says.
        source: SafeTensorError,
    },
    /// The goldens have the wrong element types.
    #[error("`{path}`: expected `input` as U8 and `probabilities` as F32, got {input} and {output}")]
    GoldenTypes {
        /// The file.
        path: PathBuf,
        /// Type of `input`.
        input: Dtype,
        /// Type of `probabilities`.
        output: Dtype,
    },
    /// The goldens do not fit the model.
    #[error("`{path}`: expected `{array}` of shape {expected:?}, got {got:?}")]
    GoldenShape {
        /// The file.
        path: PathBuf,
        /// `input` or `probabilities`.
        array: &'static str,
        /// Shape that the model takes or gives.
        expected: Vec<usize>,
        /// Shape in the file.
        got: Vec<usize>,
    },
    /// The model cannot answer for its goldens.
    #[error("the golden images cannot be replayed: {0}")]
    Replay(#[from] PredictError),
    /// The model answers otherwise than when it was saved.
    #[error(
        "golden image {image} of `{path}`: expected `{label}` with probability {expected:.6}, got {got:.6}"
    )]
    Golden {
        /// The file.
        path: PathBuf,
        /// Image, from 0.
        image: usize,
        /// Label that differs.
        label: String,
        /// Probability in the file.
        expected: f32,
        /// Probability now.
        got: f32,
    },
}

impl Hint for BundleError {
    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NotFound { .. } => "run `nephros train` first, or name a bundle or .h5 file with `--model`",
            Self::MissingFile { .. } | Self::Hash { .. } | Self::GoldenFormat { .. } => {
                "copy the whole bundle folder again, or train again"
            }
            Self::NotQuantized { .. } => "add them to a bundle with `nephros quantize --calibrate DIR`",
            Self::Newer { .. } => "update nephros, or train the model again with this version",
            Self::Golden { .. } => {
                "this build or machine computes something else than the one that trained the model; \
                 do not use it, train again or report the difference"
            }
            Self::Labels { .. } => "`CLASS_NAMES` and the trained head must agree; train again",
            Self::Reading { .. } | Self::InputGate { .. } => "train the model again",
            Self::Verdict { .. } => {
                "run `nephros evaluate` again; a `forced.json` that was edited has to be restored"
            }
            Self::Refused { .. } => {
                "train on more patients, or mend what is named, and run `nephros evaluate`; \
                 `--force` uses the model anyway, and the bundle will say so"
            }
            Self::Weights(error) => return error.hint(),
            Self::Model { source, .. } => return source.hint(),
            Self::Replay(error) => return error.hint(),
            _ => return None,
        };
        Some(text.to_owned())
    }
}
