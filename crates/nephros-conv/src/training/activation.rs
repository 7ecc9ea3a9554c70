//! Batch norm, ReLU and 2×2 maximum in one pass, forward and backward.
//!
//! The norm of a channel is `y = scale * z + shift`, whatever the statistics are; a layer without
//! one has scale 1 and shift 0.
#![allow(clippy::inline_always, reason = "a kernel is one function for its instruction set")]

use pulp::{Simd, WithSimd};

use super::{
    lanes::{vectors, vectors_mut},
    map::Map,
};

/// What follows a convolution.
#[derive(Clone, Copy)]
pub(super) struct Activation<'a> {
    /// The convolution's result.
    pub(super) map: Map,
    /// Whether a 2×2 maximum follows; an odd last row or column is dropped.
    pub(super) pool: bool,
    /// `[channels]`.
    pub(super) scale: &'a [f32],
    /// `[channels]`.
    pub(super) shift: &'a [f32],
}

impl Activation<'_> {
    /// The map after pooling.
    pub(super) fn output(&self) -> Map {
        if self.pool { pooled(self.map) } else { self.map }
    }
}

/// Half of the rows and columns.
pub(super) fn pooled(map: Map) -> Map {
    Map { height: map.height / 2, width: map.width / 2, ..map }
}

/// The forward pass of one image.
pub(super) struct Activate<'a> {
    pub(super) activation: Activation<'a>,
    /// The convolution's result, dense.
    pub(super) convolved: &'a [f32],
    /// From the first row's first pixel on.
    pub(super) target: &'a mut [f32],
    /// Values from a row of the target to the next.
    pub(super) target_stride: usize,
}

impl WithSimd for Activate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { activation, convolved, target, target_stride } = self;
        let row_len = activation.map.row_len();
        let output_len = activation.output().row_len();
        if activation.pool {
            let rows = convolved.chunks_exact(2 * row_len).zip(target.chunks_mut(target_stride));
            for (pair, target) in rows {
                let (upper, lower) = pair.split_at(row_len);
                pooled_row(simd, &activation, upper, lower, &mut target[..output_len]);
            }
        } else {
            let rows = convolved.chunks_exact(row_len).zip(target.chunks_mut(target_stride));
            for (row, target) in rows {
                plain_row(simd, &activation, row, &mut target[..output_len]);
            }
        }
    }
}

#[inline(always)]
fn plain_row<S: Simd>(simd: S, activation: &Activation<'_>, row: &[f32], target: &mut [f32]) {
    let channels = activation.map.channels;
    let (scale, shift) = (vectors::<S>(activation.scale), vectors::<S>(activation.shift));
    let zero = simd.splat_f32s(0.0);
    for (pixel, target) in row.chunks_exact(channels).zip(target.chunks_exact_mut(channels)) {
        let values = vectors::<S>(pixel).iter().zip(vectors_mut::<S>(target));
        for ((z, target), (scale, shift)) in values.zip(scale.iter().zip(shift)) {
            *target = simd.max_f32s(simd.mul_add_e_f32s(*scale, *z, *shift), zero);
        }
    }
}

#[inline(always)]
fn pooled_row<S: Simd>(
    simd: S,
    activation: &Activation<'_>,
    upper: &[f32],
    lower: &[f32],
    target: &mut [f32],
) {
    let channels = activation.map.channels;
    let (scale, shift) = (vectors::<S>(activation.scale), vectors::<S>(activation.shift));
    let zero = simd.splat_f32s(0.0);
    let pairs = upper.chunks_exact(2 * channels).zip(lower.chunks_exact(2 * channels));
    for ((upper, lower), target) in pairs.zip(target.chunks_exact_mut(channels)) {
        let corners = Corners::<S>::new(upper, lower, channels);
        let affine = scale.iter().zip(shift);
        for (v, (target, (scale, shift))) in vectors_mut::<S>(target).iter_mut().zip(affine).enumerate() {
            let y = affine_corners(simd, corners.at(v), *scale, *shift);
            *target = simd.max_f32s(maximum(simd, y), zero);
        }
    }
}

