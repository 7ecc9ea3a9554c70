//! Why a bundle cannot be quantised.

use std::{io, path::PathBuf};

use nephros_conv::ConvError;
use nephros_core::{bundle::BundleError, hint::Hint, network::NetworkError, predictor::PredictError};

use crate::{ingest::sidecar::SidecarError, manifest::ManifestError, progress::Cancelled};

/// A bundle that cannot be quantised.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuantizeError {
    /// A Keras file, which has no place for 8-bit weights.
    #[error("`{path}` is a file, expected a bundle folder")]
    NotABundle {
        /// The model.
        path: PathBuf,
    },
    /// Not a share.
    #[error("the tolerance is a share of the hold-out's labels: expected 0 to 1, got {got}")]
    Tolerance {
        /// As given.
        got: f64,
    },
    /// Too few images for both parts.
    #[error("`{folder}`: expected at least {expected} different images, got {got}")]
    TooFewImages {
        /// The folder.
        folder: PathBuf,
        /// Fewest that are divided.
        expected: usize,
        /// Different files that can be read.
        got: usize,
    },
    /// All images are of one patient.
    #[error("expected images of at least 2 patients, got {images} images of `{patient}` alone")]
    OnePatient {
        /// Images.
        images: usize,
        /// The patient.
        patient: String,
    },
    /// No image of a part can be decoded.
    #[error("none of the {images} images of the {part} can be decoded")]
    Undecodable {
        /// `calibration` or `hold-out`.
        part: &'static str,
        /// Images of the part.
        images: usize,
    },
    /// The bundle cannot be read or written.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The network cannot be quantised.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The calibration images cannot be run.
    #[error("the calibration failed: {0}")]
    Calibration(#[from] ConvError),
    /// A model cannot answer for an image.
    #[error(transparent)]
    Predict(#[from] PredictError),
    /// The CSV of patients cannot be used.
    #[error(transparent)]
    Patients(#[from] SidecarError),
    /// The manifest cannot be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A folder cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Stopped by the user.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Hint for QuantizeError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotABundle { .. } => {
                "8-bit weights are stored in a bundle, which `nephros train` writes beside the .h5 file"
                    .into()
            }
            Self::Tolerance { .. } => "`--tolerance 0.01` allows one label in a hundred to change".into(),
            Self::TooFewImages { .. } => {
                "`--calibrate` takes a folder of training images; half of them are only compared on".into()
            }
            Self::OnePatient { .. } => "calibrate on images of more patients".into(),
            Self::Undecodable { .. } => "calibrate on images that `nephros predict` can read".into(),
            Self::Bundle(error) => return error.hint(),
            Self::Network(error) => return error.hint(),
            Self::Predict(error) => return error.hint(),
            Self::Patients(error) => return error.hint(),
            Self::Manifest(error) => return error.hint(),
            Self::Calibration(_) | Self::Io(_) | Self::Cancelled(_) => return None,
        })
    }
}
