//! The 3×3 convolution of rows of a bordered map, and the gradient of its kernel.
//!
//! Both are matrix products whose left operand is never written out: a window of three pixels of a
//! row is contiguous, so the nine taps are three runs. A tile of results stays in registers while
//! one value of the map at a time is spread over a vector and multiplied with vectors of the other
//! operand. Channels of the result are the vector's axis.
#![allow(clippy::inline_always, reason = "a kernel is one function for its instruction set")]

use pulp::{Simd, WithSimd};

use super::{
    lanes::{vectors, vectors_mut},
    map::Map,
};

/// Steps of the sum that a tile takes at a time: with two vectors of the widest set, 18 KiB of
/// kernel, which stay in the first-level cache over all tiles of a block of rows.
const CHUNK: usize = 144;

/// Vectors of a panel of the packed kernel; a last panel may be one vector wide.
const PANEL_VECTORS: usize = 2;

/// Columns of a panel of the packed kernel on this machine.
pub(super) fn panel_columns() -> usize {
    struct Lanes;
    impl WithSimd for Lanes {
        type Output = usize;
        fn with_simd<S: Simd>(self, _: S) -> usize {
            S::F32_LANES
        }
    }
    PANEL_VECTORS * pulp::Arch::new().dispatch(Lanes)
}

/// A convolution of some rows.
pub(super) struct Convolve<'a> {
    /// Shape of the map that is read.
    pub(super) input: Map,
    /// Bordered, from the row above the first output row on.
    pub(super) source: &'a [f32],
    /// Packed: panels of columns, each `[3, 3 * in_channels, columns]`.
    pub(super) kernel: &'a [f32],
    /// `[out_channels]`.
    pub(super) bias: &'a [f32],
    /// `[rows, width, out_channels]`.
    pub(super) target: &'a mut [f32],
}

impl WithSimd for Convolve<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (lanes, outputs) = (S::F32_LANES, self.bias.len());
        let depth = 3 * self.input.channels;
        let (chunk_rows, count) = if 3 * depth <= CHUNK { (3, 1) } else { (1, depth.div_ceil(CHUNK)) };
        let step = depth.div_ceil(count);
        let mut column = 0;
        while column < outputs {
            let columns = (PANEL_VECTORS * lanes).min(outputs - column);
            let kernel = &self.kernel[3 * depth * column..][..3 * depth * columns];
            for first_ky in (0..3).step_by(chunk_rows) {
                for k in (0..depth).step_by(step) {
                    let taps = Taps {
                        kernel_rows: (first_ky, first_ky + chunk_rows),
                        steps: (k, depth.min(k + step)),
                        depth,
                    };
                    let bias = (first_ky == 0 && k == 0).then(|| &self.bias[column..column + columns]);
                    let panel = Panel { kernel, column, outputs, bias };
                    if columns == lanes {
                        panel_rows::<S, 1>(simd, self.input, self.source, &taps, &panel, self.target);
                    } else {
                        panel_rows::<S, 2>(simd, self.input, self.source, &taps, &panel, self.target);
                    }
                }
            }
            column += columns;
        }
    }
}

/// The part of the sum that is taken at a time.
struct Taps {
    /// Kernel rows `[start, end)`.
    kernel_rows: (usize, usize),
    /// Positions `[start, end)` among the `3 * in_channels` of a kernel row.
    steps: (usize, usize),
    /// `3 * in_channels`.
    depth: usize,
}

/// The output channels that are computed at a time.
struct Panel<'a> {
    /// `[3, depth, columns]`.
    kernel: &'a [f32],
    /// First output channel.
    column: usize,
    /// All output channels.
    outputs: usize,
    /// What a sum starts with; without it, it goes on from the target.
    bias: Option<&'a [f32]>,
}

#[inline(always)]
fn panel_rows<S: Simd, const V: usize>(
    simd: S,
    input: Map,
    source: &[f32],
    taps: &Taps,
    panel: &Panel<'_>,
    target: &mut [f32],
) {
    for (row, target) in target.chunks_exact_mut(input.width * panel.outputs).enumerate() {
        let source = &source[row * input.stride()..];
        let mut x = 0;
        while x < input.width {
            let window = &source[x * input.channels..];
            let pixels = &mut target[x * panel.outputs..];
            x += match input.width - x {
                8.. => tile::<S, 8, V>(simd, input, window, taps, panel, pixels),
                4.. => tile::<S, 4, V>(simd, input, window, taps, panel, pixels),
                2.. => tile::<S, 2, V>(simd, input, window, taps, panel, pixels),
                _ => tile::<S, 1, V>(simd, input, window, taps, panel, pixels),
            };
        }
    }
}

