//! Gradients of a step on the CPU: convolutions by nephros-conv's kernels, the head by Burn.
//!
//! Burn's module stays the holder of all parameters, and its optimizer takes the gradients as if
//! they were its own. `docs/adr/0009-training-kernels.md` says why.

use burn::{
    module::Param,
    nn::BatchNorm,
    optim::GradientsParams,
    tensor::{Device, Tensor, TensorData},
};
use nephros_conv::{
    Network, Shape,
    training::{
        BatchStatistics, BlockGradients, BlockParameters, NormParameters, TrainableLayer, TrainableNetwork,
    },
};
use nephros_core::{network::FeatureLayer, weights::Weights};

use super::{
    TrainError,
    network::{Classifier, ConvBlock, Layout, Said},
};

/// Forward and backward pass of a [`Classifier`] on the CPU.
#[derive(Debug)]
pub struct CpuGradients {
    /// The layers below the first convolution that learns, batch norm folded in.
    frozen: Option<Network>,
    /// The rest; `None` where no convolution learns.
    trained: Option<TrainableNetwork>,
    /// Convolutions in the frozen part.
    frozen_blocks: usize,
}

impl CpuGradients {
    /// For a network whose `last` layers learn. The frozen ones take their weights here, once.
    ///
    /// # Errors
    /// [`TrainError::Network`] and [`TrainError::Engine`].
    pub fn new(layout: Layout, last: usize, weights: &Weights) -> Result<Self, TrainError> {
        let layers = layout.architecture.layers();
        let is_convolution = |layer: &FeatureLayer| matches!(layer, FeatureLayer::Conv { .. });
        let first = layers.len().saturating_sub(last);
        let first = layers[first..].iter().position(is_convolution).map_or(layers.len(), |at| first + at);
        let frozen = match first {
            0 => None,
            count => Some(layout.architecture.build_first_layers(weights, layout.image_size, count)?),
        };
        let [height, width, channels] = layout.image_size;
        let input = frozen.as_ref().map_or(Shape { height, width, channels }, Network::output);
        let described: Vec<TrainableLayer> = layers[first..].iter().map(describe).collect();
        let trained =
            if described.is_empty() { None } else { Some(TrainableNetwork::new(input, &described)?) };
        let frozen_blocks = layers[..first].iter().filter(|layer| is_convolution(layer)).count();
        Ok(Self { frozen, trained, frozen_blocks })
    }

    /// The loss of a batch `[batch, height, width, channels]` and the gradients of all parameters
    /// that learn. `loss` makes it from what the model says. Running statistics of batch
    /// norms that learn move as in a forward pass of Burn. `device` differentiates.
    ///
    /// # Errors
    /// [`TrainError::Engine`] for an input of another size, or one that is not finite.
    pub fn gradients(
        &mut self,
        model: &Classifier,
        input: &[f32],
        batch: usize,
        device: &Device,
        loss: impl FnOnce(Said) -> Tensor<1>,
    ) -> Result<(Tensor<1>, GradientsParams), TrainError> {
        let blocks = model.blocks.get(self.frozen_blocks..).unwrap_or_default();
        let (features, shape) = self.forward(blocks, input, batch)?;
        let dimensions = [batch, shape.height, shape.width, shape.channels];
        let features = Tensor::<4>::from_data(TensorData::new(features, dimensions), device).require_grad();
        // The head's weights are in the order `(channel, y, x)`.
        let loss = loss(model.judge(features.clone().permute([0, 3, 1, 2])));
        let mut gradients = loss.backward();
        let d_features = features.grad_remove(&mut gradients);
        let mut parameters = GradientsParams::from_grads(gradients, model);
        if let (Some(trained), Some(d_features)) = (&mut self.trained, d_features) {
            let d_features: Vec<f32> = d_features.into_data().iter::<f32>().collect();
            let inner = device.clone().inner();
            for (block, gradients) in blocks.iter().zip(trained.backward(&d_features)?) {
                register(block, gradients, &inner, &mut parameters);
            }
        }
        Ok((loss, parameters))
    }

    /// Moves the running statistics of batch norms that learn, as [`Self::gradients`] does.
    ///
    /// # Errors
    /// As [`Self::gradients`].
    pub fn observe(&mut self, model: &Classifier, input: &[f32], batch: usize) -> Result<(), TrainError> {
        let blocks = model.blocks.get(self.frozen_blocks..).unwrap_or_default();
        self.forward(blocks, input, batch).map(drop)
    }

