//! The trainable form of a network, in Burn: built from the same layer list as the inference
//! engine, on whatever device is given.

use burn::{
    module::{Module, Param, RunningState},
    nn::{
        BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d,
        conv::{Conv2d, Conv2dConfig},
    },
    tensor::{
        Device, Tensor, TensorData,
        activation::relu,
        module::{avg_pool2d, max_pool2d},
        ops::{AvgPoolOptions, MaxPoolOptions},
    },
};
use nephros_core::{
    network::{Architecture, BATCH_NORM_EPSILON, EVIDENCE, FeatureLayer, LEAST_SQUARE, WINDOW},
    weights::{self, Weights, WeightsError},
};

use super::logistic::Dense;

/// One convolution with its batch norm, where it has one.
#[derive(Module, Debug)]
pub struct ConvBlock {
    pub(super) conv: Conv2d,
    pub(super) norm: Option<BatchNorm>,
}

/// Feature extractor and head; without blocks it is a head alone.
#[derive(Module, Debug)]
pub struct Classifier {
    pub(super) blocks: Vec<ConvBlock>,
    /// Weighs the evidence of each place, in a network that judges places.
    places: Option<Linear>,
    hidden: Option<Linear>,
    output: Linear,
}

/// What a [`Classifier`] says of images.
#[derive(Debug, Clone)]
pub struct Said {
    /// `[batch, classes]`
    pub logits: Tensor<2>,
    /// Evidence of every class but the first at each place, `[batch, classes - 1, height, width]`, of a network
    /// that judges places.
    pub evidence: Option<Tensor<4>>,
}

/// What a [`Classifier`] is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The network.
    pub architecture: Architecture,
    /// Height, width and channels of its input.
    pub image_size: [usize; 3],
    /// Width of the hidden layer, 0 for none.
    pub hidden_units: usize,
    /// Classes.
    pub classes: usize,
}

/// Which part is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trained {
    /// The head, on cached features in `(y, x, channel)` order.
    Head,
    /// Everything, or the last layers, on images.
    Layers {
        /// Number of last layers of the feature extractor that learn; pooling layers count, as
        /// in the reference's `model.layers[:-freeze_till]`.
        last: usize,
    },
}

impl Classifier {
    /// Puts weights on a device.
    ///
    /// # Errors
    /// [`WeightsError`] when an array is missing or has another shape.
    pub fn new(
        layout: Layout,
        trained: Trained,
        weights: &Weights,
        device: &Device,
    ) -> Result<Self, WeightsError> {
        let inputs = layout.architecture.feature_len(layout.image_size);
        let order = order(layout, trained);
        let mut blocks = Vec::new();
        if let Trained::Layers { last } = trained {
            let layers = layout.architecture.layers();
            for (position, layer) in layers.iter().enumerate() {
                if let Some(block) = ConvBlock::new(layer, weights, device)? {
                    let frozen = position + last < layers.len();
                    blocks.push(if frozen { block.freeze() } else { block });
                }
            }
        }
        let dense = |key: &str, inputs, outputs, order: Option<&[usize]>| {
            linear(weights, key, [outputs, inputs], order, device)
        };
        if layout.architecture.judges_places() {
            let channels = layout.architecture.feature_shape(layout.image_size).channels;
            let kinds = layout.classes - 1;
            let places = Some(dense(EVIDENCE, channels, kinds, None)?);
            return Ok(Self {
                blocks,
                places,
                hidden: None,
                output: dense("head", kinds, layout.classes, None)?,
            });
        }
        let (hidden, output) = match layout.hidden_units {
            0 => (None, dense("head", inputs, layout.classes, order.as_deref())?),
            units => (
                Some(dense("head.hidden", inputs, units, order.as_deref())?),
                dense("head", units, layout.classes, None)?,
            ),
        };
        Ok(Self { blocks, places: None, hidden, output })
    }

    /// What is said of images `[batch, height, width, channels]`.
    pub fn forward(&self, architecture: Architecture, input: Tensor<4>) -> Said {
        let mut x = input.permute([0, 3, 1, 2]); // [batch, channels, height, width]
        let mut blocks = self.blocks.iter();
        let mut early = None;
        for (position, layer) in architecture.layers().iter().enumerate() {
            if architecture.tap().is_some_and(|tap| tap.layers == position) {
                early = Some(x.clone());
            }
            x = match layer {
                FeatureLayer::Conv { .. } => match blocks.next() {
                    Some(block) => block.forward(x),
                    None => x,
                },
                FeatureLayer::MaxPool { .. } => max_pool2d(x, MaxPoolOptions::new([2, 2])),
                FeatureLayer::GlobalAveragePool => x.mean_dim(2).mean_dim(3),
            };
        }
        if let (Some(early), Some(tap)) = (early, architecture.tap()) {
            let mean = avg_pool2d(early, AvgPoolOptions::new([tap.side; 2]));
            x = Tensor::cat(vec![to_unit_length(mean), to_unit_length(x)], 1);
        }
        self.judge(x)
    }

