//! Keras model and weight files: HDF5 (`.h5`) and the archives of Keras 3 (`.keras`), read and written.
//!
//! In memory all weights have torchvision's keys and axis orders (see
//! [`Weights`]); the files have Keras'. Features keep the keys of
//! [`FeatureLayer`], the head is `head.weight` and `head.bias`, with
//! `head.hidden.weight` and `head.hidden.bias` before it when there is a hidden layer, or
//! `head.places.weight` and `head.places.bias` in a network that judges places.

mod archive;
mod config;
mod error;
mod layers;
mod layout;
mod source;
mod topology;
mod writer;

use std::path::Path;

pub use error::{KerasError, KerasErrorKind};

use crate::{
    network::{Architecture, EVIDENCE, FeatureLayer},
    weights::{Tensor, Weights},
};
use config::{Chain, Operation, Step};
use source::WeightFile;
use topology::{Feature, Head, HeadLayer, Topology};

/// A classifier from a Keras file.
#[derive(Debug, Clone, PartialEq)]
pub struct KerasModel {
    /// Feature extractor.
    pub architecture: Architecture,
    /// Width of the hidden layer of the head; 0 for none.
    pub hidden_units: usize,
    /// Outputs of the softmax.
    pub classes: usize,
    /// Height, width and channels (3) of the input.
    pub image_size: [usize; 3],
    /// Features and head.
    pub weights: Weights,
    /// Version of Keras that wrote the file, if it says so.
    pub keras_version: Option<String>,
}

/// A model to be written as a Keras file.
#[derive(Debug, Clone, Copy)]
pub struct ModelFile<'a> {
    /// Feature extractor.
    pub architecture: Architecture,
    /// Height, width and channels (3) of the input.
    pub image_size: [usize; 3],
    /// Width of the hidden layer of the head; 0 for none.
    pub hidden_units: usize,
    /// Outputs of the softmax; `None` for a base model that ends with the features.
    pub classes: Option<usize>,
    /// Features, and head where `classes` is given; other keys are ignored.
    pub weights: &'a Weights,
    /// Whether the features are marked as not trainable.
    pub frozen: bool,
    /// Optimizer that Keras continues training with.
    pub optimizer: Optimizer,
    /// Its step size.
    pub learning_rate: f64,
}

/// The optimizer that a model is compiled with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Optimizer {
    /// Stochastic gradient descent.
    Sgd {
        /// Share of the last step that is taken again.
        momentum: f64,
    },
    /// Adam with Keras' defaults.
    Adam,
}

/// Where a file keeps the text about its model: attribute in HDF5, `nephros.json` in an archive.
const ABOUT: &str = "nephros";

/// Whether a file is named as Keras names its models: `.h5`, `.hdf5` or `.keras`.
pub fn is_named_so(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
    ["h5", "hdf5", "keras"].iter().any(|known| extension == *known)
}

/// Reads a classifier: VGG16 or nephros' compact network, then at most one hidden dense layer with
/// ReLU, then dense softmax; or compact's first layers and what judges their places. Models nested
/// in models, dropout and missing biases are understood.
///
/// # Errors
/// [`KerasError`]; the file is untrusted and nothing in it can make this panic.
pub fn read_model(path: &Path) -> Result<KerasModel, KerasError> {
    read_classifier(path).map_err(|kind| kind.at(path))
}

/// Reads the features of a weights file (layer groups at the root, as published with and without
/// top) or of any model file with or without a head.
///
/// # Errors
/// [`KerasError`]; the file is untrusted and nothing in it can make this panic.
pub fn read_weights(path: &Path) -> Result<Weights, KerasError> {
    read_features(path).map_err(|kind| kind.at(path))
}

/// Writes a model that TensorFlow 2.12 and Keras 3 both load, evaluate and train further.
///
/// The file appears under its name only when it is complete.
///
/// # Errors
/// [`KerasErrorKind::Weights`] if a weight is missing or has another shape,
/// [`KerasErrorKind::ImageSize`], and failures to write.
pub fn write_model(path: &Path, model: &ModelFile<'_>) -> Result<(), KerasError> {
    writer::write(path, model, None).map_err(|kind| kind.at(path))
}

