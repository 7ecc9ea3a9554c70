//! Feature extractors on 8-bit maps: calibrated, written as arrays, and built from them.
//!
//! A file of 8-bit weights holds the folded convolutions (`features.2.weight` as I8
//! `[out, in, 3, 3]` with the `features.2.step` of each output, both biases and what stays in
//! floats as F32), the largest value of each map (`maxima`) and the head as it was. It is enough
//! to predict with.

use std::borrow::Cow;

use nephros_conv::{Calibration, Calibrator, Layer, Options, QuantizedBuilder, QuantizedKernel, Shape};
use safetensors::{Dtype, SafeTensorError, View, serialize};

use super::{
    Architecture, FeatureLayer, Features, NetworkError,
    build::{check_image_size, convolution},
    features::Chain,
};
use crate::weights::{ArrayFile, Arrays, WeightsError};

/// The largest value after each convolution.
const MAXIMA: &str = "maxima";

impl Architecture {
    /// What measures the maps of the feature extractor on calibration images.
    ///
    /// # Errors
    /// See [`NetworkError`].
    pub fn calibrator(
        self,
        weights: &dyn Arrays,
        image_size: [usize; 3],
    ) -> Result<Calibrator, NetworkError> {
        let mut calibrator = Calibrator::new(input_shape(self, image_size)?, &[])?;
        for layer in self.layers() {
            match *layer {
                FeatureLayer::Conv { key, batch_norm, inputs, outputs, .. } => {
                    let (kernel, bias) = convolution(weights, key, batch_norm, inputs, outputs)?;
                    calibrator.push(&Layer::Conv3x3 { kernel: &kernel, bias: &bias, relu: true })?;
                }
                FeatureLayer::MaxPool { .. } => calibrator.push(&Layer::MaxPool2x2)?,
                // What follows the convolutions is not calibrated.
                FeatureLayer::GlobalAveragePool => {}
            }
        }
        Ok(calibrator)
    }

    /// The bytes of a safetensors file with the feature extractor in 8 bits and its head, the same
    /// for the same weights and calibration.
    ///
    /// # Errors
    /// See [`NetworkError`].
    pub fn quantize(
        self,
        weights: &dyn Arrays,
        image_size: [usize; 3],
        (labels, hidden_units): (usize, usize),
        calibration: &Calibration,
    ) -> Result<Vec<u8>, NetworkError> {
        let shape = input_shape(self, image_size)?;
        let mut builder = QuantizedBuilder::new(shape, calibration.clone(), Options::default())?;
        let mut arrays = vec![floats(MAXIMA.to_owned(), &calibration.maxima)];
        for layer in self.layers() {
            let FeatureLayer::Conv { key, batch_norm, inputs, outputs, .. } = *layer else { continue };
            let (kernel, bias) = convolution(weights, key, batch_norm, inputs, outputs)?;
            arrays.push(floats(format!("{key}.bias"), &bias));
            if builder.next_in_floats() {
                arrays.push(first_kernel(key, &kernel, inputs, outputs));
            } else {
                let QuantizedKernel { values, steps } = QuantizedKernel::of(&kernel, outputs);
                arrays.push(floats(format!("{key}.step"), &steps));
                arrays.push(integers(key, &values, inputs, outputs));
            }
            builder.push(&Layer::Conv3x3 { kernel: &kernel, bias: &bias, relu: true })?;
        }
        for (key, shape) in self.head_shapes(image_size, hidden_units, labels) {
            let values = weights.array(&key, &shape)?;
            arrays.push((key, Array { shape, ..floats(String::new(), &values).1 }));
        }
        serialize(arrays, None).map_err(|source| format_error(source).into())
    }

