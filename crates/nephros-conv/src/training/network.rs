//! The forward and the backward pass.

use std::fmt;

use pulp::Arch;
use rayon::prelude::*;

use super::{
    activation::{Activate, Activation, Differentiate, Reduce},
    convolve::{Convolve, KernelGradient, panel_columns},
    features::{gather, scatter},
    pack::{pack_backward, pack_forward, unpack},
    plan::{Block, Plan, TrainableLayer},
    statistics::{BatchStatistics, Moments, Norm, NormBackward},
};
use crate::{ConvError, Shape};

/// Groups of images whose kernel gradients are summed apart. It bounds the threads that a backward
/// pass can use and the memory of the partial sums, and is part of the result: another number
/// rounds differently.
const GROUPS: usize = 8;

/// Parameters of a convolution and its batch norm, as checkpoints hold them.
#[derive(Debug, Clone, Copy)]
pub struct BlockParameters<'a> {
    /// `[out_channels, in_channels, 3, 3]`.
    pub kernel: &'a [f32],
    /// `[out_channels]`.
    pub bias: &'a [f32],
    /// For a layer with batch norm.
    pub norm: Option<NormParameters<'a>>,
}

/// Parameters of a batch norm.
#[derive(Debug, Clone, Copy)]
pub struct NormParameters<'a> {
    /// `[channels]`, the scale.
    pub weight: &'a [f32],
    /// `[channels]`, the shift.
    pub bias: &'a [f32],
}

/// Gradients of [`BlockParameters`], in the same layout.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockGradients {
    /// `[out_channels, in_channels, 3, 3]`.
    pub kernel: Vec<f32>,
    /// `[out_channels]`. Zero before a batch norm, which takes any constant off again.
    pub bias: Vec<f32>,
    /// For a layer with batch norm.
    pub norm: Option<NormGradients>,
}

/// Gradients of [`NormParameters`].
#[derive(Debug, Clone, PartialEq)]
pub struct NormGradients {
    /// `[channels]`.
    pub weight: Vec<f32>,
    /// `[channels]`.
    pub bias: Vec<f32>,
}

/// A chain of layers that can be differentiated.
pub struct TrainableNetwork {
    input: Shape,
    plan: Plan,
    arch: Arch,
    /// Columns of a panel of a packed kernel.
    panel: usize,
    /// Images of the last forward pass, for the backward pass.
    batch: usize,
    states: Vec<State>,
    /// The last map, `[batch, height, width, held_channels]`.
    last: Vec<f32>,
    features: Vec<f32>,
    scratch: Scratch,
}

/// What a block keeps of a forward pass.
#[derive(Default)]
struct State {
    /// What the convolution reads: bordered maps, one after the other.
    source: Vec<f32>,
    /// What it wrote: dense maps.
    convolved: Vec<f32>,
    forward_kernel: Vec<f32>,
    backward_kernel: Vec<f32>,
    /// `[held_channels]`.
    bias: Vec<f32>,
    norm: Norm,
}

/// Memory of the backward pass.
#[derive(Default)]
struct Scratch {
    /// Gradient of the current block's result, and of that of the block below.
    gradient: Vec<f32>,
    below: Vec<f32>,
    /// For each group: gradient of a convolution's result, bordered; kernel gradient.
    convolved: Vec<f32>,
    kernels: Vec<f32>,
}

impl TrainableNetwork {
    /// # Errors
    /// [`ConvError::Incompatible`] when the layers do not fit each other.
    pub fn new(input: Shape, layers: &[TrainableLayer]) -> Result<Self, ConvError> {
        let plan = Plan::new(input, layers)?;
        let states = plan.blocks.iter().map(State::new).collect();
        Ok(Self {
            input,
            plan,
            arch: Arch::new(),
            panel: panel_columns(),
            batch: 0,
            states,
            last: Vec::new(),
            features: Vec::new(),
            scratch: Scratch::default(),
        })
    }

    /// Shape of one input image.
    pub fn input(&self) -> Shape {
        self.input
    }

