//! Convolutions on 8-bit maps and 8-bit weights.
//!
//! Weights are symmetric with one step an output channel, maps are 0 to 255 with one step a layer,
//! taken from calibration images. The sums are whole numbers and the same on every instruction
//! set, and so is what becomes of them.

mod build;
mod calibration;
mod kernel;
mod layer;
mod weights;

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use crate::{
    ConvError, Layer, Network, Options, Shape,
    network::{check_finite, check_length},
};
pub use build::QuantizedBuilder;
pub use calibration::{Calibration, Calibrator};
use layer::{QuantizedLayer, Target};
pub use weights::QuantizedKernel;

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
    floats: Vec<f32>,
    source: Vec<u8>,
    target: Vec<u8>,
}

impl QuantizedNetwork {
    /// Compiles a chain that begins with convolutions and poolings, each convolution with ReLU.
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
        let mut builder = QuantizedBuilder::new(input, calibration.clone(), options)?;
        layers.iter().try_for_each(|layer| builder.push(layer))?;
        builder.finish()
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
        let Maps { floats, source, target } = maps;
        floats.resize(self.first.output().len(), 0.0);
        self.first.forward(image, 1, floats)?;
        let Some((last, layers)) = self.layers.split_last() else {
            return self.rest.forward(floats, 1, result);
        };
        let first = self.layers.first().unwrap_or(last).input;
        grow(source, first.len());
        first.quantize(floats, self.first_scale, &mut source[..first.len()]);
        for layer in layers {
            grow(target, layer.output.len());
            layer.run(source, Target::Map(&mut target[..layer.output.len()]));
            std::mem::swap(source, target);
        }
        floats.resize(last.output.0.len(), 0.0);
        last.run(source, Target::Floats(floats));
        self.rest.forward(floats, 1, result)
    }
}

/// Makes a buffer at least so long.
fn grow(buffer: &mut Vec<u8>, len: usize) {
    if buffer.len() < len {
        buffer.resize(len, 0);
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
