//! Kernels between the layout of checkpoints and those of the products.

use rayon::prelude::*;

/// Numbers of channels, as they are and as maps hold them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Channels {
    /// Input channels of the layer.
    pub(super) inputs: usize,
    /// Output channels of the layer.
    pub(super) outputs: usize,
    /// Channels of the input map, of which the first are the layer's.
    pub(super) held_inputs: usize,
    /// Channels of the output map.
    pub(super) held_outputs: usize,
}

/// Packs `[out, in, 3, 3]` for the forward pass: panels of output channels, each
/// `[3, 3 * held_inputs, columns]`.
pub(super) fn pack_forward(kernel: &[f32], channels: Channels, panel: usize, packed: &mut Vec<f32>) {
    let Channels { inputs, outputs, held_inputs, held_outputs } = channels;
    let depth = 9 * held_inputs;
    packed.resize(depth * held_outputs, 0.0);
    packed.par_chunks_mut(depth * panel).enumerate().for_each(|(index, block)| {
        let columns = block.len() / depth;
        for o in (index * panel..index * panel + columns).take_while(|&o| o < outputs) {
            for (i, taps) in kernel[o * inputs * 9..][..inputs * 9].chunks_exact(9).enumerate() {
                for (tap, value) in taps.iter().enumerate() {
                    block[(tap * held_inputs + i) * columns + o - index * panel] = *value;
                }
            }
        }
    });
}

/// Packs `[out, in, 3, 3]` for the gradient of the input, which is the convolution of the gradient
/// of the output with the kernel turned by 180 degrees: panels of input channels, each
/// `[3, 3 * held_outputs, columns]`.
pub(super) fn pack_backward(kernel: &[f32], channels: Channels, panel: usize, packed: &mut Vec<f32>) {
    let Channels { inputs, outputs, held_inputs, held_outputs } = channels;
    let depth = 9 * held_outputs;
    packed.resize(depth * held_inputs, 0.0);
    packed.par_chunks_mut(depth * panel).enumerate().for_each(|(index, block)| {
        let columns = block.len() / depth;
        for o in 0..outputs {
            for i in (index * panel..index * panel + columns).take_while(|&i| i < inputs) {
                for (tap, value) in kernel[(o * inputs + i) * 9..][..9].iter().enumerate() {
                    block[((8 - tap) * held_outputs + o) * columns + i - index * panel] = *value;
                }
            }
        }
    });
}

/// Sums of partial gradients `[3, 3, held_inputs, held_outputs]`, first to last, as
/// `[out, in, 3, 3]`. The sum is left in the first.
pub(super) fn unpack(partials: &mut [f32], channels: Channels) -> Vec<f32> {
    let Channels { inputs, outputs, held_inputs, held_outputs } = channels;
    let (sum, rest) = partials.split_at_mut(9 * held_inputs * held_outputs);
    let len = sum.len();
    let block = 3 * held_outputs;
    sum.par_chunks_mut(block).enumerate().for_each(|(index, sum)| {
        for partial in rest.chunks_exact(len) {
            for (sum, value) in sum.iter_mut().zip(&partial[index * block..]) {
                *sum += value;
            }
        }
    });
    let mut kernel = vec![0.0; outputs * inputs * 9];
    let sum = &*sum;
    kernel.par_chunks_mut(inputs * 9).enumerate().for_each(|(o, filter)| {
        for (i, taps) in filter.chunks_exact_mut(9).enumerate() {
            for (tap, value) in taps.iter_mut().enumerate() {
                *value = sum[(tap * held_inputs + i) * held_outputs + o];
            }
        }
    });
    kernel
}
