//! What can be wrong with a Keras file.

use std::{
    error::Error,
    fmt,
    path::{Path, PathBuf},
};

use crate::{hint::Hint, weights::WeightsError};

/// A Keras file that cannot be read or written.
#[derive(Debug)]
pub struct KerasError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub kind: KerasErrorKind,
}

/// What is wrong with a Keras file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KerasErrorKind {
    /// The file cannot be opened, read, created or renamed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The file does not begin as HDF5 does.
    #[error("not an HDF5 file: {begin}")]
    NotHdf5 {
        /// How the file begins, as a clause.
        begin: String,
    },
    /// The file ends early.
    #[error("truncated: expected {expected} bytes, got {got}")]
    Truncated {
        /// Size that the file says it has.
        expected: u64,
        /// Size that it has.
        got: u64,
    },
    /// HDF5 structures that lead nowhere.
    #[error("damaged at {object}")]
    Damaged {
        /// The group, attribute or dataset that was being read.
        object: String,
        /// What the HDF5 reader says.
        source: hdf5_pure::Error,
    },
    /// The file cannot be encoded.
    #[error("cannot be written as HDF5")]
    Encode(#[source] hdf5_pure::Error),
    /// The archive cannot be read or written.
    #[error("cannot be used as a zip archive")]
    Archive(#[source] zip::result::ZipError),
    /// The archive lacks a file that Keras puts there.
    #[error("no `{name}` in the archive, as `.keras` files have")]
    MissingEntry {
        /// The file.
        name: &'static str,
    },
    /// The archive holds more than it could.
    #[error("`{name}` in the archive is longer than {limit} bytes")]
    LargeEntry {
        /// The file.
        name: &'static str,
        /// Longest that is read.
        limit: u64,
    },
    /// A weights file where a model is wanted.
    #[error("no `model_config` attribute: the file holds weights without a model")]
    NoModelConfig,
    /// `model_config` is not JSON.
    #[error("`model_config` is not JSON")]
    Json(#[source] serde_json::Error),
    /// `model_config` lacks something that every Keras model has.
    #[error("`model_config`: expected {expected} in `{parent}`")]
    ModelConfig {
        /// What is missing.
        expected: &'static str,
        /// Layer or model that lacks it.
        parent: String,
    },
    /// A layer that nephros cannot run.
    #[error("layer `{layer}` ({class}) is not supported: {why}")]
    UnsupportedLayer {
        /// Name of the layer.
        layer: String,
        /// Keras class of the layer.
        class: String,
        /// What is not supported about it.
        why: String,
    },
    /// Known layers in an order that is none of the architectures.
    #[error("layers do not form a known network: expected {expected}, got {got}")]
    UnknownNetwork {
        /// Layer that the closest architecture has at this place.
        expected: String,
        /// Layer in the file.
        got: String,
    },
    /// A base model where a classifier is wanted.
    #[error("the model ends without a dense softmax layer")]
    NoHead,
    /// The groups of a weights file are not a known network's.
    #[error("no group `{group}`: the weights of VGG16 or of nephros' compact network have one")]
    NoSuchLayer {
        /// Group of the closest architecture.
        group: String,
    },
    /// A layer with fewer or more arrays than it needs.
    #[error("layer `{layer}`: expected {expected} weight arrays, got {got}")]
    WeightCount {
        /// Name of the layer.
        layer: String,
        /// Arrays that the layer needs.
        expected: usize,
        /// Arrays in the file.
        got: usize,
    },
    /// An array that is named and not there.
    #[error("no dataset `{key}`")]
    MissingDataset {
        /// Path of the dataset.
        key: String,
    },
    /// An array of another shape than the network's.
    #[error("dataset `{key}`: expected shape {expected:?}, got {got:?}")]
    Shape {
        /// Path of the dataset.
        key: String,
        /// Shape that the network needs, in Keras' axis order.
        expected: Vec<usize>,
        /// Shape in the file.
        got: Vec<u64>,
    },
    /// An array of another type than float32.
    #[error("dataset `{key}`: expected float32, got {got}")]
    ElementType {
        /// Path of the dataset.
        key: String,
        /// Type in the file.
        got: String,
    },
    /// Weights that do not fit the model to be written.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// An image size that the network cannot take.
    #[error("an image of {0:?} is too small or too large for the network")]
    ImageSize([usize; 3]),
}

impl KerasErrorKind {
    /// Names the file.
    pub(super) fn at(self, path: &Path) -> KerasError {
        KerasError { path: path.to_owned(), kind: self }
    }
}

impl fmt::Display for KerasError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            // fs_err's text names the file already.
            KerasErrorKind::Io(error) => write!(f, "{error}"),
            kind => write!(f, "`{}`: {kind}", self.path.display()),
        }
    }
}

impl Error for KerasError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.kind.source()
    }
}

impl Hint for KerasError {
    fn hint(&self) -> Option<String> {
        let text = match &self.kind {
            KerasErrorKind::NotHdf5 { .. } => {
                "save the model with `model.save(\"model.h5\")` or `.keras`, or download the file again"
            }
            KerasErrorKind::Truncated { .. }
            | KerasErrorKind::Damaged { .. }
            | KerasErrorKind::Archive(_)
            | KerasErrorKind::MissingEntry { .. } => {
                "copy or download the file again and compare its checksum"
            }
            KerasErrorKind::NoModelConfig => {
                "use the file as `WEIGHTS` in params.yaml, or save the whole model with `model.save(\"model.h5\")`"
            }
            KerasErrorKind::UnsupportedLayer { .. } | KerasErrorKind::UnknownNetwork { .. } => {
                "supported are VGG16 + Flatten + an optional hidden Dense (relu) + Dense (softmax), and the models that nephros writes"
            }
            KerasErrorKind::NoHead => "use the file as `WEIGHTS` in params.yaml and train a head",
            KerasErrorKind::ElementType { .. } => "save the model with the float32 policy",
            KerasErrorKind::Weights(error) => return error.hint(),
            KerasErrorKind::ImageSize(_) => "change `IMAGE_SIZE` in params.yaml",
            _ => return None,
        };
        Some(text.to_owned())
    }
}