    /// Shape of the features of one image.
    pub fn output(&self) -> Shape {
        self.plan.output
    }

    /// Features `[batch, output]` of images `[batch, height, width, channels]`, on the threads of
    /// the current rayon pool. What the backward pass needs is kept.
    ///
    /// # Errors
    /// [`ConvError::BufferLength`] and [`ConvError::WeightLength`].
    pub fn forward(
        &mut self,
        parameters: &[BlockParameters<'_>],
        input: &[f32],
        batch: usize,
    ) -> Result<&[f32], ConvError> {
        check_length("input", batch, self.input.len(), input.len())?;
        self.check_parameters(parameters)?;
        self.batch = batch;
        for (index, parameters) in parameters.iter().enumerate() {
            let block = &self.plan.blocks[index];
            self.states[index].prepare(block, parameters, (self.panel, index > 0), batch);
            let sums = self.forward_block(index, input);
            if let Some(norm) = parameters.norm {
                let count = self.count(index);
                self.states[index].norm.set((norm.weight, norm.bias), &sums, count);
            }
        }
        self.forward_features();
        Ok(&self.features)
    }

    /// Mean and variance of the last batch before each batch norm, `None` for a block without.
    pub fn statistics(&self) -> Vec<Option<BatchStatistics>> {
        self.states.iter().map(|state| state.norm.statistics()).collect()
    }

    /// Gradients of all parameters, given that of the features, `[batch, output]`, of the last
    /// forward pass.
    ///
    /// # Errors
    /// [`ConvError::BufferLength`].
    pub fn backward(&mut self, features: &[f32]) -> Result<Vec<BlockGradients>, ConvError> {
        check_length("gradient of the features", self.batch, self.output().len(), features.len())?;
        let mut sums = self.backward_features(features);
        let mut gradients = Vec::with_capacity(self.states.len());
        for index in (0..self.states.len()).rev() {
            let norm = self.states[index].norm.backward(&sums, self.count(index));
            sums = self.backward_block(index, &norm);
            let block = &self.plan.blocks[index];
            let kernels = &mut self.scratch.kernels[..self.batch.min(GROUPS) * block.kernel_len()];
            gradients.push(block_gradients(block, unpack(kernels, block.channels), norm));
            std::mem::swap(&mut self.scratch.gradient, &mut self.scratch.below);
        }
        gradients.reverse();
        Ok(gradients)
    }

    fn check_parameters(&self, parameters: &[BlockParameters<'_>]) -> Result<(), ConvError> {
        check("parameter blocks", self.plan.blocks.len(), self.plan.blocks.len(), parameters.len())?;
        for (layer, (block, parameters)) in self.plan.blocks.iter().zip(parameters).enumerate() {
            let outputs = block.channels.outputs;
            check("kernel", layer, 9 * block.channels.inputs * outputs, parameters.kernel.len())?;
            check("bias", layer, outputs, parameters.bias.len())?;
            let expected = if block.batch_norm { outputs } else { 0 };
            let [weight, bias] = parameters.norm.map_or([0; 2], |norm| [norm.weight.len(), norm.bias.len()]);
            check("norm's weight", layer, expected, weight)?;
            check("norm's bias", layer, expected, bias)?;
        }
        Ok(())
    }

    /// Values of a channel that a batch norm sees.
    fn count(&self, index: usize) -> f64 {
        let output = self.plan.blocks[index].output;
        (self.batch * output.height * output.width) as f64
    }

    /// Activation of the block below (or the input), convolution, and for a batch norm the sums of
    /// each image, `[batch, 2, held_channels]`.
    fn forward_block(&mut self, index: usize, input: &[f32]) -> Vec<f64> {
        let block = self.plan.blocks[index];
        let (below, states) = self.states.split_at_mut(index);
        let below = below.last().zip(self.plan.blocks[..index].last());
        let state = &mut states[0];
        let mut sums = vec![0.0; self.batch * 2 * block.output.channels];
        let images = state.source.par_chunks_exact_mut(block.input.bordered_len());
        let images = images.zip(state.convolved.par_chunks_exact_mut(block.output.len()));
        let images = images.zip(sums.par_chunks_exact_mut(2 * block.output.channels));
        let convolution =
            Convolution { arch: self.arch, block, kernel: &state.forward_kernel, bias: &state.bias };
        images.enumerate().for_each(|(image, ((source, convolved), sums))| {
            match below {
                None => {
                    let len = block.input.len();
                    load(&block, &input[image * len..][..len], source);
                }
                Some((below, below_block)) => {
                    let target = &mut source[block.input.row_start(0)..];
                    below.activate(self.arch, below_block, image, target, block.input.stride());
                }
            }
            convolution.run(source, convolved, sums);
        });
        sums
    }

    fn forward_features(&mut self) {
        let (Some(state), Some(block)) = (self.states.last(), self.plan.blocks.last()) else { return };
        let (map, len) = (block.pooled(), self.plan.output.len());
        self.last.resize(self.batch * map.len(), 0.0);
        self.features.resize(self.batch * len, 0.0);
        let (arch, global) = (self.arch, self.plan.global);
        let images = self.last.par_chunks_exact_mut(map.len()).zip(self.features.par_chunks_exact_mut(len));
        images.enumerate().for_each(|(image, (last, features))| {
            state.activate(arch, block, image, last, map.row_len());
            gather(global, map, last, features);
        });
    }

    /// Gradient of the last map, and its sums for a batch norm, `[batch, 2, held_channels]`.
    fn backward_features(&mut self, features: &[f32]) -> Vec<f64> {
        let largest = self.plan.blocks.iter().map(|block| self.batch * block.pooled().len()).max();
        self.scratch.gradient.resize(largest.unwrap_or(0), 0.0);
        self.scratch.below.resize(largest.unwrap_or(0), 0.0);
        let (Some(state), Some(block)) = (self.states.last(), self.plan.blocks.last()) else {
            return Vec::new();
        };
        let (map, len) = (block.pooled(), self.plan.output.len());
        let mut sums = vec![0.0; self.batch * 2 * map.channels];
        let (arch, global) = (self.arch, self.plan.global);
        let images = self.scratch.gradient.par_chunks_exact_mut(map.len());
        let images = images.zip(sums.par_chunks_exact_mut(2 * map.channels));
        let images = images.zip(self.last.par_chunks_exact(map.len()).zip(features.par_chunks_exact(len)));
        images.enumerate().for_each(|(image, ((gradient, sums), (last, features)))| {
            scatter(global, map, last, features, gradient);
            state.reduce(arch, block, image, gradient, sums);
        });
        sums
    }

    /// Kernel gradients of the groups, gradient of the block below and its sums for a batch norm.
    fn backward_block(&mut self, index: usize, norm: &NormBackward) -> Vec<f64> {
        let block = self.plan.blocks[index];
        let (below, states) = self.states.split_at_mut(index);
        let below = below.last().zip(self.plan.blocks[..index].last());
        let pass = BackwardPass { arch: self.arch, block, state: &states[0], norm, below };
        let images = self.batch.div_ceil(self.batch.clamp(1, GROUPS));
        let (scratch_len, kernel_len) = (block.output.bordered_len(), block.kernel_len());
        let Scratch { gradient, below: gradient_below, convolved, kernels } = &mut self.scratch;
        convolved.resize((GROUPS * scratch_len).max(convolved.len()), 0.0);
        kernels.resize((GROUPS * kernel_len).max(kernels.len()), 0.0);
        kernels[..GROUPS * kernel_len].fill(0.0);
        let mut sums = vec![0.0; self.batch * 2 * block.input.channels];
        let below_len = if below.is_some() { block.input.len() } else { 0 };
        let mut gradients_below =
            gradient_below[..self.batch * below_len].chunks_mut((images * below_len).max(1));
        let mut groups = Vec::with_capacity(GROUPS);
        let parts = convolved.chunks_exact_mut(scratch_len).zip(kernels.chunks_exact_mut(kernel_len));
        let sums_of_groups = sums.chunks_mut(images * 2 * block.input.channels);
        for (group, ((scratch, kernel), sums)) in parts.zip(sums_of_groups).enumerate() {
            let below = gradients_below.next().unwrap_or_default();
            let images = group * images..self.batch.min((group + 1) * images);
            groups.push(Group { images, scratch, kernel, below, sums });
        }
        groups.into_par_iter().for_each(|group| pass.run(group, gradient));
        sums
    }
}

impl State {
    fn new(block: &Block) -> Self {
        let held = block.output.channels;
        let mut norm = Norm::default();
        norm.set_identity(block.channels.outputs, held);
        Self { bias: vec![0.0; held], norm, ..Self::default() }
    }

    /// Packs the parameters, for a block that `hands_on` a gradient both ways, and makes room for
    /// a batch.
    fn prepare(
        &mut self,
        block: &Block,
        parameters: &BlockParameters<'_>,
        (panel, hands_on): (usize, bool),
        batch: usize,
    ) {
        pack_forward(parameters.kernel, block.channels, panel, &mut self.forward_kernel);
        if hands_on {
            pack_backward(parameters.kernel, block.channels, panel, &mut self.backward_kernel);
        }
        self.bias[..parameters.bias.len()].copy_from_slice(parameters.bias);
        // Borders are zero from the start, and only the rows inside are ever written.
        self.source.resize(batch * block.input.bordered_len(), 0.0);
        self.convolved.resize(batch * block.output.len(), 0.0);
    }

    fn activation<'a>(&'a self, block: &Block) -> Activation<'a> {
        let Norm { scale, shift, .. } = &self.norm;
        Activation { map: block.output, pool: block.pool, scale, shift }
    }

