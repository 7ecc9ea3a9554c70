//! Convolutions on 8-bit maps and 8-bit weights.
//!
//! Weights are symmetric with one step an output channel, maps are 0 to 255 with one step a layer,
//! taken from calibration images. The sums are whole numbers and the same on every instruction
//! set, and so is what becomes of them.

mod build;
mod calibration;
mod cell;
mod kernel;
mod lanes;
mod layer;
mod map;
mod pack;
mod product;
mod tile;
mod tiled;
mod weights;

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use crate::{
    ConvError, Layer, Network, Options, Shape,
    memory::Aligned,
    network::{check_finite, check_length},
};
pub use build::QuantizedBuilder;
pub use calibration::{Calibration, Calibrator};
pub(crate) use cell::to_u8;
use layer::QuantizedLayer;
use map::Output;
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
    /// 8-bit convolutions have no [`crate::Tiling::F2`]: where `options` ask for it, they run directly.
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