/// `P` neighbouring pixels by `V` vectors of output channels; returns `P`.
#[inline(always)]
fn tile<S: Simd, const P: usize, const V: usize>(
    simd: S,
    input: Map,
    window: &[f32],
    taps: &Taps,
    panel: &Panel<'_>,
    target: &mut [f32],
) -> usize {
    let lanes = S::F32_LANES;
    let mut sums = [[simd.splat_f32s(0.0); V]; P];
    for (p, sums) in sums.iter_mut().enumerate() {
        let start = match panel.bias {
            Some(bias) => vectors::<S>(bias),
            None => vectors::<S>(&target[p * panel.outputs + panel.column..][..V * lanes]),
        };
        sums.copy_from_slice(&start[..V]);
    }
    let (first, last) = taps.steps;
    let len = last - first;
    for ky in taps.kernel_rows.0..taps.kernel_rows.1 {
        let run = &window[ky * input.stride() + first..];
        let mut pixels = [run; P];
        for (p, pixel) in pixels.iter_mut().enumerate() {
            *pixel = &run[p * input.channels..][..len];
        }
        let kernel = &panel.kernel[(ky * taps.depth + first) * V * lanes..][..len * V * lanes];
        for (k, weights) in vectors::<S>(kernel).chunks_exact(V).enumerate().take(len) {
            for (sums, pixel) in sums.iter_mut().zip(&pixels) {
                let value = simd.splat_f32s(pixel[k]);
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum = simd.mul_add_e_f32s(value, *weight, *sum);
                }
            }
        }
    }
    for (p, sums) in sums.iter().enumerate() {
        let target = &mut target[p * panel.outputs + panel.column..][..V * lanes];
        vectors_mut::<S>(target).copy_from_slice(sums);
    }
    P
}

/// Adds the gradient of the kernel over some rows to what is there.
pub(super) struct KernelGradient<'a> {
    /// Shape of the map that the convolution reads.
    pub(super) input: Map,
    /// The map, bordered, from the row above the first row of `gradient` on.
    pub(super) source: &'a [f32],
    /// Gradient of the convolution's result: rows of `[width, out_channels]`, with room for a
    /// pixel after each.
    pub(super) gradient: &'a [f32],
    /// Rows of `gradient`.
    pub(super) rows: usize,
    /// Output channels.
    pub(super) outputs: usize,
    /// `[3, 3 * in_channels, out_channels]`.
    pub(super) target: &'a mut [f32],
}

impl WithSimd for KernelGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let (lanes, depth) = (S::F32_LANES, 3 * self.input.channels);
        for ky in 0..3 {
            let mut k = 0;
            while k < depth {
                let mut column = 0;
                let mut taken = 0;
                while column < self.outputs {
                    let at = (ky, k, column);
                    if self.outputs - column >= 2 * lanes {
                        taken = self.taps::<S, 2>(simd, at, depth - k);
                        column += 2 * lanes;
                    } else {
                        taken = self.taps::<S, 1>(simd, at, depth - k);
                        column += lanes;
                    }
                }
                k += taken;
            }
        }
    }
}

impl KernelGradient<'_> {
    /// Picks the size of the tile; 9 is a kernel row over RGB. Returns it.
    #[inline(always)]
    fn taps<S: Simd, const V: usize>(&mut self, simd: S, at: (usize, usize, usize), left: usize) -> usize {
        match left {
            12.. => self.tile::<S, 12, V>(simd, at),
            9.. => self.tile::<S, 9, V>(simd, at),
            4.. => self.tile::<S, 4, V>(simd, at),
            _ => self.tile::<S, 1, V>(simd, at),
        }
    }

    /// `K` neighbouring taps by `V` vectors of output channels, summed over the pixels.
    #[inline(always)]
    fn tile<S: Simd, const K: usize, const V: usize>(
        &mut self,
        simd: S,
        (ky, k, column): (usize, usize, usize),
    ) -> usize {
        let (lanes, input, outputs) = (S::F32_LANES, self.input, self.outputs);
        let first = (ky * 3 * input.channels + k) * outputs + column;
        let mut sums = [[simd.splat_f32s(0.0); V]; K];
        for (tap, sums) in sums.iter_mut().enumerate() {
            let start = &self.target[first + tap * outputs..][..V * lanes];
            sums.copy_from_slice(vectors::<S>(start));
        }
        for row in 0..self.rows {
            let windows = &self.source[(row + ky) * input.stride() + k..];
            let gradient = &self.gradient[row * (input.width + 1) * outputs + column..];
            for x in 0..input.width {
                let window = &windows[x * input.channels..][..K];
                let gradient = vectors::<S>(&gradient[x * outputs..][..V * lanes]);
                let mut across = [simd.splat_f32s(0.0); V];
                across.copy_from_slice(gradient);
                for (sums, value) in sums.iter_mut().zip(window) {
                    let value = simd.splat_f32s(*value);
                    for (sum, gradient) in sums.iter_mut().zip(across) {
                        *sum = simd.mul_add_e_f32s(value, gradient, *sum);
                    }
                }
            }
        }
        for (tap, sums) in sums.iter().enumerate() {
            let target = &mut self.target[first + tap * outputs..][..V * lanes];
            vectors_mut::<S>(target).copy_from_slice(sums);
        }
        K
    }
}