    /// The convolution's result for one image.
    fn convolved(&self, block: &Block, image: usize) -> &[f32] {
        let len = block.output.len();
        &self.convolved[image * len..][..len]
    }

    fn activate(&self, arch: Arch, block: &Block, image: usize, target: &mut [f32], target_stride: usize) {
        let convolved = self.convolved(block, image);
        arch.dispatch(Activate { activation: self.activation(block), convolved, target, target_stride });
    }

    fn reduce(&self, arch: Arch, block: &Block, image: usize, gradient: &[f32], sums: &mut [f64]) {
        arch.dispatch(Reduce {
            activation: self.activation(block),
            mean: &self.norm.mean,
            convolved: self.convolved(block, image),
            gradient,
            sums,
        });
    }
}

/// The convolution of a block, image by image.
struct Convolution<'a> {
    arch: Arch,
    block: Block,
    kernel: &'a [f32],
    bias: &'a [f32],
}

impl Convolution<'_> {
    fn run(&self, source: &[f32], convolved: &mut [f32], sums: &mut [f64]) {
        let Block { input, output, batch_norm, .. } = self.block;
        let row_len = output.row_len();
        for (start, end) in output.blocks() {
            let rows = &mut convolved[start * row_len..end * row_len];
            self.arch.dispatch(Convolve {
                input,
                source: &source[start * input.stride()..],
                kernel: self.kernel,
                bias: self.bias,
                target: rows,
            });
            if batch_norm {
                self.arch.dispatch(Moments { values: rows, row_len, sums });
            }
        }
    }
}

