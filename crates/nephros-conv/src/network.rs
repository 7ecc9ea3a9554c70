//! The chain of layers and its forward pass.

mod build;

use std::{
    fmt,
    mem::swap,
    sync::{Mutex, MutexGuard, PoisonError},
};

pub use build::NetworkBuilder;
pub(crate) use build::check_weights;

use crate::{ConvError, Isa, Tiling, convolution::Convolution, dense::Dense, memory::Aligned, pooling};

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

/// How a network is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// The instruction set of the kernels.
    pub isa: Isa,
    /// The way every convolution is computed; `None` chooses for each the fastest.
    pub tiling: Option<Tiling>,
}

impl Default for Options {
    /// The fastest that this processor has.
    fn default() -> Self {
        Self { isa: Isa::detect(), tiling: None }
    }
}

/// Maps from this size on, in values, go through their layers image by image: a group of them
/// would leave the cache between two layers.
const LARGE_MAP: usize = 1 << 20;
/// Values in a map of a group of images, which bounds the memory.
const GROUP_VALUES: usize = 8 << 20;
/// Most images in a group.
const GROUP_IMAGES: usize = 32;

/// A compiled chain of layers.
pub struct Network {
    input: Shape,
    output: Shape,
    steps: Vec<Step>,
    /// Steps that run image by image; the rest runs on a group, so that a kernel is read once for
    /// several images.
    single: usize,
    /// Images in a group.
    group: usize,
    /// Buffers of finished calls, for the next ones.
    idle: Mutex<Vec<Buffers>>,
}

/// One compiled layer, or a convolution with the pooling after it.
struct Step {
    input: Shape,
    output: Shape,
    kernel: Kernel,
}

enum Kernel {
    Convolution(Convolution),
    MaxPool,
    GlobalAverage,
    Dense(Dense),
}

/// What one call reads from and writes to between its layers.
#[derive(Default)]
struct Buffers {
    /// Maps of one image.
    single: [Aligned; 2],
    /// Maps of a group of images, and what the single steps leave for them.
    group: [Aligned; 2],
    joined: Aligned,
    /// Transformed values that all threads read.
    shared: Aligned,
}

