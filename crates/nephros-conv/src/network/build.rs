//! Layers into steps.

use std::{mem::size_of, ops::Range};

use super::{GROUP_IMAGES, GROUP_VALUES, Kernel, LARGE_MAP, Layer, Network, Options, Shape, Step};
use crate::{
    ConvError,
    convolution::{Convolution, Read},
    dense::Dense,
    kernels::Kernels,
    tiling::Tiling,
};

/// Compiles a network layer by layer, so that a layer's weights need not outlive its call.
pub struct NetworkBuilder {
    input: Shape,
    kernels: &'static Kernels,
    tiling: Option<Tiling>,
    steps: Vec<Step>,
    /// Layers pushed.
    layers: usize,
}

impl NetworkBuilder {
    /// A network without layers.
    ///
    /// # Errors
    /// [`ConvError::Isa`], and [`ConvError::Incompatible`] for an empty or huge input.
    pub fn new(input: Shape, options: Options) -> Result<Self, ConvError> {
        let kernels = Kernels::of(options.isa)?;
        check_shape(0, input, input)?;
        Ok(Self { input, kernels, tiling: options.tiling, steps: Vec::new(), layers: 0 })
    }

    /// Checks that a layer fits the one before it, and packs its weights.
    ///
    /// # Errors
    /// [`ConvError::WeightLength`] and [`ConvError::Incompatible`].
    pub fn push(&mut self, layer: &Layer<'_>) -> Result<(), ConvError> {
        let input = self.output();
        let pooled = matches!(layer, Layer::MaxPool2x2);
        match self.steps.last_mut() {
            Some(Step { output, kernel: Kernel::Convolution(convolution), .. })
                if pooled && !convolution.pool() =>
            {
                *output = half(self.layers, input)?;
                convolution.add_pool(*output);
            }
            _ => {
                let step = self.compile(layer, input)?;
                self.steps.push(step);
            }
        }
        self.layers += 1;
        Ok(())
    }

    /// As [`Self::push`] of a convolution whose filters are read while they are packed, some at a time
    /// and by several threads: `read` gives those of a range of outputs, `[filters, in_channels, 3, 3]`.
    ///
    /// # Errors
    /// The first of `read`; [`ConvError::WeightLength`] where it gives too few or too many values, and
    /// [`ConvError::Incompatible`].
    pub fn push_filters<E: From<ConvError> + Send>(
        &mut self,
        bias: &[f32],
        relu: bool,
        read: impl Fn(Range<usize>) -> Result<Vec<f32>, E> + Sync,
    ) -> Result<(), E> {
        let (layer, input) = (self.layers, self.output());
        if bias.is_empty() {
            return Err(ConvError::Incompatible { layer, input, why: "it has no outputs" }.into());
        }
        let checked = |outputs: Range<usize>| -> Result<Vec<f32>, E> {
            let expected = 9 * input.channels * outputs.len();
            let filters = read(outputs)?;
            let got = filters.len();
            let error = ConvError::WeightLength { layer, what: "kernel", expected, got };
            if got == expected { Ok(filters) } else { Err(error.into()) }
        };
        let step = self.convolution(input, bias, relu, &checked)?;
        self.steps.push(step);
        self.layers += 1;
        Ok(())
    }

    /// The compiled network.
    pub fn finish(self) -> Network {
        let (input, output) = (self.input, self.output());
        let large = |step: &Step| step.input.len().max(step.output.len()) > LARGE_MAP;
        let single = self.steps.iter().rposition(large).map_or(0, |last| last + 1);
        let lengths = self.steps[single..].iter().map(|step| step.input.len().max(step.output.len()));
        let group = (GROUP_VALUES / lengths.max().unwrap_or(output.len())).clamp(1, GROUP_IMAGES);
        Network { input, output, steps: self.steps, single, group, idle: std::sync::Mutex::default() }
    }

    /// Shape after the layers so far.
    pub fn output(&self) -> Shape {
        self.steps.last().map_or(self.input, |step| step.output)
    }

