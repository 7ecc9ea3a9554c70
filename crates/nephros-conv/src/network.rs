//! The chain of layers and its forward pass.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rayon::prelude::*;

use crate::{ConvError, convolution::Convolution, dense::Dense, layout::Layout, pooling};

/// Shape of one image or feature map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Channels, the fastest axis.
    pub channels: usize,
}

impl Shape {
    /// Values in one image.
    pub fn len(self) -> usize {
        self.height * self.width * self.channels
    }

    /// Whether an axis is zero.
    pub fn is_empty(self) -> bool {
        self.height == 0 || self.width == 0 || self.channels == 0
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.height, self.width, self.channels)
    }
}

/// One layer, with its weights borrowed while the network is compiled.
#[derive(Debug, Clone, Copy)]
pub enum Layer<'a> {
    /// 3×3 convolution, stride 1, zero padding 1.
    Conv3x3 {
        /// `[3, 3, in_channels, out_channels]`.
        kernel: &'a [f32],
        /// `[out_channels]`.
        bias: &'a [f32],
        /// Whether `max(x, 0)` follows.
        relu: bool,
    },
    /// 2×2 maximum, stride 2; an odd last row or column is dropped.
    MaxPool2x2,
    /// Mean over rows and columns: `[height, width, channels]` to `[1, 1, channels]`.
    GlobalAveragePool,
    /// Fully connected over the flattened `(y, x, channel)` values.
    Dense {
        /// `[inputs, outputs]`.
        kernel: &'a [f32],
        /// `[outputs]`.
        bias: &'a [f32],
        /// Whether `max(x, 0)` follows.
        relu: bool,
    },
}

/// A compiled chain of layers.
pub struct Network {
    input: Layout,
    output: Layout,
    steps: Vec<Step>,
    /// Values in the largest map of the chain.
    buffer_len: usize,
    /// Buffers of finished calls, for the next ones.
    idle: Mutex<Vec<Vec<Buffers>>>,
}

/// Most images that one call has in flight: it bounds the memory on machines with many cores,
/// where the rows of an image keep the other threads busy.
const MAX_IN_FLIGHT: usize = 16;

/// One compiled layer, or a convolution with the pooling after it.
struct Step {
    output: Layout,
    kernel: Kernel,
}

enum Kernel {
    Convolution(Convolution),
    MaxPool,
    GlobalAverage,
    Dense(Dense),
}

/// What one image is read from and written to; the two change places after each step.
struct Buffers {
    source: Vec<f32>,
    target: Vec<f32>,
}