impl Network {
    /// Checks that the layers fit each other and packs their weights, for the fastest instruction
    /// set that this processor has.
    ///
    /// # Errors
    /// [`ConvError::WeightLength`] and [`ConvError::Incompatible`].
    pub fn new(input: Shape, layers: &[Layer<'_>]) -> Result<Self, ConvError> {
        Self::with_options(input, layers, Options::default())
    }

    /// As [`Self::new`], for one instruction set.
    ///
    /// # Errors
    /// As [`Self::new`], and [`ConvError::Isa`] where this processor does not have it.
    pub fn with_isa(input: Shape, layers: &[Layer<'_>], isa: Isa) -> Result<Self, ConvError> {
        Self::with_options(input, layers, Options { isa, ..Options::default() })
    }

    /// As [`Self::new`], with choices.
    ///
    /// # Errors
    /// As [`Self::with_isa`].
    pub fn with_options(input: Shape, layers: &[Layer<'_>], options: Options) -> Result<Self, ConvError> {
        let mut builder = NetworkBuilder::new(input, options)?;
        for layer in layers {
            builder.push(layer)?;
        }
        Ok(builder.finish())
    }

    /// Shape of one input image.
    pub fn input(&self) -> Shape {
        self.input
    }

    /// Shape of one output.
    pub fn output(&self) -> Shape {
        self.output
    }

    /// Runs `batch` images, on the threads of the current rayon pool.
    ///
    /// `input` is `[batch, height, width, channels]`, `output` `[batch, output().len()]`. The
    /// result for an image does not depend on the batch it is in or on the number of threads.
    ///
    /// # Errors
    /// [`ConvError::BufferLength`] and [`ConvError::NotFinite`]; `output` is then as it was.
    pub fn forward(&self, input: &[f32], batch: usize, output: &mut [f32]) -> Result<(), ConvError> {
        let (image_len, result_len) = (self.input.len(), self.output.len());
        check_length("input", batch, image_len, input.len())?;
        check_length("output", batch, result_len, output.len())?;
        check_finite(input, image_len)?;
        let mut buffers = self.idle().pop().unwrap_or_default();
        let groups = input.chunks(self.group * image_len).zip(output.chunks_mut(self.group * result_len));
        for (images, results) in groups {
            self.forward_group(images, results, &mut buffers);
        }
        self.idle().push(buffers);
        Ok(())
    }

    /// The only step, where it is a convolution.
    pub(crate) fn convolution(&self) -> Option<&Convolution> {
        match self.steps.as_slice() {
            [Step { kernel: Kernel::Convolution(convolution), .. }] => Some(convolution),
            _ => None,
        }
    }

    fn forward_group(&self, images: &[f32], results: &mut [f32], buffers: &mut Buffers) {
        let count = images.len() / self.input.len();
        let (single, rest) = self.steps.split_at(self.single);
        let Some(last) = single.last() else {
            return run(rest, images, count, results, &mut buffers.group, &mut buffers.shared);
        };
        let len = last.output.len();
        let joined = if rest.is_empty() { &mut *results } else { buffers.joined.of_len(count * len) };
        for (image, joined) in images.chunks_exact(self.input.len()).zip(joined.chunks_exact_mut(len)) {
            run(single, image, 1, joined, &mut buffers.single, &mut buffers.shared);
        }
        if !rest.is_empty() {
            run(rest, buffers.joined.values(), count, results, &mut buffers.group, &mut buffers.shared);
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Buffers>> {
        // A panic elsewhere cannot leave the list half changed.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs `images` images through a chain; the maps between two steps take turns in `maps`.
fn run(
    steps: &[Step],
    images: &[f32],
    count: usize,
    results: &mut [f32],
    maps: &mut [Aligned; 2],
    shared: &mut Aligned,
) {
    let Some((last, steps)) = steps.split_last() else { return results.copy_from_slice(images) };
    let [from, to] = maps;
    let (mut from, mut to) = (from, to);
    for (index, step) in steps.iter().enumerate() {
        let source = if index == 0 { images } else { from.values() };
        step.run(source, count, to.of_len(count * step.output.len()), shared);
        swap(&mut from, &mut to);
    }
    let source = if steps.is_empty() { images } else { from.values() };
    last.run(source, count, results, shared);
}

impl Step {
    /// Reads `images` maps from the start of `source` and fills `target`.
    fn run(&self, source: &[f32], images: usize, target: &mut [f32], shared: &mut Aligned) {
        let source = &source[..images * self.input.len()];
        match &self.kernel {
            Kernel::Convolution(convolution) => convolution.run(source, images, target, shared),
            Kernel::MaxPool => pooling::max_pool(self.input, self.output, source, target),
            Kernel::GlobalAverage => pooling::global_average(self.input, source, target),
            Kernel::Dense(dense) => dense.run(source, target),
        }
    }
}

/// Prints the chain of shapes, not the weights.
impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Network({}", self.input)?;
        for step in &self.steps {
            let (name, relu, pool) = match &step.kernel {
                Kernel::Convolution(convolution) => ("conv3x3", convolution.relu(), convolution.pool()),
                Kernel::MaxPool => ("max_pool", false, false),
                Kernel::GlobalAverage => ("global_average", false, false),
                Kernel::Dense(dense) => ("dense", dense.relu(), false),
            };
            let (relu, pool) = (if relu { "+relu" } else { "" }, if pool { "+max_pool" } else { "" });
            write!(f, " -> {name}{relu}{pool} {}", step.output)?;
        }
        f.write_str(")")
    }
}

pub(crate) fn check_length(
    what: &'static str,
    batch: usize,
    each: usize,
    got: usize,
) -> Result<(), ConvError> {
    let expected = batch.saturating_mul(each);
    if got == expected { Ok(()) } else { Err(ConvError::BufferLength { what, batch, expected, got }) }
}

/// The first pass only compares exponents, which the compiler does for several values at once.
pub(crate) fn check_finite(input: &[f32], image_len: usize) -> Result<(), ConvError> {
    let largest = input.iter().fold(0, |largest: u32, value| largest.max(value.abs().to_bits()));
    if f32::from_bits(largest).is_finite() {
        return Ok(());
    }
    let bad = input.iter().enumerate().find(|(_, value)| !value.is_finite());
    bad.map_or(Ok(()), |(index, &value)| {
        Err(ConvError::NotFinite { image: index / image_len, position: index % image_len, value })
    })
}
