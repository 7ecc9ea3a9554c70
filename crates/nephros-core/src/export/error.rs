//! Why a model cannot be exported.

use std::{io, path::PathBuf};

use crate::{bundle::BundleError, hint::Hint, keras::KerasError, weights::WeightsError};

/// A model that cannot be written for other programs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The folder holds something that is no MLflow model.
    #[error("`{path}` is there and is no MLflow model: it has no `MLmodel`")]
    NotAModelFolder {
        /// The folder.
        path: PathBuf,
    },
    /// A file or folder cannot be written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The weights do not make the network.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A Keras file cannot be written.
    #[error(transparent)]
    Keras(#[from] KerasError),
    /// The bundle cannot be copied.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

impl Hint for ExportError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NotAModelFolder { .. } => Some("name another folder, or an empty one".to_owned()),
            Self::Io(_) => None,
            Self::Weights(error) => error.hint(),
            Self::Keras(error) => error.hint(),
            Self::Bundle(error) => error.hint(),
        }
    }
}