/// The four pixels under a 2×2 maximum, in scan order.
struct Corners<'a, S: Simd>([&'a [S::f32s]; 4]);

impl<'a, S: Simd> Corners<'a, S> {
    /// From two pixels of each row.
    #[inline(always)]
    fn new(upper: &'a [f32], lower: &'a [f32], channels: usize) -> Self {
        let (a, b) = upper.split_at(channels);
        let (c, d) = lower.split_at(channels);
        Self([vectors::<S>(a), vectors::<S>(b), vectors::<S>(c), vectors::<S>(d)])
    }

    #[inline(always)]
    fn at(&self, v: usize) -> [S::f32s; 4] {
        [self.0[0][v], self.0[1][v], self.0[2][v], self.0[3][v]]
    }
}

#[inline(always)]
fn affine_corners<S: Simd>(simd: S, z: [S::f32s; 4], scale: S::f32s, shift: S::f32s) -> [S::f32s; 4] {
    [
        simd.mul_add_e_f32s(scale, z[0], shift),
        simd.mul_add_e_f32s(scale, z[1], shift),
        simd.mul_add_e_f32s(scale, z[2], shift),
        simd.mul_add_e_f32s(scale, z[3], shift),
    ]
}

#[inline(always)]
fn maximum<S: Simd>(simd: S, y: [S::f32s; 4]) -> S::f32s {
    simd.max_f32s(simd.max_f32s(y[0], y[1]), simd.max_f32s(y[2], y[3]))
}

/// Sums over one image that the gradient of a batch norm needs: of the gradient of its result, and
/// of that times `z - mean`.
pub(super) struct Reduce<'a> {
    pub(super) activation: Activation<'a>,
    /// `[channels]`, what is taken off `z`.
    pub(super) mean: &'a [f32],
    /// The convolution's result, dense.
    pub(super) convolved: &'a [f32],
    /// Gradient of what the activation made of it, dense.
    pub(super) gradient: &'a [f32],
    /// `[2, channels]`; rows are summed in f32, and added here.
    pub(super) sums: &'a mut [f64],
}

impl WithSimd for Reduce<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let row_len = self.activation.map.row_len();
        let output = self.activation.output();
        let step = if self.activation.pool { 2 * row_len } else { row_len };
        let rows = self.convolved.chunks_exact(step).zip(self.gradient.chunks_exact(output.row_len()));
        let (first, second) = self.sums.split_at_mut(output.channels);
        for (row, gradient) in rows {
            for v in 0..output.channels / S::F32_LANES {
                let sums = if self.activation.pool {
                    let (upper, lower) = row.split_at(row_len);
                    reduce_pooled(simd, &self.activation, self.mean, [upper, lower, gradient], v)
                } else {
                    reduce_plain(simd, &self.activation, self.mean, [row, gradient], v)
                };
                add_lanes::<S>(sums[0], &mut first[v * S::F32_LANES..]);
                add_lanes::<S>(sums[1], &mut second[v * S::F32_LANES..]);
            }
        }
    }
}

/// Adds the lanes of a vector to as many sums.
#[inline(always)]
pub(super) fn add_lanes<S: Simd>(vector: S::f32s, sums: &mut [f64]) {
    let lanes = [vector];
    let lanes: &[f32] = bytemuck::cast_slice(&lanes);
    for (sum, value) in sums.iter_mut().zip(lanes) {
        *sum += f64::from(*value);
    }
}

#[inline(always)]
fn reduce_plain<S: Simd>(
    simd: S,
    activation: &Activation<'_>,
    mean: &[f32],
    [row, gradient]: [&[f32]; 2],
    v: usize,
) -> [S::f32s; 2] {
    let vectors_per_pixel = activation.map.channels / S::F32_LANES;
    let (scale, shift) = (vectors::<S>(activation.scale)[v], vectors::<S>(activation.shift)[v]);
    let (mean, zero) = (vectors::<S>(mean)[v], simd.splat_f32s(0.0));
    let mut sums = [zero; 2];
    let z = vectors::<S>(row).chunks_exact(vectors_per_pixel);
    for (z, gradient) in z.zip(vectors::<S>(gradient).chunks_exact(vectors_per_pixel)) {
        let y = simd.mul_add_e_f32s(scale, z[v], shift);
        let dy = simd.select_f32s(simd.greater_than_f32s(y, zero), gradient[v], zero);
        sums[0] = simd.add_f32s(sums[0], dy);
        sums[1] = simd.mul_add_e_f32s(dy, simd.sub_f32s(z[v], mean), sums[1]);
    }
    sums
}

