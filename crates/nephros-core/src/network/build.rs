//! From named weights to the inference engine.

use std::ops::Range;

use nephros_conv::{ConvError, Layer, Network, NetworkBuilder, Options, Shape};
use rayon::prelude::*;

use super::{Architecture, BATCH_NORM_EPSILON, FeatureLayer, Features, PlaceHead, features::Chain};
use crate::{
    hint::Hint,
    weights::{Arrays, WeightsError},
};

/// A network that cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// An array is missing, misshapen or not finite.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The input is not RGB.
    #[error("expected an image size of [height, width, 3], got {got:?}")]
    Channels {
        /// The image size asked for.
        got: [usize; 3],
    },
    /// Pooling leaves nothing of an image this small.
    #[error("{architecture} needs images of at least {expected}x{expected} pixels, got {height}x{width}")]
    TooSmall {
        /// The network.
        architecture: Architecture,
        /// Smallest height and width.
        expected: usize,
        /// Height asked for.
        height: usize,
        /// Width asked for.
        width: usize,
    },
    /// The layers do not fit each other.
    #[error(transparent)]
    Engine(#[from] ConvError),
}

impl Hint for NetworkError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Weights(error) => error.hint(),
            Self::Channels { .. } | Self::TooSmall { .. } => {
                Some("change `IMAGE_SIZE` in params.yaml".to_owned())
            }
            Self::Engine(_) => None,
        }
    }
}

impl Architecture {
    /// Builds the feature extractor, batch norm folded into the convolutions.
    ///
    /// # Shapes
    /// `[batch, height, width, 3]` to `[batch, feature_height, feature_width, channels]`.
    ///
    /// # Errors
    /// See [`NetworkError`].
    pub fn build_features(
        self,
        weights: &dyn Arrays,
        image_size: [usize; 3],
    ) -> Result<Features, NetworkError> {
        self.build_features_with(weights, image_size, Options::default())
    }

    /// Builds the first `count` layers of the feature extractor, as [`Self::build_features`] does
    /// all of them.
    ///
    /// # Errors
    /// See [`NetworkError`].
    pub fn build_first_layers(
        self,
        weights: &dyn Arrays,
        image_size: [usize; 3],
        count: usize,
    ) -> Result<Network, NetworkError> {
        let mut builder = self.builder(image_size, Options::default())?;
        for layer in self.layers().iter().take(count) {
            push(&mut builder, layer, weights)?;
        }
        Ok(builder.finish())
    }

    /// As [`Self::build_features`], for one instruction set or way to convolve.
    ///
    /// # Errors
    /// See [`NetworkError`].
    pub fn build_features_with(
        self,
        weights: &dyn Arrays,
        image_size: [usize; 3],
        options: Options,
    ) -> Result<Features, NetworkError> {
        let chain = |mut builder: NetworkBuilder, layers: &[FeatureLayer]| {
            layers.iter().try_for_each(|layer| push(&mut builder, layer, weights))?;
            Ok::<_, NetworkError>(Chain::F32(builder.finish()))
        };
        let builder = self.builder(image_size, options)?;
        let Some(tap) = self.tap() else { return Ok(Features::of_last_map(chain(builder, self.layers())?)) };
        let (first, rest) = self.layers().split_at(tap.layers);
        let above = NetworkBuilder::new(self.shape_after(image_size, tap.layers), options)?;
        Ok(Features::joined(chain(builder, first)?, chain(above, rest)?, tap.side))
    }

    fn builder(self, image_size: [usize; 3], options: Options) -> Result<NetworkBuilder, NetworkError> {
        check_image_size(self, image_size)?;
        let [height, width, channels] = image_size;
        Ok(NetworkBuilder::new(Shape { height, width, channels }, options)?)
    }

    /// Builds the head of a network that judges places.
    ///
    /// # Errors
    /// See [`NetworkError`].
    pub fn build_place_head(
        self,
        weights: &dyn Arrays,
        labels: usize,
        image_size: [usize; 3],
    ) -> Result<PlaceHead, NetworkError> {
        check_image_size(self, image_size)?;
        PlaceHead::new(self.feature_shape(image_size), labels, weights)
    }