    /// Features `[batch, height, width, channels]`, their shape without the batch.
    fn forward(
        &mut self,
        blocks: &[ConvBlock],
        input: &[f32],
        batch: usize,
    ) -> Result<(Vec<f32>, Shape), TrainError> {
        let mut maps = Vec::new();
        let mut shape = None;
        if let Some(frozen) = &self.frozen {
            maps.resize(batch * frozen.output().len(), 0.0);
            frozen.forward(input, batch, &mut maps)?;
            shape = Some(frozen.output());
        }
        let input = if shape.is_some() { &maps } else { input };
        let Some(trained) = &mut self.trained else {
            return Ok((input.to_vec(), shape.unwrap_or(Shape { height: 1, width: 1, channels: 0 })));
        };
        let parameters: Vec<HeldParameters> = blocks.iter().map(HeldParameters::new).collect();
        let parameters: Vec<BlockParameters<'_>> = parameters.iter().map(HeldParameters::borrow).collect();
        let features = trained.forward(&parameters, input, batch)?.to_vec();
        for (block, statistics) in blocks.iter().zip(trained.statistics()) {
            if let (Some(norm), Some(statistics)) = (&block.norm, statistics) {
                move_running_statistics(norm, statistics);
            }
        }
        Ok((features, trained.output()))
    }
}

fn describe(layer: &FeatureLayer) -> TrainableLayer {
    match *layer {
        FeatureLayer::Conv { outputs, batch_norm, .. } => {
            TrainableLayer::Conv3x3 { outputs, batch_norm: batch_norm.is_some() }
        }
        FeatureLayer::MaxPool { .. } => TrainableLayer::MaxPool2x2,
        FeatureLayer::GlobalAveragePool => TrainableLayer::GlobalAveragePool,
    }
}

/// The parameters of a block, out of Burn's tensors.
struct HeldParameters {
    kernel: TensorData,
    bias: Option<TensorData>,
    norm: Option<[TensorData; 2]>,
}

impl HeldParameters {
    fn new(block: &ConvBlock) -> Self {
        let norm = block.norm.as_ref();
        Self {
            kernel: block.conv.weight.val().into_data(),
            bias: block.conv.bias.as_ref().map(|bias| bias.val().into_data()),
            norm: norm.map(|norm| [norm.gamma.val().into_data(), norm.beta.val().into_data()]),
        }
    }

    /// An array of another type than f32 is left empty, which the kernels refuse.
    fn borrow(&self) -> BlockParameters<'_> {
        fn values(data: &TensorData) -> &[f32] {
            data.as_slice().unwrap_or_default()
        }
        BlockParameters {
            kernel: values(&self.kernel),
            bias: self.bias.as_ref().map_or(&[], values),
            norm: self
                .norm
                .as_ref()
                .map(|[weight, bias]| NormParameters { weight: values(weight), bias: values(bias) }),
        }
    }
}

/// The rule of [`BatchNorm`]'s own forward pass: the batch's mean and biased variance come in with
/// the weight `momentum`.
fn move_running_statistics(norm: &BatchNorm, statistics: BatchStatistics) {
    let BatchStatistics { mean, variance } = statistics;
    for (running, batch) in [(&norm.running_mean, mean), (&norm.running_var, variance)] {
        let old = running.value_sync();
        let data = TensorData::new(batch, old.dims());
        let batch = Tensor::<1>::from_data(data, &old.device()).mul_scalar(norm.momentum);
        running.update(old.mul_scalar(1.0 - norm.momentum).add(batch).detach());
    }
}

fn register(block: &ConvBlock, gradients: BlockGradients, device: &Device, parameters: &mut GradientsParams) {
    register_one(&block.conv.weight, gradients.kernel, device, parameters);
    if let Some(bias) = &block.conv.bias {
        register_one(bias, gradients.bias, device, parameters);
    }
    if let (Some(norm), Some(gradients)) = (&block.norm, gradients.norm) {
        register_one(&norm.gamma, gradients.weight, device, parameters);
        register_one(&norm.beta, gradients.bias, device, parameters);
    }
}

fn register_one<const D: usize>(
    parameter: &Param<Tensor<D>>,
    gradient: Vec<f32>,
    device: &Device,
    parameters: &mut GradientsParams,
) {
    let data = TensorData::new(gradient, parameter.val().dims());
    parameters.register(parameter.id, Tensor::<D>::from_data(data, device));
}

#[cfg(test)]
mod tests;