/// The backward pass of a block.
struct BackwardPass<'a> {
    arch: Arch,
    block: Block,
    state: &'a State,
    norm: &'a NormBackward,
    below: Option<(&'a State, &'a Block)>,
}

/// Neighbouring images that share partial sums.
struct Group<'a> {
    images: std::ops::Range<usize>,
    /// Gradient of the convolution's result for one image, bordered.
    scratch: &'a mut [f32],
    /// Kernel gradient of the group, zeros at first.
    kernel: &'a mut [f32],
    /// Gradient of the block below, empty for the first block.
    below: &'a mut [f32],
    /// `[images, 2, channels]` of the block below.
    sums: &'a mut [f64],
}

impl BackwardPass<'_> {
    fn run(&self, group: Group<'_>, gradient: &[f32]) {
        let Group { images, scratch, kernel, below, sums } = group;
        let Block { input, .. } = self.block;
        scratch.fill(0.0);
        let gradient_len = self.block.pooled().len();
        for (position, image) in images.enumerate() {
            let gradient = &gradient[image * gradient_len..][..gradient_len];
            self.differentiate(image, gradient, scratch, kernel);
            if let Some((state, block)) = self.below {
                let below = &mut below[position * input.len()..][..input.len()];
                self.hand_on(scratch, below);
                let sums = &mut sums[position * 2 * input.channels..][..2 * input.channels];
                state.reduce(self.arch, block, image, below, sums);
            }
        }
    }

    /// Gradient of the convolution's result, block of rows by block of rows, and with each the
    /// kernel's. The first block, which hands nothing on, writes each over the one before.
    fn differentiate(&self, image: usize, gradient: &[f32], scratch: &mut [f32], kernel: &mut [f32]) {
        let Block { input, output, pool, .. } = self.block;
        let source = &self.state.source[image * input.bordered_len()..][..input.bordered_len()];
        let convolved = self.state.convolved(&self.block, image);
        let row_len = output.row_len();
        let gradient_len = self.block.pooled().row_len();
        for (start, end) in output.blocks() {
            let first = if self.below.is_some() { start } else { 0 };
            let target = &mut scratch[output.row_start(first)..][..(end - start) * output.stride()];
            let halved = |row: usize| if pool { row / 2 } else { row };
            self.arch.dispatch(Differentiate {
                activation: self.state.activation(&self.block),
                offset: &self.norm.offset,
                slope: &self.norm.slope,
                convolved: &convolved[start * row_len..end * row_len],
                gradient: &gradient[halved(start) * gradient_len..halved(end) * gradient_len],
                target,
            });
            self.arch.dispatch(KernelGradient {
                input,
                source: &source[start * input.stride()..],
                gradient: target,
                rows: end - start,
                outputs: output.channels,
                target: kernel,
            });
        }
    }

    /// The gradient of the convolution's input: a convolution too.
    fn hand_on(&self, scratch: &[f32], below: &mut [f32]) {
        let Block { input, output, .. } = self.block;
        let bias = vec![0.0; input.channels];
        for (start, end) in input.blocks() {
            self.arch.dispatch(Convolve {
                input: output,
                source: &scratch[start * output.stride()..],
                kernel: &self.state.backward_kernel,
                bias: &bias,
                target: &mut below[start * input.row_len()..end * input.row_len()],
            });
        }
    }
}