    /// Builds the head of a network that judges its map as a whole, from features to logits.
    ///
    /// # Shapes
    /// `[batch, feature_height, feature_width, channels]` to `[batch, labels]`.
    ///
    /// # Errors
    /// See [`NetworkError`].
    pub fn build_head(
        self,
        weights: &dyn Arrays,
        labels: usize,
        hidden_units: usize,
        image_size: [usize; 3],
    ) -> Result<Network, NetworkError> {
        check_image_size(self, image_size)?;
        let features = self.feature_shape(image_size);
        let (hidden, last);
        let mut layers = Vec::with_capacity(2);
        let mut inputs = features;
        if hidden_units > 0 {
            hidden = dense(weights, "head.hidden", features, hidden_units)?;
            layers.push(Layer::Dense { kernel: &hidden.0, bias: &hidden.1, relu: true });
            inputs = Shape { height: 1, width: 1, channels: hidden_units };
        }
        last = dense(weights, "head", inputs, labels)?;
        layers.push(Layer::Dense { kernel: &last.0, bias: &last.1, relu: false });
        Ok(Network::new(features, &layers)?)
    }
}

/// Folds and packs one layer, some filters at a time: those of VGG16 would take 59 MB if all were held
/// at once.
fn push(
    builder: &mut NetworkBuilder,
    layer: &FeatureLayer,
    weights: &dyn Arrays,
) -> Result<(), NetworkError> {
    match *layer {
        FeatureLayer::Conv { key, batch_norm, inputs, outputs, .. } => {
            let folded = Folded::new(weights, key, batch_norm, [outputs, inputs, 3, 3])?;
            builder.push_filters(&folded.bias, true, |outputs| {
                folded.filters(outputs).map_err(NetworkError::from)
            })?;
        }
        FeatureLayer::MaxPool { .. } => builder.push(&Layer::MaxPool2x2)?,
        FeatureLayer::GlobalAveragePool => builder.push(&Layer::GlobalAveragePool)?,
    }
    Ok(())
}

pub(super) fn check_image_size(
    architecture: Architecture,
    image_size: [usize; 3],
) -> Result<(), NetworkError> {
    let [height, width, channels] = image_size;
    if channels != 3 {
        return Err(NetworkError::Channels { got: image_size });
    }
    let expected = architecture.least_side();
    let fits = height >= expected && width >= expected;
    if fits { Ok(()) } else { Err(NetworkError::TooSmall { architecture, expected, height, width }) }
}

/// A convolution with its batch norm folded in: `scale * (w * x + b - mean) + shift`, where `scale` is
/// the norm's weight over the standard deviation, is a convolution with kernel `scale * w` and bias
/// `scale * (b - mean) + shift`.
struct Folded<'a> {
    weights: &'a dyn Arrays,
    /// Of the kernel.
    key: String,
    /// `[outputs, inputs, 3, 3]`
    shape: [usize; 4],
    /// Of each output, where there is a batch norm.
    scale: Option<Vec<f64>>,
    bias: Vec<f32>,
}

impl<'a> Folded<'a> {
    fn new(
        weights: &'a dyn Arrays,
        key: &str,
        batch_norm: Option<&str>,
        shape: [usize; 4],
    ) -> Result<Self, WeightsError> {
        let bias = weights.array(&format!("{key}.bias"), &shape[..1])?;
        let (scale, bias) = match batch_norm {
            Some(norm) => fold(weights, norm, &bias).map(|(scale, bias)| (Some(scale), bias))?,
            None => (None, bias.into_owned()),
        };
        Ok(Self { weights, key: format!("{key}.weight"), shape, scale, bias })
    }