    /// Builds the feature extractor that [`Self::quantize`] wrote, with the same whole numbers.
    ///
    /// # Errors
    /// See [`NetworkError`].
    pub fn build_quantized_features(
        self,
        file: &ArrayFile,
        image_size: [usize; 3],
        options: Options,
    ) -> Result<Features, NetworkError> {
        let is_convolution = |layer: &&FeatureLayer| matches!(layer, FeatureLayer::Conv { .. });
        let convolutions = |layers: &[FeatureLayer]| layers.iter().filter(is_convolution).count();
        let maxima = file.array(MAXIMA, &[convolutions(self.layers())])?.into_owned();
        let input = input_shape(self, image_size)?;
        let Some(tap) = self.tap() else {
            let builder = QuantizedBuilder::new(input, Calibration { maxima }, options)?;
            return Ok(Features::of_last_map(push_quantized(builder, self.layers(), file)?));
        };
        let (first, rest) = self.layers().split_at(tap.layers);
        let (below, above) = maxima.split_at(convolutions(first));
        let builder = QuantizedBuilder::new(input, Calibration { maxima: below.to_vec() }, options)?;
        let first = push_quantized(builder, first, file)?;
        let calibration = Calibration { maxima: above.to_vec() };
        let builder = QuantizedBuilder::new(self.shape_after(image_size, tap.layers), calibration, options)?;
        // Pooling makes no value larger.
        let builder = builder.with_largest_input(below.last().copied().unwrap_or_default());
        Ok(Features::joined(first, push_quantized(builder, rest, file)?, tap.side))
    }
}

/// The layers in 8 bits, as they lie in a file.
fn push_quantized(
    mut builder: QuantizedBuilder,
    layers: &[FeatureLayer],
    file: &ArrayFile,
) -> Result<Chain, NetworkError> {
    for layer in layers {
        match *layer {
            FeatureLayer::Conv { key, inputs, outputs, .. } if builder.next_in_floats() => {
                let (kernel, bias) = convolution(file, key, None, inputs, outputs)?;
                builder.push(&Layer::Conv3x3 { kernel: &kernel, bias: &bias, relu: true })?;
            }
            FeatureLayer::Conv { key, inputs, outputs, .. } => {
                let values = file.integers(&format!("{key}.weight"), &[outputs, inputs, 3, 3])?;
                let steps = file.array(&format!("{key}.step"), &[outputs])?.into_owned();
                let bias = file.array(&format!("{key}.bias"), &[outputs])?;
                builder.push_quantized(&QuantizedKernel { values, steps }, &bias)?;
            }
            FeatureLayer::MaxPool { .. } => builder.push(&Layer::MaxPool2x2)?,
            FeatureLayer::GlobalAveragePool => builder.push(&Layer::GlobalAveragePool)?,
        }
    }
    Ok(Chain::Int8(builder.finish()?))
}

fn input_shape(architecture: Architecture, image_size: [usize; 3]) -> Result<Shape, NetworkError> {
    check_image_size(architecture, image_size)?;
    let [height, width, channels] = image_size;
    Ok(Shape { height, width, channels })
}

/// An array to be written.
struct Array {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for Array {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

fn floats(key: String, values: &[f32]) -> (String, Array) {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    (key, Array { dtype: Dtype::F32, shape: vec![values.len()], bytes })
}

fn integers(key: &str, values: &[i8], inputs: usize, outputs: usize) -> (String, Array) {
    let bytes = values.iter().map(|value| value.cast_unsigned()).collect();
    (format!("{key}.weight"), Array { dtype: Dtype::I8, shape: vec![outputs, inputs, 3, 3], bytes })
}

/// `[3, 3, inputs, outputs]` to `[outputs, inputs, 3, 3]`.
fn first_kernel(key: &str, kernel: &[f32], inputs: usize, outputs: usize) -> (String, Array) {
    let at = |o: usize, i: usize, tap: usize| kernel[(tap * inputs + i) * outputs + o];
    let filter = |o: usize| (0..inputs).flat_map(move |i| (0..9).map(move |tap| at(o, i, tap)));
    let values: Vec<f32> = (0..outputs).flat_map(filter).collect();
    let (key, array) = floats(format!("{key}.weight"), &values);
    (key, Array { shape: vec![outputs, inputs, 3, 3], ..array })
}

fn format_error(source: SafeTensorError) -> WeightsError {
    WeightsError::Format { path: "new 8-bit weights".to_owned(), source }
}