#[inline(always)]
fn reduce_pooled<S: Simd>(
    simd: S,
    activation: &Activation<'_>,
    mean: &[f32],
    [upper, lower, gradient]: [&[f32]; 3],
    v: usize,
) -> [S::f32s; 2] {
    let n = activation.map.channels / S::F32_LANES;
    let (scale, shift) = (vectors::<S>(activation.scale)[v], vectors::<S>(activation.shift)[v]);
    let (mean, zero) = (vectors::<S>(mean)[v], simd.splat_f32s(0.0));
    let mut sums = [zero; 2];
    let upper = vectors::<S>(upper).chunks_exact(2 * n);
    let lower = vectors::<S>(lower).chunks_exact(2 * n);
    for ((upper, lower), gradient) in upper.zip(lower).zip(vectors::<S>(gradient).chunks_exact(n)) {
        let z = [upper[v], upper[v + n], lower[v], lower[v + n]];
        let y = affine_corners(simd, z, scale, shift);
        let best = maximum(simd, y);
        // From the last corner to the first, so that the first of equals stays.
        let mut chosen = z[3];
        for corner in [2, 1, 0] {
            chosen = simd.select_f32s(simd.equal_f32s(y[corner], best), z[corner], chosen);
        }
        let dy = simd.select_f32s(simd.greater_than_f32s(best, zero), gradient[v], zero);
        sums[0] = simd.add_f32s(sums[0], dy);
        sums[1] = simd.mul_add_e_f32s(dy, simd.sub_f32s(chosen, mean), sums[1]);
    }
    sums
}

/// The gradient of the convolution's result over some rows:
/// `dz = offset + slope * z + scale * dy`, with `dy` the gradient behind ReLU and pooling.
pub(super) struct Differentiate<'a> {
    pub(super) activation: Activation<'a>,
    /// `[channels]`.
    pub(super) offset: &'a [f32],
    /// `[channels]`.
    pub(super) slope: &'a [f32],
    /// Rows of the convolution's result, dense; the first has an even number where pooling follows.
    pub(super) convolved: &'a [f32],
    /// Gradient of what the activation made of them, dense.
    pub(super) gradient: &'a [f32],
    /// Rows with room for a pixel after each, from the first row's first pixel on.
    pub(super) target: &'a mut [f32],
}

impl WithSimd for Differentiate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let map = self.activation.map;
        let (row_len, stride) = (map.row_len(), map.stride());
        let output_len = self.activation.output().row_len();
        let channel = Channelwise::<S> {
            scale: vectors::<S>(self.activation.scale),
            shift: vectors::<S>(self.activation.shift),
            offset: vectors::<S>(self.offset),
            slope: vectors::<S>(self.slope),
        };
        if !self.activation.pool {
            let rows = self.convolved.chunks_exact(row_len).zip(self.gradient.chunks_exact(output_len));
            for ((z, gradient), target) in rows.zip(self.target.chunks_mut(stride)) {
                channel.plain_row(simd, z, gradient, &mut target[..row_len]);
            }
            return;
        }
        let mut gradients = self.gradient.chunks_exact(output_len);
        for (z, target) in self.convolved.chunks(2 * row_len).zip(self.target.chunks_mut(2 * stride)) {
            let (upper, lower) = z.split_at(row_len);
            let (upper_target, lower_target) = target.split_at_mut(stride.min(target.len()));
            if lower.is_empty() {
                channel.dropped(simd, upper, &mut upper_target[..row_len]);
            } else if let Some(gradient) = gradients.next() {
                let targets = (&mut upper_target[..row_len], &mut lower_target[..row_len]);
                channel.pooled_rows(simd, (upper, lower), gradient, targets);
            }
        }
    }
}