    /// The kernel of some outputs, `[filters, inputs, 3, 3]`.
    fn filters(&self, outputs: Range<usize>) -> Result<Vec<f32>, WeightsError> {
        let mut filters = self.weights.rows(&self.key, &self.shape, outputs.clone())?.into_owned();
        if let Some(scale) = &self.scale {
            for (filter, scale) in filters.chunks_exact_mut(self.shape[1] * 9).zip(&scale[outputs]) {
                for value in filter {
                    *value = (scale * f64::from(*value)) as f32;
                }
            }
        }
        Ok(filters)
    }
}

/// Kernel `[3, 3, inputs, outputs]` and bias of a convolution, with its batch norm folded in.
pub(super) fn convolution(
    weights: &dyn Arrays,
    key: &str,
    batch_norm: Option<&str>,
    inputs: usize,
    outputs: usize,
) -> Result<(Vec<f32>, Vec<f32>), WeightsError> {
    let folded = Folded::new(weights, key, batch_norm, [outputs, inputs, 3, 3])?;
    let mut kernel = vec![0.0; outputs * inputs * 9];
    for first in (0..outputs).step_by(FILTERS) {
        let block = first..outputs.min(first + FILTERS);
        let filters = folded.filters(block.clone())?;
        kernel.par_chunks_exact_mut(outputs).enumerate().with_min_len(ROWS).for_each(|(row, values)| {
            let at = row % inputs * 9 + row / inputs;
            let filters = filters.chunks_exact(inputs * 9);
            for (value, filter) in values[block.clone()].iter_mut().zip(filters) {
                *value = filter[at];
            }
        });
    }
    Ok((kernel, folded.bias))
}

/// Filters that are in memory at a time, beside the kernel: the largest of VGG16 take 590 kB, which
/// stays in the cache while its values are picked out.
const FILTERS: usize = 32;
/// Rows of a kernel that make a task worth its while.
const ROWS: usize = 256;

/// Scale and bias of each output channel.
fn fold(weights: &dyn Arrays, norm: &str, bias: &[f32]) -> Result<(Vec<f64>, Vec<f32>), WeightsError> {
    let get = |array: &str| weights.array(&format!("{norm}.{array}"), &[bias.len()]);
    let (weight, shift) = (get("weight")?, get("bias")?);
    let (mean, variance) = (get("running_mean")?, get("running_var")?);
    if let Some((position, &value)) = variance.iter().enumerate().find(|(_, value)| **value < 0.0) {
        return Err(WeightsError::NegativeVariance { key: format!("{norm}.running_var"), position, value });
    }
    let deviation = variance.iter().map(|&variance| f64::from(variance + BATCH_NORM_EPSILON).sqrt());
    let scale: Vec<f64> = weight.iter().zip(deviation).map(|(&w, d)| f64::from(w) / d).collect();
    let centered = bias.iter().zip(mean.iter()).map(|(b, mean)| f64::from(*b) - f64::from(*mean));
    let folded = centered.zip(&scale).zip(shift.iter());
    let bias =
        folded.map(|((centered, scale), shift)| (scale * centered + f64::from(*shift)) as f32).collect();
    Ok((scale, bias))
}

/// Kernel `[inputs, outputs]` and bias of a dense layer over a flattened `input` map: its rows go
/// from `(channel, y, x)` to `(y, x, channel)` order.
pub(crate) fn dense(
    weights: &dyn Arrays,
    key: &str,
    input: Shape,
    outputs: usize,
) -> Result<(Vec<f32>, Vec<f32>), WeightsError> {
    let weight = weights.array(&format!("{key}.weight"), &[outputs, input.len()])?;
    let bias = weights.array(&format!("{key}.bias"), &[outputs])?;
    let pixels = input.height * input.width;
    let mut kernel = vec![0.0; weight.len()];
    for (o, row) in weight.chunks_exact(input.len()).enumerate() {
        for (channel, plane) in row.chunks_exact(pixels).enumerate() {
            for (pixel, value) in plane.iter().enumerate() {
                kernel[(pixel * input.channels + channel) * outputs + o] = *value;
            }
        }
    }
    Ok((kernel, bias.into_owned()))
}
