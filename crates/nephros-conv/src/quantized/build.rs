//! Layers into an 8-bit network.

use std::sync::Mutex;

use super::{
    Calibration, QuantizedKernel, QuantizedNetwork,
    kernel::{CHUNK, Multiplier},
    layer::QuantizedLayer,
};
use crate::{ConvError, Layer, Network, NetworkBuilder, Options, Shape, Tiling, network::check_weights};

/// Channels of an input that stays in floats: a chunk would be mostly zeros, and an image has
/// values below zero.
const FLOAT_CHANNELS: usize = CHUNK / 4;

/// Channels whose sums fit 32 bits: 9 taps of products of up to 255 * 127.
const MOST_CHANNELS: usize = i32::MAX as usize / (9 * 255 * 127);

/// Compiles an 8-bit network layer by layer, so that a layer's weights need not outlive its call.
pub struct QuantizedBuilder {
    options: Options,
    calibration: Calibration,
    /// Layers pushed.
    position: usize,
    /// Convolutions pushed.
    convolutions: usize,
    /// What runs in floats before the first 8-bit layer.
    first: NetworkBuilder,
    first_step: f32,
    layers: Vec<QuantizedLayer>,
    /// Shape after the layers so far, until `rest` begins.
    shape: Shape,
    /// What a step of the map so far stands for.
    step: f32,
    /// How to multiply, and by which tiles where it is given.
    way: (Multiplier, Option<Tiling>),
    /// What runs in floats after the last convolution.
    rest: Option<NetworkBuilder>,
}

impl QuantizedBuilder {
    /// A network without layers, for as many convolutions as the calibration saw.
    ///
    /// # Errors
    /// As [`NetworkBuilder::new`].
    pub fn new(input: Shape, calibration: Calibration, options: Options) -> Result<Self, ConvError> {
        let step = 1.0 / 255.0;
        Ok(Self {
            options,
            calibration,
            position: 0,
            convolutions: 0,
            first: NetworkBuilder::new(input, options)?,
            first_step: step,
            layers: Vec::new(),
            shape: input,
            step,
            way: (Multiplier::of(options.isa), options.tiling),
            rest: None,
        })
    }

    /// The same for an input of many channels with values from 0 to this, where no convolution runs in floats: its
    /// 8 bits stand for these. Without it they stand for 0 to 1.
    #[must_use]
    pub fn with_largest_input(self, maximum: f32) -> Self {
        let step = step(maximum);
        Self { step, first_step: step, ..self }
    }

    /// Whether a convolution that comes next runs in floats: one on few channels at the start.
    pub fn next_in_floats(&self) -> bool {
        self.convolutions == 0 && self.layers.is_empty() && self.shape.channels <= FLOAT_CHANNELS
    }

    /// Adds a layer; a convolution that does not run in floats is quantised.
    ///
    /// # Errors
    /// [`ConvError::WeightLength`], [`ConvError::Incompatible`] for a chain that cannot be
    /// quantised, and [`ConvError::Calibration`] for more convolutions than were calibrated.
    pub fn push(&mut self, layer: &Layer<'_>) -> Result<(), ConvError> {
        match *layer {
            Layer::Conv3x3 { kernel, bias, relu } => {
                if !relu {
                    return Err(self.incompatible(
                        "8-bit maps hold no negative values: every convolution needs its ReLU",
                    ));
                }
                if !self.next_in_floats() {
                    let inputs = 9 * self.shape.channels;
                    check_weights(self.position, inputs, kernel, bias, self.shape)?;
                    return self.push_quantized(&QuantizedKernel::of(kernel, bias.len()), bias);
                }
                self.first.push(layer)?;
                self.step = step(self.next_maximum()?);
                (self.first_step, self.shape) = (self.step, self.first.output());
            }
            Layer::MaxPool2x2 if self.rest.is_none() => self.pool(layer)?,
            _ => self.push_rest(layer)?,
        }
        self.position += 1;
        Ok(())
    }

    /// Adds a convolution with ReLU whose weights are in 8 bits already.
    ///
    /// # Errors
    /// As [`Self::push`]; a convolution that runs in floats is refused.
    pub fn push_quantized(&mut self, kernel: &QuantizedKernel, bias: &[f32]) -> Result<(), ConvError> {
        let input = self.shape;
        if self.next_in_floats() {
            return Err(self.incompatible("a convolution on so few channels runs in floats"));
        }
        if self.rest.is_some() {
            return Err(self.incompatible("8-bit convolutions stand before all other layers"));
        }
        if input.channels > MOST_CHANNELS {
            return Err(self.incompatible("the sums of so many 8-bit channels would not fit 32 bits"));
        }
        kernel.check(self.position, input, bias.len())?;
        let maximum = self.next_maximum()?;
        let last = self.convolutions == self.calibration.maxima.len();
        // The last map goes on in floats: a step stands for one.
        let output_step = if last { 1.0 } else { step(maximum) };
        let output = Shape { channels: bias.len(), ..input };
        let steps = (self.step, output_step);
        self.layers.push(QuantizedLayer::new((input, output), kernel, bias, steps, self.way));
        (self.shape, self.step) = (output, output_step);
        self.position += 1;
        Ok(())
    }

    /// The compiled network.
    ///
    /// # Errors
    /// [`ConvError::Calibration`] for fewer convolutions than were calibrated.
    pub fn finish(self) -> Result<QuantizedNetwork, ConvError> {
        let (expected, got) = (self.convolutions, self.calibration.maxima.len());
        if expected != got {
            return Err(ConvError::Calibration { expected, got });
        }
        let rest = match self.rest {
            Some(rest) => rest.finish(),
            None => Network::with_options(self.shape, &[], self.options)?,
        };
        Ok(QuantizedNetwork {
            first: self.first.finish(),
            first_scale: 1.0 / self.first_step,
            layers: self.layers,
            rest,
            idle: Mutex::default(),
        })
    }

    fn next_maximum(&mut self) -> Result<f32, ConvError> {
        let got = self.calibration.maxima.len();
        let maximum = self.calibration.maxima.get(self.convolutions).copied();
        self.convolutions += 1;
        maximum.ok_or(ConvError::Calibration { expected: self.convolutions, got })
    }

    fn pool(&mut self, layer: &Layer<'_>) -> Result<(), ConvError> {
        if self.layers.is_empty() && (self.shape.channels <= FLOAT_CHANNELS || self.convolutions > 0) {
            self.first.push(layer)?;
            self.shape = self.first.output();
            return Ok(());
        }
        let output = Shape { height: self.shape.height / 2, width: self.shape.width / 2, ..self.shape };
        match self.layers.last_mut() {
            Some(convolution) if !convolution.pool && !output.is_empty() => convolution.add_pool(output),
            _ => {
                return Err(self
                    .incompatible("8-bit pooling follows a convolution and needs two rows and two columns"));
            }
        }
        self.shape = output;
        Ok(())
    }

    fn push_rest(&mut self, layer: &Layer<'_>) -> Result<(), ConvError> {
        let mut rest = match self.rest.take() {
            Some(rest) => rest,
            None => NetworkBuilder::new(self.shape, self.options)?,
        };
        let pushed = rest.push(layer);
        self.rest = Some(rest);
        pushed
    }

    fn incompatible(&self, why: &'static str) -> ConvError {
        ConvError::Incompatible { layer: self.position, input: self.shape, why }
    }
}

/// What a step of a map stands for: 255 steps to the largest value.
fn step(maximum: f32) -> f32 {
    if maximum > 0.0 { maximum / 255.0 } else { 1.0 / 255.0 }
}