/// What [`Differentiate`] does to each channel.
struct Channelwise<'a, S: Simd> {
    scale: &'a [S::f32s],
    shift: &'a [S::f32s],
    offset: &'a [S::f32s],
    slope: &'a [S::f32s],
}

impl<S: Simd> Channelwise<'_, S> {
    #[inline(always)]
    fn plain_row(&self, simd: S, z: &[f32], gradient: &[f32], target: &mut [f32]) {
        let n = self.scale.len();
        let zero = simd.splat_f32s(0.0);
        let pixels = vectors::<S>(z).chunks_exact(n).zip(vectors::<S>(gradient).chunks_exact(n));
        for ((z, gradient), target) in pixels.zip(vectors_mut::<S>(target).chunks_exact_mut(n)) {
            for v in 0..n {
                let y = simd.mul_add_e_f32s(self.scale[v], z[v], self.shift[v]);
                let dy = simd.select_f32s(simd.greater_than_f32s(y, zero), gradient[v], zero);
                let rest = simd.mul_add_e_f32s(self.slope[v], z[v], self.offset[v]);
                target[v] = simd.mul_add_e_f32s(self.scale[v], dy, rest);
            }
        }
    }

    /// Pixels that no pooling reads: `dy` is zero.
    #[inline(always)]
    fn dropped(&self, simd: S, z: &[f32], target: &mut [f32]) {
        let n = self.scale.len();
        for (z, target) in vectors::<S>(z).chunks_exact(n).zip(vectors_mut::<S>(target).chunks_exact_mut(n)) {
            for v in 0..n {
                target[v] = simd.mul_add_e_f32s(self.slope[v], z[v], self.offset[v]);
            }
        }
    }

    #[inline(always)]
    fn pooled_rows(
        &self,
        simd: S,
        (upper, lower): (&[f32], &[f32]),
        gradient: &[f32],
        (upper_target, lower_target): (&mut [f32], &mut [f32]),
    ) {
        let n = self.scale.len();
        let zero = simd.splat_f32s(0.0);
        let z = vectors::<S>(upper).chunks_exact(2 * n).zip(vectors::<S>(lower).chunks_exact(2 * n));
        let targets = vectors_mut::<S>(upper_target)
            .chunks_exact_mut(2 * n)
            .zip(vectors_mut::<S>(lower_target).chunks_exact_mut(2 * n));
        let pixels = z.zip(vectors::<S>(gradient).chunks_exact(n)).zip(targets);
        for (((upper, lower), gradient), (upper_target, lower_target)) in pixels {
            for v in 0..n {
                let z = [upper[v], upper[v + n], lower[v], lower[v + n]];
                let y = affine_corners(simd, z, self.scale[v], self.shift[v]);
                let best = maximum(simd, y);
                let scaled = simd.mul_f32s(self.scale[v], gradient[v]);
                // What is still to be given to the first corner that holds the maximum.
                let mut left = simd.select_f32s(simd.greater_than_f32s(best, zero), scaled, zero);
                let mut dz = [zero; 4];
                for ((dz, z), y) in dz.iter_mut().zip(z).zip(y) {
                    let holds = simd.equal_f32s(y, best);
                    let rest = simd.mul_add_e_f32s(self.slope[v], z, self.offset[v]);
                    *dz = simd.add_f32s(rest, simd.select_f32s(holds, left, zero));
                    left = simd.select_f32s(holds, zero, left);
                }
                [upper_target[v], upper_target[v + n], lower_target[v], lower_target[v + n]] = dz;
            }
        }
        self.last_column(simd, upper, upper_target);
        self.last_column(simd, lower, lower_target);
    }

    /// The column that pooling drops from a row of odd width.
    #[inline(always)]
    fn last_column(&self, simd: S, row: &[f32], target: &mut [f32]) {
        let channels = self.scale.len() * S::F32_LANES;
        let from = row.len() - row.len() % (2 * channels);
        self.dropped(simd, &row[from..], &mut target[from..]);
    }
}