    /// What is said of maps `[batch, channels, height, width]`.
    pub fn judge(&self, map: Tensor<4>) -> Said {
        let Some(places) = &self.places else {
            return Said { logits: self.forward_head(map.flatten(1, 3)), evidence: None };
        };
        let evidence = places.forward(map.permute([0, 2, 3, 1])).permute([0, 3, 1, 2]);
        let windows = avg_pool2d(evidence.clone(), AvgPoolOptions::new([WINDOW; 2]).with_stride([1, 1]));
        let largest = windows.flatten::<3>(2, 3).max_dim(2).flatten(1, 2); // [batch, classes - 1]
        Said { logits: self.output.forward(largest), evidence: Some(evidence) }
    }

    /// Features `[batch, features]` to logits `[batch, classes]`.
    pub fn forward_head(&self, features: Tensor<2>) -> Tensor<2> {
        let features = match &self.hidden {
            Some(hidden) => relu(hidden.forward(features)),
            None => features,
        };
        self.output.forward(features)
    }

    /// Whether a batch norm learns, and so has running statistics that move.
    pub(super) fn has_running_statistics(&self) -> bool {
        let learns = |block: &ConvBlock| block.norm.as_ref().is_some_and(|norm| norm.training.is_enabled());
        self.blocks.iter().any(learns)
    }

    /// How far a batch moves the running statistics, from 0 (not at all) to 1 (to its own).
    pub(super) fn set_momentum(&mut self, momentum: f64) {
        for norm in self.blocks.iter_mut().filter_map(|block| block.norm.as_mut()) {
            norm.momentum = momentum;
        }
    }

    /// The weights as they are now; where only the head is trained, the rest is that of `base`.
    pub fn to_weights(&self, layout: Layout, trained: Trained, base: Weights) -> Weights {
        let mut weights = base;
        let order = order(layout, trained);
        let mut blocks = self.blocks.iter();
        for layer in layout.architecture.layers() {
            let FeatureLayer::Conv { key, batch_norm, .. } = layer else { continue };
            let Some(block) = blocks.next() else { break };
            block.export(key, *batch_norm, &mut weights);
        }
        if let Some(places) = &self.places {
            export_linear(places, EVIDENCE, None, &mut weights);
            export_linear(&self.output, "head", None, &mut weights);
        } else if let Some(hidden) = &self.hidden {
            export_linear(hidden, "head.hidden", order.as_deref(), &mut weights);
            export_linear(&self.output, "head", None, &mut weights);
        } else {
            export_linear(&self.output, "head", order.as_deref(), &mut weights);
        }
        weights
    }
}

/// The channels of each place, `[batch, channels, height, width]`, brought to unit length.
fn to_unit_length(map: Tensor<4>) -> Tensor<4> {
    let square = map.clone().powi_scalar(2).sum_dim(1);
    map / square.clamp_min(LEAST_SQUARE).sqrt()
}

impl ConvBlock {
    fn new(layer: &FeatureLayer, weights: &Weights, device: &Device) -> Result<Option<Self>, WeightsError> {
        let FeatureLayer::Conv { key, batch_norm, inputs, outputs, .. } = *layer else { return Ok(None) };
        let parameter = |name: &str, shape: &[usize]| weights.get(&format!("{key}.{name}"), shape);
        let mut conv = Conv2dConfig::new([inputs, outputs], [3, 3])
            .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
            .init(device);
        conv.weight = Param::from_data(data(parameter("weight", &[outputs, inputs, 3, 3])?), device);
        conv.bias = Some(Param::from_data(data(parameter("bias", &[outputs])?), device));
        let norm = batch_norm.map(|key| load_norm(key, outputs, weights, device)).transpose()?;
        Ok(Some(Self { conv, norm }))
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = self.conv.forward(x);
        relu(match &self.norm {
            Some(norm) => norm.forward(y),
            None => y,
        })
    }

    fn export(&self, key: &str, batch_norm: Option<&str>, weights: &mut Weights) {
        insert(weights, key, "weight", self.conv.weight.val());
        if let Some(bias) = &self.conv.bias {
            insert(weights, key, "bias", bias.val());
        }
        if let (Some(norm), Some(key)) = (&self.norm, batch_norm) {
            insert(weights, key, "weight", norm.gamma.val());
            insert(weights, key, "bias", norm.beta.val());
            insert(weights, key, "running_mean", norm.running_mean.value_sync());
            insert(weights, key, "running_var", norm.running_var.value_sync());
        }
    }
}

