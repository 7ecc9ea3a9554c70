//! Weight files of Keras, PyTorch and safetensors.

use std::path::Path;

use burn_store::{pytorch::PytorchReader, pytorch_reader::DType};
use nephros_core::{
    keras,
    network::Architecture,
    preprocessing::Normalization,
    weights::{Tensor, Weights, WeightsError},
};

use super::PretrainedError;

/// Features of an architecture from a file, with the convention of their pixels.
pub(super) fn read(
    architecture: Architecture,
    path: &Path,
) -> Result<(Weights, Normalization), PretrainedError> {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    let (weights, normalization) = match extension.as_str() {
        "h5" | "hdf5" | "keras" => (keras::read_weights(path)?, Normalization::Caffe),
        "pth" | "pt" => (read_pytorch(architecture, path)?, Normalization::Torchvision),
        "safetensors" => {
            let weights = Weights::load(path).map_err(|source| misfit(architecture, path, source))?;
            (weights, Normalization::Torchvision)
        }
        _ => return Err(PretrainedError::Kind { path: path.to_owned() }),
    };
    let weights = select(architecture, weights).map_err(|source| misfit(architecture, path, source))?;
    let normalization = match architecture {
        Architecture::Vgg16 | Architecture::Vgg16Hypercolumn => normalization,
        Architecture::Compact | Architecture::CompactPlaces => Normalization::Unit,
    };
    Ok((weights, normalization))
}

/// The arrays of the features, checked; heads are left behind.
fn select(architecture: Architecture, mut weights: Weights) -> Result<Weights, WeightsError> {
    let mut features = Weights::default();
    for (key, shape) in architecture.expected_feature_shapes() {
        weights.get(&key, &shape)?;
        features.0.extend(weights.0.remove_entry(&key));
    }
    Ok(features)
}

fn misfit(architecture: Architecture, path: &Path, source: WeightsError) -> PretrainedError {
    PretrainedError::Weights { path: path.to_owned(), architecture, source }
}

/// Only the wanted arrays are read: torchvision's head is nine tenths of its file.
fn read_pytorch(architecture: Architecture, path: &Path) -> Result<Weights, PretrainedError> {
    // The reader's own error does not name the file.
    fs_err::metadata(path)?;
    let reader = PytorchReader::new(path)
        .map_err(|source| PretrainedError::Pytorch { path: path.to_owned(), source: Box::new(source) })?;
    let mut weights = Weights::default();
    for (key, expected) in architecture.expected_feature_shapes() {
        let Some(tensor) = reader.get(&key) else { continue };
        if tensor.dtype() != DType::F32 {
            let (path, got) = (path.to_owned(), tensor.dtype());
            return Err(PretrainedError::ElementType { path, key, got });
        }
        let shape = tensor.shape().to_vec();
        if shape != expected {
            let source = WeightsError::Shape { key, expected, got: shape };
            return Err(misfit(architecture, path, source));
        }
        let bytes = tensor.read()?;
        let values = bytes.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
        weights.0.insert(key, Tensor { shape, values });
    }
    Ok(weights)
}
