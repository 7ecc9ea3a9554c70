//! Convolutions on 8-bit maps and 8-bit weights.
//!
//! Weights are symmetric with one step an output channel, maps are 0 to 255 with one step a layer,
//! taken from calibration images. The sums are whole numbers and the same on every instruction
//! set, and so is what becomes of them.

mod cell;
mod kernel;
mod lanes;
mod layer;
mod map;
mod pack;
mod product;
mod tile;
mod tiled;

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use crate::{
    ConvError, Layer, Network, Options, Shape, Tiling,
    memory::Aligned,
    network::{check_finite, check_length, check_weights},
};
pub(crate) use cell::to_u8;
use kernel::{CHUNK, Multiplier};
use layer::QuantizedLayer;
use map::Output;

/// Channels of an input that stays in floats: a chunk would be mostly zeros, and an image has
/// values below zero.
const FLOAT_CHANNELS: usize = CHUNK / 4;

/// Channels whose sums fit 32 bits: 9 taps of products of up to 255 * 127.
const MOST_CHANNELS: usize = i32::MAX as usize / (9 * 255 * 127);

/// The largest value after each convolution, over calibration images.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// One for each [`Layer::Conv3x3`], in order.
    pub maxima: Vec<f32>,
}

impl Calibration {
    /// Runs `batch` images of `[height, width, channels]` through the layers in f32 and keeps the
    /// largest value after each convolution.
    ///
    /// # Errors
    /// As [`Network::new`] and [`Network::forward`].
    pub fn measure(
        input: Shape,
        layers: &[Layer<'_>],
        images: &[f32],
        batch: usize,
    ) -> Result<Self, ConvError> {
        check_length("input", batch, input.len(), images.len())?;
        let mut maxima = Vec::new();
        let (mut shape, mut maps) = (input, images.to_vec());
        for layer in layers {
            let network = Network::new(shape, &[*layer])?;
            let mut next = vec![0.0; batch * network.output().len()];
            network.forward(&maps, batch, &mut next)?;
            if matches!(layer, Layer::Conv3x3 { .. }) {
                maxima.push(next.iter().copied().fold(0.0, f32::max));
            }
            (shape, maps) = (network.output(), next);
        }
        Ok(Self { maxima })
    }
}

/// A chain of layers whose convolutions, but for one on few channels at the start, run on 8-bit
/// maps; what follows the last convolution runs in floats.
pub struct QuantizedNetwork {
    /// Up to and with the first convolution, in floats.
    first: Network,
    /// Steps to a unit of the first map.
    first_scale: f32,
    layers: Vec<QuantizedLayer>,
    rest: Network,
    /// Maps of finished calls, for the next ones.
    idle: Mutex<Vec<Maps>>,
}

#[derive(Default)]
struct Maps {
    /// What the layers before and after the 8-bit ones leave.
    floats: Aligned,
    /// What each 8-bit layer reads. Each has its own, so that the zeros around its pixels are
    /// written once.
    inputs: Vec<Aligned>,
    /// Transformed values that all threads read.
    shared: Aligned,
}

impl QuantizedNetwork {
    /// Compiles a chain that begins with convolutions and poolings, each convolution with ReLU.
    /// 8-bit convolutions have no [`Tiling::F2`]: where `options` ask for it, they run directly.
    ///
    /// # Errors
    /// As [`Network::with_options`]; [`ConvError::Calibration`] when the calibration is of other
    /// layers, and [`ConvError::Incompatible`] for a chain that cannot be quantised.
    pub fn new(
        input: Shape,
        layers: &[Layer<'_>],
        calibration: &Calibration,
        options: Options,
    ) -> Result<Self, ConvError> {
        let convolutions = layers.iter().filter(|layer| matches!(layer, Layer::Conv3x3 { .. })).count();
        let got = calibration.maxima.len();
        if convolutions != got {
            return Err(ConvError::Calibration { expected: convolutions, got });
        }
        let plain = layers
            .iter()
            .take_while(|layer| matches!(layer, Layer::Conv3x3 { .. } | Layer::MaxPool2x2))
            .count();
        let (convolutions, rest) = layers.split_at(plain);
        let floats = if input.channels <= FLOAT_CHANNELS { float_layers(convolutions) } else { 0 };
        let (first, quantized) = convolutions.split_at(floats);
        let first = Network::with_options(input, first, options)?;
        let used = first_convolutions(&layers[..floats]);
        let step = if used > 0 { step(calibration.maxima[used - 1]) } else { 1.0 / 255.0 };
        let maxima = calibration.maxima[used..].iter().copied();
        let compiler = Compiler {
            shape: first.output(),
            step,
            way: (Multiplier::of(options.isa), options.tiling),
            layers: Vec::new(),
        };
        let (layers, shape) = compiler.compile(quantized, floats, maxima)?;
        let rest = Network::with_options(shape, rest, options)?;
        Ok(Self { first, first_scale: 1.0 / step, layers, rest, idle: Mutex::default() })
    }

    /// Shape of one input image.
    pub fn input(&self) -> Shape {
        self.first.input()
    }

    /// Shape of one output.
    pub fn output(&self) -> Shape {
        self.rest.output()
    }

    /// As [`Network::forward`]. A value above what the calibration saw is taken for the largest
    /// that it saw.
    ///
    /// # Errors
    /// As [`Network::forward`]; `output` is then as it was.
    pub fn forward(&self, input: &[f32], batch: usize, output: &mut [f32]) -> Result<(), ConvError> {
        let (image_len, result_len) = (self.input().len(), self.output().len());
        check_length("input", batch, image_len, input.len())?;
        check_length("output", batch, result_len, output.len())?;
        check_finite(input, image_len)?;
        let mut maps = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        for (image, result) in input.chunks_exact(image_len).zip(output.chunks_exact_mut(result_len)) {
            self.forward_image(image, result, &mut maps)?;
        }
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(maps);
        Ok(())
    }

    fn forward_image(&self, image: &[f32], result: &mut [f32], maps: &mut Maps) -> Result<(), ConvError> {
        let Maps { floats, inputs, shared } = maps;
        if inputs.is_empty() {
            inputs.extend(self.layers.iter().map(|layer| Aligned::zeroed_as::<u8>(layer.input.len())));
        }
        let map = self.layers.first().map(|layer| layer.input).zip(inputs.first_mut());
        match (map, self.first.convolution()) {
            // The floats would take four times the room, and fill the caches.
            (Some((layout, map)), Some(convolution)) => {
                let target = layout.target(map.values_as_mut(), self.first_scale);
                convolution.run_to(image, 1, &target, shared);
            }
            (map, _) => {
                let values = floats.of_len(self.first.output().len());
                self.first.forward(image, 1, values)?;
                if let Some((layout, map)) = map {
                    layout.quantize(values, self.first_scale, map.values_as_mut());
                }
            }
        }
        for (index, layer) in self.layers.iter().enumerate() {
            let (sources, targets) = inputs.split_at_mut(index + 1);
            let source = sources[index].values_as();
            if let Some(target) = targets.first_mut() {
                layer.run(source, &Output::map(layer.output, target.values_as_mut()), shared);
            } else {
                let values = floats.of_len(layer.output.0.len());
                layer.run(source, &Output::floats(layer.output.0, values), shared);
            }
        }
        self.rest.forward(floats.of_len(self.rest.input().len()), 1, result)
    }
}

/// Layers at the start that stay in floats: a convolution and the pooling after it.
fn float_layers(layers: &[Layer<'_>]) -> usize {
    let convolution = layers.iter().position(|layer| matches!(layer, Layer::Conv3x3 { .. }));
    let after = convolution.map_or(0, |position| position + 1);
    after + layers[after..].iter().take_while(|layer| matches!(layer, Layer::MaxPool2x2)).count()
}

fn first_convolutions(layers: &[Layer<'_>]) -> usize {
    layers.iter().filter(|layer| matches!(layer, Layer::Conv3x3 { .. })).count()
}

/// What a step of a map stands for: 255 steps to the largest value.
fn step(maximum: f32) -> f32 {
    if maximum > 0.0 { maximum / 255.0 } else { 1.0 / 255.0 }
}

/// Compiles the 8-bit layers one after the other.
struct Compiler {
    shape: Shape,
    /// What a step of the map so far stands for.
    step: f32,
    way: (Multiplier, Option<Tiling>),
    layers: Vec<QuantizedLayer>,
}

impl Compiler {
    /// The layers and the shape after them; `first` is the position of the first in the chain.
    fn compile(
        mut self,
        layers: &[Layer<'_>],
        first: usize,
        mut maxima: impl Iterator<Item = f32>,
    ) -> Result<(Vec<QuantizedLayer>, Shape), ConvError> {
        let last = layers.iter().rposition(|layer| matches!(layer, Layer::Conv3x3 { .. }));
        for (position, layer) in layers.iter().enumerate() {
            match *layer {
                Layer::Conv3x3 { kernel, bias, relu } => {
                    let maximum = maxima.next().unwrap_or(0.0);
                    // The last map goes on in floats: a step stands for one.
                    let output_step = if Some(position) == last { 1.0 } else { step(maximum) };
                    self.convolution(first + position, (kernel, bias), relu, output_step)?;
                }
                _ => self.pool(first + position)?,
            }
        }
        Ok((self.layers, self.shape))
    }

    fn convolution(
        &mut self,
        layer: usize,
        (kernel, bias): (&[f32], &[f32]),
        relu: bool,
        output_step: f32,
    ) -> Result<(), ConvError> {
        let input = self.shape;
        if !relu {
            let why = "8-bit maps hold no negative values: every convolution needs its ReLU";
            return Err(ConvError::Incompatible { layer, input, why });
        }
        if input.channels > MOST_CHANNELS {
            let why = "the sums of so many 8-bit channels would not fit 32 bits";
            return Err(ConvError::Incompatible { layer, input, why });
        }
        let channels = check_weights(layer, 9 * input.channels, kernel, bias, input)?;
        let output = Shape { channels, ..input };
        let steps = (self.step, output_step);
        self.layers.push(QuantizedLayer::new((input, output), (kernel, bias), steps, self.way));
        (self.shape, self.step) = (output, output_step);
        Ok(())
    }

    fn pool(&mut self, layer: usize) -> Result<(), ConvError> {
        let input = self.shape;
        let output = Shape { height: input.height / 2, width: input.width / 2, ..input };
        match self.layers.last_mut() {
            Some(convolution) if !convolution.pool && !output.is_empty() => convolution.add_pool(output),
            _ => {
                let why = "8-bit pooling follows a convolution and needs two rows and two columns";
                return Err(ConvError::Incompatible { layer, input, why });
            }
        }
        self.shape = output;
        Ok(())
    }
}

/// Prints the shapes, not the weights.
impl fmt::Debug for QuantizedNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QuantizedNetwork({:?}", self.first)?;
        for layer in &self.layers {
            let pool = if layer.pool { "+max_pool" } else { "" };
            write!(f, " -> conv3x3 (8 bits)+relu{pool} {}", layer.output.0)?;
        }
        write!(f, " -> {:?})", self.rest)
    }
}