fn load_norm(
    key: &str,
    channels: usize,
    weights: &Weights,
    device: &Device,
) -> Result<BatchNorm, WeightsError> {
    let get = |name: &str| weights.get(&format!("{key}.{name}"), &[channels]).map(data);
    let mut norm = BatchNormConfig::new(channels).with_epsilon(BATCH_NORM_EPSILON.into()).init(device);
    norm.gamma = Param::from_data(get("weight")?, device);
    norm.beta = Param::from_data(get("bias")?, device);
    norm.running_mean = RunningState::new(Tensor::from_data(get("running_mean")?, device));
    norm.running_var = RunningState::new(Tensor::from_data(get("running_var")?, device));
    Ok(norm)
}

fn data(tensor: &weights::Tensor) -> TensorData {
    TensorData::new(tensor.values.clone(), tensor.shape.clone())
}

fn insert<const D: usize>(weights: &mut Weights, key: &str, name: &str, tensor: Tensor<D>) {
    let shape = tensor.dims().to_vec();
    let values = tensor.into_data().iter::<f32>().collect();
    weights.0.insert(format!("{key}.{name}"), weights::Tensor { shape, values });
}

/// For each position of a `(y, x, channel)` feature vector its position in `(channel, y, x)` order;
/// `None` where features come in the order of the weights.
fn order(layout: Layout, trained: Trained) -> Option<Vec<usize>> {
    let shape = layout.architecture.feature_shape(layout.image_size);
    let pixels = shape.height * shape.width;
    let position = |index: usize| (index % shape.channels) * pixels + index / shape.channels;
    (trained == Trained::Head && pixels > 1).then(|| (0..shape.len()).map(position).collect())
}

/// A dense layer from `[outputs, inputs]` weights; Burn keeps `[inputs, outputs]`.
fn linear(
    weights: &Weights,
    key: &str,
    [outputs, inputs]: [usize; 2],
    order: Option<&[usize]>,
    device: &Device,
) -> Result<Linear, WeightsError> {
    let weight = weights.get(&format!("{key}.weight"), &[outputs, inputs])?;
    let mut values = Vec::with_capacity(weight.values.len());
    for input in 0..inputs {
        let source = order.map_or(input, |order| order[input]);
        values.extend((0..outputs).map(|output| weight.values[output * inputs + source]));
    }
    let mut linear = LinearConfig::new(inputs, outputs).init(device);
    linear.weight = Param::from_data(TensorData::new(values, [inputs, outputs]), device);
    linear.bias = Some(Param::from_data(data(weights.get(&format!("{key}.bias"), &[outputs])?), device));
    Ok(linear)
}

/// Puts a dense layer on features in `(y, x, channel)` order into the weights.
pub(super) fn export_head(layout: Layout, key: &str, dense: Dense, to: &mut Weights) {
    let Dense { mut weights, bias } = dense;
    if let Some(order) = order(layout, Trained::Head) {
        let rows = weights.clone();
        let inputs = order.len();
        for (row, ordered) in rows.chunks_exact(inputs).zip(weights.chunks_exact_mut(inputs)) {
            row.iter().zip(&order).for_each(|(&value, &target)| ordered[target] = value);
        }
    }
    export_dense(key, Dense { weights, bias }, to);
}

/// Puts a dense layer into the weights: `[outputs, inputs]` and `[outputs]`.
pub(super) fn export_dense(key: &str, dense: Dense, to: &mut Weights) {
    let Dense { weights: values, bias } = dense;
    let outputs = bias.len();
    let shape = vec![outputs, values.len() / outputs];
    to.0.insert(format!("{key}.weight"), weights::Tensor { shape, values });
    to.0.insert(format!("{key}.bias"), weights::Tensor { shape: vec![outputs], values: bias });
}

fn export_linear(linear: &Linear, key: &str, order: Option<&[usize]>, weights: &mut Weights) {
    let [inputs, outputs] = linear.weight.val().dims();
    let values: Vec<f32> = linear.weight.val().into_data().iter::<f32>().collect();
    let mut transposed = vec![0.0; values.len()];
    for (input, row) in values.chunks_exact(outputs).enumerate() {
        let target = order.map_or(input, |order| order[input]);
        for (output, &value) in row.iter().enumerate() {
            transposed[output * inputs + target] = value;
        }
    }
    let shape = vec![outputs, inputs];
    weights.0.insert(format!("{key}.weight"), weights::Tensor { shape, values: transposed });
    if let Some(bias) = &linear.bias {
        insert(weights, key, "bias", bias.val());
    }
}
