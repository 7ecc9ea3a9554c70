//! Weights to 8 bits, and into the order in which products read them.

use rayon::prelude::*;

use super::{
    kernel::{CHUNK, PANEL},
    tile::{POSITIONS, transform_weights},
};
use crate::memory::Aligned;

/// Weights of 8 bits, `[3, 3, inputs, outputs]`.
pub(super) struct Kernel {
    values: Vec<i8>,
    inputs: usize,
    outputs: usize,
    /// What a step of each output's weights stands for.
    pub(super) steps: Vec<f32>,
}

impl Kernel {
    pub(super) fn quantize(kernel: &[f32], outputs: usize) -> Self {
        let steps = weight_steps(kernel, outputs);
        let rows = kernel.chunks_exact(outputs);
        let values = rows.flat_map(|row| row.iter().zip(&steps));
        let values = values.map(|(value, step)| (value / step).round_ties_even() as i8).collect();
        Self { values, inputs: kernel.len() / 9 / outputs, outputs, steps }
    }

    pub(super) fn panels(&self) -> usize {
        self.outputs.div_ceil(PANEL)
    }

    /// `[panels, chunks, 3, 3, CHUNK / 4, PANEL, 4]` of `i8`, zeros where a panel or a chunk is not full.
    pub(super) fn taps(&self) -> Aligned {
        let panel_len = self.inputs.div_ceil(CHUNK) * 9 * CHUNK * PANEL;
        let mut packed = Aligned::zeroed_as::<i8>(self.panels() * panel_len);
        let target = packed.values_as_mut::<i8>();
        for (row, values) in self.values.chunks_exact(self.outputs).enumerate() {
            let (tap, channel) = (row / self.inputs, row % self.inputs);
            let quad = (channel / CHUNK * 9 + tap) * (CHUNK / 4) + channel % CHUNK / 4;
            for (o, value) in values.iter().enumerate() {
                target[o / PANEL * panel_len + (quad * PANEL + o % PANEL) * 4 + channel % 4] = *value;
            }
        }
        packed
    }

    /// `[panels, POSITIONS, depth / 2, PANEL, 2]` of `i16`, transformed, zeros where a panel or the
    /// depth is not full.
    pub(super) fn transformed(&self, depth: usize) -> Aligned {
        let matrix = depth * PANEL;
        let mut packed = Aligned::zeroed_as::<i16>(self.panels() * POSITIONS * matrix);
        let panels = packed.values_as_mut::<i16>().par_chunks_exact_mut(POSITIONS * matrix);
        panels.enumerate().for_each(|(panel, target)| {
            for o in 0..PANEL.min(self.outputs - panel * PANEL) {
                for channel in 0..self.inputs {
                    let tap =
                        |tap| self.values[(tap * self.inputs + channel) * self.outputs + panel * PANEL + o];
                    let values = transform_weights(std::array::from_fn(tap));
                    let at = (channel / 2 * PANEL + o) * 2 + channel % 2;
                    for (position, value) in values.into_iter().enumerate() {
                        target[position * matrix + at] = value;
                    }
                }
            }
        });
        packed
    }
}

/// What a step of each output's weights stands for: 127 steps to the largest.
fn weight_steps(kernel: &[f32], outputs: usize) -> Vec<f32> {
    let mut largest = vec![0.0_f32; outputs];
    for row in kernel.chunks_exact(outputs) {
        for (largest, value) in largest.iter_mut().zip(row) {
            *largest = largest.max(value.abs());
        }
    }
    largest.into_iter().map(|largest| if largest > 0.0 { largest / 127.0 } else { 1.0 }).collect()
}