fn block_gradients(block: &Block, kernel: Vec<f32>, norm: NormBackward) -> BlockGradients {
    let NormBackward { weight, mut bias, .. } = norm;
    bias.truncate(block.channels.outputs);
    if block.batch_norm {
        let zeros = vec![0.0; bias.len()];
        BlockGradients { kernel, bias: zeros, norm: Some(NormGradients { weight, bias }) }
    } else {
        BlockGradients { kernel, bias, norm: None }
    }
}

/// Copies an image inside its border.
fn load(block: &Block, image: &[f32], source: &mut [f32]) {
    let map = block.input;
    for (row, values) in image.chunks_exact(map.row_len()).enumerate() {
        source[map.row_start(row)..][..map.row_len()].copy_from_slice(values);
    }
}

fn check_length(what: &'static str, batch: usize, each: usize, got: usize) -> Result<(), ConvError> {
    let expected = batch.saturating_mul(each);
    if got == expected { Ok(()) } else { Err(ConvError::BufferLength { what, batch, expected, got }) }
}

fn check(what: &'static str, layer: usize, expected: usize, got: usize) -> Result<(), ConvError> {
    if got == expected { Ok(()) } else { Err(ConvError::WeightLength { layer, what, expected, got }) }
}

/// Prints the shapes, not the values.
impl fmt::Debug for TrainableNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrainableNetwork({} -> {} in {} blocks)", self.input, self.plan.output, self.states.len())
    }
}
