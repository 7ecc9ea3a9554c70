//! Fully connected layers.

use rayon::prelude::*;

/// Outputs in a task.
const BLOCK_OUTPUTS: usize = 16;
/// Partial sums kept side by side, so that the compiler can use vector registers.
const LANES: usize = 16;

/// A compiled fully connected layer.
pub(crate) struct Dense {
    inputs: usize,
    /// `[outputs, inputs]`: each output reads one contiguous row.
    kernel: Vec<f32>,
    bias: Vec<f32>,
    relu: bool,
}

impl Dense {
    /// `kernel` is `[inputs, outputs]`.
    pub(crate) fn new(inputs: usize, kernel: &[f32], bias: &[f32], relu: bool) -> Self {
        let outputs = bias.len();
        let mut transposed = vec![0.0; kernel.len()];
        for (i, row) in kernel.chunks_exact(outputs).enumerate() {
            for (o, value) in row.iter().enumerate() {
                transposed[o * inputs + i] = *value;
            }
        }
        Self { inputs, kernel: transposed, bias: bias.to_vec(), relu }
    }

    pub(crate) fn relu(&self) -> bool {
        self.relu
    }

    /// Images share nothing: an image's result cannot depend on its neighbours in the batch.
    pub(crate) fn run(&self, source: &[f32], target: &mut [f32]) {
        let images = source.par_chunks_exact(self.inputs).zip(target.par_chunks_exact_mut(self.bias.len()));
        images.for_each(|(source, target)| self.run_image(source, target));
    }

    fn run_image(&self, source: &[f32], target: &mut [f32]) {
        let floor = if self.relu { 0.0 } else { f32::NEG_INFINITY };
        let rows = self.kernel.par_chunks(BLOCK_OUTPUTS * self.inputs);
        let blocks = target.par_chunks_mut(BLOCK_OUTPUTS).zip(self.bias.par_chunks(BLOCK_OUTPUTS)).zip(rows);
        blocks.for_each(|((values, bias), kernel)| {
            let rows = kernel.chunks_exact(self.inputs);
            for ((value, bias), row) in values.iter_mut().zip(bias).zip(rows) {
                *value = (dot(source, row) + bias).max(floor);
            }
        });
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    let mut lanes = [0.0_f32; LANES];
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    lanes.iter().sum::<f32>() + rest
}
