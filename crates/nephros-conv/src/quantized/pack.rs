//! Weights of 8 bits into the order in which products read them.

use rayon::prelude::*;

use super::{
    QuantizedKernel,
    kernel::{CHUNK, PANEL},
    tile::{POSITIONS, transform_weights},
};
use crate::memory::Aligned;

/// `[panels, chunks, 3, 3, CHUNK / 4, PANEL, 4]` of `i8`, zeros where a panel or a chunk is not full.
pub(super) fn taps(kernel: &QuantizedKernel) -> Aligned {
    let (inputs, outputs) = (kernel.inputs(), kernel.outputs());
    let panel_len = inputs.div_ceil(CHUNK) * 9 * CHUNK * PANEL;
    let mut packed = Aligned::zeroed_as::<i8>(outputs.div_ceil(PANEL) * panel_len);
    let panels = packed.values_as_mut::<i8>().par_chunks_exact_mut(panel_len);
    panels.zip(kernel.values.par_chunks(PANEL * inputs * 9)).for_each(|(panel, filters)| {
        for (o, filter) in filters.chunks_exact(inputs * 9).enumerate() {
            for (channel, taps) in filter.as_chunks::<9>().0.iter().enumerate() {
                // [chunk, tap, quad, output, channel of the quad]
                let first = channel / CHUNK * 9 * CHUNK + channel % CHUNK / 4 * 4;
                for (tap, value) in taps.iter().enumerate() {
                    panel[(first + tap * CHUNK) * PANEL + o * 4 + channel % 4] = *value;
                }
            }
        }
    });
    packed
}

/// `[panels, POSITIONS, depth / 2, PANEL, 2]` of `i16`, transformed, zeros where a panel or the
/// depth is not full.
pub(super) fn transformed(kernel: &QuantizedKernel, depth: usize) -> Aligned {
    let (inputs, outputs) = (kernel.inputs(), kernel.outputs());
    let matrix = depth * PANEL;
    let mut packed = Aligned::zeroed_as::<i16>(outputs.div_ceil(PANEL) * POSITIONS * matrix);
    let panels = packed.values_as_mut::<i16>().par_chunks_exact_mut(POSITIONS * matrix);
    panels.zip(kernel.values.par_chunks(PANEL * inputs * 9)).for_each(|(panel, filters)| {
        for (o, filter) in filters.chunks_exact(inputs * 9).enumerate() {
            for (channel, taps) in filter.as_chunks::<9>().0.iter().enumerate() {
                let at = (channel / 2 * PANEL + o) * 2 + channel % 2;
                for (position, value) in transform_weights(*taps).into_iter().enumerate() {
                    panel[position * matrix + at] = value;
                }
            }
        }
    });
    packed
}
