//! Weights in 8 bits.

use crate::{ConvError, Shape};

/// A convolution's kernel in 8 bits, symmetric, with one step an output channel.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizedKernel {
    /// `[outputs, inputs, 3, 3]`, from -127 to 127.
    pub values: Vec<i8>,
    /// What a step of each output's values stands for, `[outputs]`.
    pub steps: Vec<f32>,
}

impl QuantizedKernel {
    /// Rounds a kernel of `[3, 3, inputs, outputs]`: 127 steps to the largest of each output.
    pub fn of(kernel: &[f32], outputs: usize) -> Self {
        let inputs = kernel.len() / (9 * outputs.max(1));
        let steps = weight_steps(kernel, outputs);
        let mut values = vec![0; kernel.len()];
        for (row, weights) in kernel.chunks_exact(outputs.max(1)).enumerate() {
            let (tap, channel) = (row / inputs, row % inputs);
            for (o, (value, step)) in weights.iter().zip(&steps).enumerate() {
                values[(o * inputs + channel) * 9 + tap] = (value / step).round_ties_even() as i8;
            }
        }
        Self { values, steps }
    }

    /// Output channels.
    pub(super) fn outputs(&self) -> usize {
        self.steps.len()
    }

    /// Input channels.
    pub(super) fn inputs(&self) -> usize {
        self.values.len() / (9 * self.outputs().max(1))
    }

    /// Whether it is a kernel from `input` to so many outputs.
    pub(super) fn check(&self, layer: usize, input: Shape, outputs: usize) -> Result<(), ConvError> {
        if outputs == 0 {
            return Err(ConvError::Incompatible { layer, input, why: "it has no outputs" });
        }
        let lengths = [
            ("kernel", 9 * input.channels * outputs, self.values.len()),
            ("steps", outputs, self.steps.len()),
        ];
        lengths.into_iter().try_for_each(|(what, expected, got)| {
            let error = ConvError::WeightLength { layer, what, expected, got };
            if expected == got { Ok(()) } else { Err(error) }
        })
    }
}

/// What a step of each output's weights stands for: 127 steps to the largest.
fn weight_steps(kernel: &[f32], outputs: usize) -> Vec<f32> {
    let mut largest = vec![0.0_f32; outputs];
    for row in kernel.chunks_exact(outputs.max(1)) {
        for (largest, value) in largest.iter_mut().zip(row) {
            *largest = largest.max(value.abs());
        }
    }
    largest.into_iter().map(|largest| if largest > 0.0 { largest / 127.0 } else { 1.0 }).collect()
}