impl Network {
    /// Checks that the layers fit each other and packs their weights.
    ///
    /// # Errors
    /// [`ConvError::WeightLength`] and [`ConvError::Incompatible`].
    pub fn new(input: Shape, layers: &[Layer<'_>]) -> Result<Self, ConvError> {
        let input = layout(0, input, input)?;
        let mut steps: Vec<Step> = Vec::with_capacity(layers.len());
        let mut rest = layers.iter().enumerate().peekable();
        while let Some((index, layer)) = rest.next() {
            let from = steps.last().map_or(input, |step| step.output);
            let pool = matches!(layer, Layer::Conv3x3 { .. })
                .then(|| rest.next_if(|(_, next)| matches!(next, Layer::MaxPool2x2)))
                .flatten();
            steps.push(compile(index, layer, pool.map(|(index, _)| index), from)?);
        }
        let output = steps.last().map_or(input, |step| step.output);
        let lengths = steps.iter().map(|step| step.output.len());
        let buffer_len = lengths.fold(input.len(), usize::max);
        Ok(Self { input, output, steps, buffer_len, idle: Mutex::default() })
    }

    /// Shape of one input image.
    pub fn input(&self) -> Shape {
        self.input.shape
    }

    /// Shape of one output.
    pub fn output(&self) -> Shape {
        self.output.shape
    }

    /// Runs `batch` images, on the threads of the current rayon pool.
    ///
    /// `input` is `[batch, height, width, channels]`, `output` `[batch, output().len()]`. The
    /// result for an image does not depend on the batch it is in or on the number of threads.
    ///
    /// # Errors
    /// [`ConvError::BufferLength`] and [`ConvError::NotFinite`]; `output` is then as it was.
    pub fn forward(&self, input: &[f32], batch: usize, output: &mut [f32]) -> Result<(), ConvError> {
        let (image_len, result_len) = (self.input.shape.len(), self.output.shape.len());
        check_length("input", batch, image_len, input.len())?;
        check_length("output", batch, result_len, output.len())?;
        check_finite(input, image_len)?;
        let in_flight = rayon::current_num_threads().clamp(1, MAX_IN_FLIGHT);
        let mut buffers = self.idle().pop().unwrap_or_default();
        while buffers.len() < in_flight.min(batch) {
            buffers.push(Buffers { source: vec![0.0; self.buffer_len], target: vec![0.0; self.buffer_len] });
        }
        let groups = input.chunks(in_flight * image_len).zip(output.chunks_mut(in_flight * result_len));
        for (images, results) in groups {
            let images = images.par_chunks_exact(image_len).zip(results.par_chunks_exact_mut(result_len));
            let work = images.zip(buffers.par_iter_mut());
            work.for_each(|((image, result), buffers)| self.forward_image(image, result, buffers));
        }
        self.idle().push(buffers);
        Ok(())
    }

    fn forward_image(&self, image: &[f32], result: &mut [f32], buffers: &mut Buffers) {
        self.input.load(image, &mut buffers.source);
        let mut from = self.input;
        for Step { output, kernel } in &self.steps {
            let (source, target) = (&buffers.source[..from.len()], &mut buffers.target[..output.len()]);
            match kernel {
                Kernel::Convolution(convolution) => convolution.run(source, target),
                Kernel::MaxPool => pooling::max_pool(from, *output, source, target),
                Kernel::GlobalAverage => pooling::global_average(from, *output, source, target),
                Kernel::Dense(dense) => dense.run(source, target),
            }
            std::mem::swap(&mut buffers.source, &mut buffers.target);
            from = *output;
        }
        self.output.store(&buffers.source, result);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Vec<Buffers>>> {
        // A panic elsewhere cannot leave the list half changed.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Prints the chain of shapes, not the weights.
impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Network({}", self.input.shape)?;
        for step in &self.steps {
            let (name, relu, pool) = match &step.kernel {
                Kernel::Convolution(convolution) => ("conv3x3", convolution.relu(), convolution.pool()),
                Kernel::MaxPool => ("max_pool", false, false),
                Kernel::GlobalAverage => ("global_average", false, false),
                Kernel::Dense(dense) => ("dense", dense.relu(), false),
            };
            let (relu, pool) = (if relu { "+relu" } else { "" }, if pool { "+max_pool" } else { "" });
            write!(f, " -> {name}{relu}{pool} {}", step.output.shape)?;
        }
        f.write_str(")")
    }
}

/// Compiles one layer, with the pooling at `pool` where one follows a convolution.
fn compile(index: usize, layer: &Layer<'_>, pool: Option<usize>, from: Layout) -> Result<Step, ConvError> {
    let input = from.shape;
    match *layer {
        Layer::Conv3x3 { kernel, bias, relu } => {
            let channels = check_weights(index, 9 * input.channels, kernel, bias, input)?;
            let convolved = Shape { channels, ..input };
            layout(index, input, convolved)?;
            let output = match pool {
                Some(pool) => pooled(pool, convolved)?,
                None => layout(index, input, convolved)?,
            };
            let convolution = Convolution::new((from, output), (kernel, bias), relu, pool.is_some());
            Ok(Step { output, kernel: Kernel::Convolution(convolution) })
        }
        Layer::MaxPool2x2 => Ok(Step { output: pooled(index, input)?, kernel: Kernel::MaxPool }),
        Layer::GlobalAveragePool => {
            let output = layout(index, input, Shape { height: 1, width: 1, ..input })?;
            Ok(Step { output, kernel: Kernel::GlobalAverage })
        }
        Layer::Dense { kernel, bias, relu } => {
            let channels = check_weights(index, input.len(), kernel, bias, input)?;
            let output = layout(index, input, Shape { height: 1, width: 1, channels })?;
            let dense = Dense::new((from, output), (kernel, bias), relu);
            Ok(Step { output, kernel: Kernel::Dense(dense) })
        }
    }
}

fn layout(layer: usize, input: Shape, output: Shape) -> Result<Layout, ConvError> {
    let why = if output.is_empty() { "an axis would be zero" } else { "the map would be too large" };
    Layout::new(output).ok_or(ConvError::Incompatible { layer, input, why })
}

fn pooled(layer: usize, input: Shape) -> Result<Layout, ConvError> {
    let output = Shape { height: input.height / 2, width: input.width / 2, ..input };
    let too_small =
        ConvError::Incompatible { layer, input, why: "2x2 pooling needs two rows and two columns" };
    if output.is_empty() { Err(too_small) } else { layout(layer, input, output) }
}

/// Number of outputs, once the kernel holds `inputs` values for each of them.
fn check_weights(
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

fn check_length(what: &'static str, batch: usize, each: usize, got: usize) -> Result<(), ConvError> {
    let expected = batch.saturating_mul(each);
    if got == expected { Ok(()) } else { Err(ConvError::BufferLength { what, batch, expected, got }) }
}

fn check_finite(input: &[f32], image_len: usize) -> Result<(), ConvError> {
    let bad = input.iter().enumerate().find(|(_, value)| !value.is_finite());
    bad.map_or(Ok(()), |(index, &value)| {
        Err(ConvError::NotFinite { image: index / image_len, position: index % image_len, value })
    })
}