/// As [`write_model`], with a text about the model in the attribute `nephros` of the root.
///
/// # Errors
/// As [`write_model`].
pub fn write_model_about(path: &Path, model: &ModelFile<'_>, about: &str) -> Result<(), KerasError> {
    writer::write(path, model, Some(about)).map_err(|kind| kind.at(path))
}

/// Writes a `.keras` archive for Keras 3, with a text about the model as `nephros.json` in it.
///
/// The file appears under its name only when it is complete.
///
/// # Errors
/// As [`write_model`].
pub fn write_archive(path: &Path, model: &ModelFile<'_>, about: &str) -> Result<(), KerasError> {
    archive::write(path, model, about).map_err(|kind| kind.at(path))
}

fn read_classifier(path: &Path) -> Result<KerasModel, KerasErrorKind> {
    let file = WeightFile::open(path)?;
    let chain = config::parse(&file.model_config()?.ok_or(KerasErrorKind::NoModelConfig)?)?;
    let topology = topology::recognise(&chain)?;
    let head = topology.head.as_ref().ok_or(KerasErrorKind::NoHead)?;
    let image_size = topology::image_size(chain.input)?;
    let mut weights = Weights::default();
    read_feature_arrays(&file, &topology.features, &mut weights)?;
    let (hidden_units, classes) = read_head(&file, &topology, head, image_size, &mut weights)?;
    let keras_version = file.keras_version()?;
    Ok(KerasModel {
        architecture: topology.architecture,
        hidden_units,
        classes,
        image_size,
        weights,
        keras_version,
    })
}

fn read_features(path: &Path) -> Result<Weights, KerasErrorKind> {
    let file = WeightFile::open(path)?;
    let chain = match file.model_config()? {
        Some(json) => config::parse(&json)?,
        None => chain_of_groups(&file)?,
    };
    let topology = topology::recognise(&chain)?;
    let mut weights = Weights::default();
    read_feature_arrays(&file, &topology.features, &mut weights)?;
    Ok(weights)
}

/// The chain that the group names of a weights file stand for.
fn chain_of_groups(file: &WeightFile) -> Result<Chain, KerasErrorKind> {
    let mut missing = String::new();
    // Compact first: its groups include names that VGG16 has not, and all that judge places.
    for architecture in [Architecture::Compact, Architecture::CompactPlaces, Architecture::Vgg16] {
        let mut chain = Chain::default();
        for &layer in architecture.layers() {
            push_named_steps(layer, &mut chain.steps);
        }
        match absent_group(file, &chain.steps)? {
            None => return Ok(chain),
            Some(group) => missing = group,
        }
    }
    Err(KerasErrorKind::NoSuchLayer { group: missing })
}

fn absent_group(file: &WeightFile, steps: &[Step]) -> Result<Option<String>, KerasErrorKind> {
    for step in steps.iter().filter(|step| step.operation.has_weights()) {
        if !file.has_group(&step.group)? {
            return Ok(Some(step.group.clone()));
        }
    }
    Ok(None)
}

fn push_named_steps(layer: FeatureLayer, steps: &mut Vec<Step>) {
    let mut push = |operation, name: String| {
        let (group, path, class) = (name.clone(), name.clone(), "weight group".to_owned());
        steps.push(Step { operation, group, path, layer: name, class });
    };
    match layer {
        FeatureLayer::Conv { batch_norm, keras_name, outputs, .. } => {
            push(Operation::Conv { outputs, bias: true }, keras_name.to_owned());
            if batch_norm.is_some() {
                push(Operation::BatchNorm, batch_norm_name(keras_name));
            }
            push(Operation::Relu, keras_name.to_owned());
        }
        FeatureLayer::MaxPool { keras_name } => push(Operation::MaxPool, keras_name.to_owned()),
        FeatureLayer::GlobalAveragePool => push(Operation::GlobalAveragePool, String::new()),
    }
}