    fn compile(&self, layer: &Layer<'_>, input: Shape) -> Result<Step, ConvError> {
        let index = self.layers;
        let (output, kernel) = match *layer {
            Layer::Conv3x3 { kernel, bias, relu } => {
                let channels = check_weights(index, 9 * input.channels, kernel, bias, input)?;
                return self.convolution(input, bias, relu, &|outputs| {
                    Ok(filters(kernel, (input.channels, channels), outputs))
                });
            }
            Layer::MaxPool2x2 => (half(index, input)?, Kernel::MaxPool),
            Layer::GlobalAveragePool => {
                (check_shape(index, input, Shape { height: 1, width: 1, ..input })?, Kernel::GlobalAverage)
            }
            Layer::Dense { kernel, bias, relu } => {
                let channels = check_weights(index, input.len(), kernel, bias, input)?;
                let output = check_shape(index, input, Shape { height: 1, width: 1, channels })?;
                (output, Kernel::Dense(Dense::new(input.len(), kernel, bias, relu)))
            }
        };
        Ok(Step { input, output, kernel })
    }

    fn convolution<E: From<ConvError> + Send>(
        &self,
        input: Shape,
        bias: &[f32],
        relu: bool,
        read: &Read<'_, E>,
    ) -> Result<Step, E> {
        let output = check_shape(self.layers, input, Shape { channels: bias.len(), ..input })?;
        let tiling = self.tiling.unwrap_or_else(|| Tiling::choose(input));
        let convolution = Convolution::new(self.kernels, tiling, (input, output), bias, relu, read)?;
        Ok(Step { input, output, kernel: Kernel::Convolution(convolution) })
    }
}

/// The filters of some outputs, `[filters, inputs, 3, 3]`, of a kernel of `[3, 3, inputs, outputs]`.
fn filters(kernel: &[f32], (inputs, outputs): (usize, usize), range: Range<usize>) -> Vec<f32> {
    let mut filters = vec![0.0; range.len() * inputs * 9];
    for (row, values) in kernel.chunks_exact(outputs).enumerate() {
        let at = row % inputs * 9 + row / inputs;
        for (filter, value) in filters.chunks_exact_mut(inputs * 9).zip(&values[range.clone()]) {
            filter[at] = *value;
        }
    }
    filters
}

/// `output`, once it is neither empty nor larger than the address space.
fn check_shape(layer: usize, input: Shape, output: Shape) -> Result<Shape, ConvError> {
    let Shape { height, width, channels } = output;
    // A convolution's transformed values take up to nine times the room of its input.
    let bytes = [width, channels, 16, size_of::<f32>()].into_iter().try_fold(height, usize::checked_mul);
    let fits = bytes.is_some_and(|bytes| isize::try_from(bytes).is_ok());
    let why = if output.is_empty() { "an axis would be zero" } else { "the map would be too large" };
    let wrong = ConvError::Incompatible { layer, input, why };
    if fits && !output.is_empty() { Ok(output) } else { Err(wrong) }
}

/// The shape after 2×2 pooling.
fn half(layer: usize, input: Shape) -> Result<Shape, ConvError> {
    let output = Shape { height: input.height / 2, width: input.width / 2, ..input };
    let too_small =
        ConvError::Incompatible { layer, input, why: "2x2 pooling needs two rows and two columns" };
    if output.is_empty() { Err(too_small) } else { check_shape(layer, input, output) }
}

/// Number of outputs, once the kernel holds `inputs` values for each of them.
pub(crate) fn check_weights(
    layer: usize,
    inputs: usize,
    kernel: &[f32],
    bias: &[f32],
    input: Shape,
) -> Result<usize, ConvError> {
    if bias.is_empty() && kernel.is_empty() {
        return Err(ConvError::Incompatible { layer, input, why: "it has no outputs" });
    }
    // A kernel that is whole for another number of outputs makes the bias the odd one out.
    if kernel.len().is_multiple_of(inputs) && !kernel.is_empty() {
        let (expected, got) = (kernel.len() / inputs, bias.len());
        let error = ConvError::WeightLength { layer, what: "bias", expected, got };
        return if expected == got { Ok(got) } else { Err(error) };
    }
    let expected = inputs.saturating_mul(bias.len());
    Err(ConvError::WeightLength { layer, what: "kernel", expected, got: kernel.len() })
}