/// Name of the batch norm after a convolution: `bn1` after `conv1`.
fn batch_norm_name(conv: &str) -> String {
    conv.replace("conv", "bn")
}

fn read_feature_arrays(
    file: &WeightFile,
    features: &[Feature<'_>],
    weights: &mut Weights,
) -> Result<(), KerasErrorKind> {
    for feature in features {
        match *feature {
            Feature::Conv { step, key, inputs, outputs, bias } => {
                let arrays = file.arrays(step, 1 + usize::from(bias))?;
                let shape = [3, 3, inputs, outputs];
                let kernel = layout::hwio_to_oihw(&file.read(&arrays[0], &shape)?, shape);
                weights.0.insert(format!("{key}.weight"), kernel);
                read_bias(file, arrays.get(1), key, outputs, weights)?;
            }
            Feature::BatchNorm { step, key, channels } => {
                let arrays = file.arrays(step, 4)?;
                let suffixes = ["weight", "bias", "running_mean", "running_var"];
                for (array, suffix) in arrays.iter().zip(suffixes) {
                    let values = file.read(array, &[channels])?;
                    weights.0.insert(format!("{key}.{suffix}"), Tensor { shape: vec![channels], values });
                }
            }
        }
    }
    Ok(())
}

/// Zeros stand for a layer without a bias.
fn read_bias(
    file: &WeightFile,
    array: Option<&String>,
    key: &str,
    outputs: usize,
    weights: &mut Weights,
) -> Result<(), KerasErrorKind> {
    let values = array.map_or_else(|| Ok(vec![0.0; outputs]), |array| file.read(array, &[outputs]))?;
    weights.0.insert(format!("{key}.bias"), Tensor { shape: vec![outputs], values });
    Ok(())
}

/// Returns the widths of the hidden layer (0 for none) and of the output.
fn read_head(
    file: &WeightFile,
    topology: &Topology<'_>,
    head: &Head<'_>,
    image_size: [usize; 3],
    weights: &mut Weights,
) -> Result<(usize, usize), KerasErrorKind> {
    let map = topology::feature_map(topology.architecture, image_size)?;
    if let Some(places) = head.places {
        read_places(file, places, map.channels, weights)?;
    }
    let (hidden, output) = match *head.dense.as_slice() {
        [output] => (None, output),
        [hidden, output] => (Some(hidden), output),
        _ => return Err(topology::too_many_hidden_layers(head)),
    };
    let (mut inputs, mut map) = match head.places {
        Some((_, kinds, _)) => (kinds, None),
        None => (map.height * map.width * map.channels, Some(map)),
    };
    if let Some(hidden) = hidden {
        read_dense(file, hidden, "head.hidden", inputs, map.take(), weights)?;
        inputs = hidden.1;
    }
    read_dense(file, output, "head", inputs, map, weights)?;
    Ok((hidden.map_or(0, |hidden| hidden.1), output.1))
}

/// A kernel of one row and column is a matrix.
fn read_places(
    file: &WeightFile,
    (step, kinds, bias): HeadLayer<'_>,
    channels: usize,
    weights: &mut Weights,
) -> Result<(), KerasErrorKind> {
    let arrays = file.arrays(step, 1 + usize::from(bias))?;
    let kernel = file.read(&arrays[0], &[1, 1, channels, kinds])?;
    weights.0.insert(format!("{EVIDENCE}.weight"), layout::dense_to_torch(&kernel, channels, kinds, None));
    read_bias(file, arrays.get(1), EVIDENCE, kinds, weights)
}

fn read_dense(
    file: &WeightFile,
    (step, outputs, bias): HeadLayer<'_>,
    key: &str,
    inputs: usize,
    map: Option<layout::Map>,
    weights: &mut Weights,
) -> Result<(), KerasErrorKind> {
    let arrays = file.arrays(step, 1 + usize::from(bias))?;
    let kernel = file.read(&arrays[0], &[inputs, outputs])?;
    weights.0.insert(format!("{key}.weight"), layout::dense_to_torch(&kernel, inputs, outputs, map));
    read_bias(file, arrays.get(1), key, outputs, weights)
}
