//! Statistics of the channels of a batch, and what batch norm makes of them.
#![allow(clippy::inline_always, reason = "a kernel is one function for its instruction set")]

use pulp::{Simd, WithSimd};

use super::lanes::vectors;

/// Added to the variance, as in `torch.nn.BatchNorm2d`.
pub const BATCH_NORM_EPSILON: f64 = 1e-5;

/// Mean and variance of each channel over batch, rows and columns.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchStatistics {
    /// `[channels]`.
    pub mean: Vec<f32>,
    /// `[channels]`, biased: the mean of the squared distances to the mean.
    pub variance: Vec<f32>,
}

/// Adds the sums of the values and of their squares over some rows, for each channel.
pub(super) struct Moments<'a> {
    /// `[rows, width, channels]`.
    pub(super) values: &'a [f32],
    /// Values in a row.
    pub(super) row_len: usize,
    /// `[2, channels]`.
    pub(super) sums: &'a mut [f64],
}

impl WithSimd for Moments<'_> {
    type Output = ();

    /// Squares are taken of the distance to the row's mean, which f32 holds well even where the
    /// mean is many deviations from zero; f64 moves them back to zero.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let channels = self.sums.len() / 2;
        let (first, second) = self.sums.split_at_mut(channels);
        let pixels = self.row_len / channels;
        let n = pixels as f64;
        for row in self.values.chunks_exact(self.row_len) {
            for v in 0..channels / S::F32_LANES {
                let mean = row_mean(simd, row, pixels, v);
                let moments = centered(simd, row, pixels, v, mean);
                let vectors = [mean, moments[0], moments[1]];
                let lanes: &[f32] = bytemuck::cast_slice(&vectors);
                for lane in 0..S::F32_LANES {
                    let [mean, rest, squares] = [0, 1, 2].map(|i| f64::from(lanes[i * S::F32_LANES + lane]));
                    first[v * S::F32_LANES + lane] += n * mean + rest;
                    second[v * S::F32_LANES + lane] += squares + mean * (2.0 * rest + n * mean);
                }
            }
        }
    }
}

/// Sums kept side by side, so that additions need not wait for each other.
const SUMS: usize = 4;

#[inline(always)]
fn row_mean<S: Simd>(simd: S, row: &[f32], pixels: usize, v: usize) -> S::f32s {
    let row = vectors::<S>(row);
    let n = row.len() / pixels;
    let mut sums = [simd.splat_f32s(0.0); SUMS];
    let groups = row.chunks_exact(SUMS * n);
    for pixel in groups.remainder().chunks_exact(n) {
        sums[0] = simd.add_f32s(sums[0], pixel[v]);
    }
    for group in groups {
        for (sum, pixel) in sums.iter_mut().zip(group.chunks_exact(n)) {
            *sum = simd.add_f32s(*sum, pixel[v]);
        }
    }
    simd.mul_f32s(total(simd, sums), simd.splat_f32s(1.0 / pixels as f32))
}

/// Sums of the distances to `mean` and of their squares.
#[inline(always)]
fn centered<S: Simd>(simd: S, row: &[f32], pixels: usize, v: usize, mean: S::f32s) -> [S::f32s; 2] {
    let row = vectors::<S>(row);
    let n = row.len() / pixels;
    let zero = simd.splat_f32s(0.0);
    let (mut sums, mut squares) = ([zero; SUMS], [zero; SUMS]);
    for group in row.chunks(SUMS * n) {
        let sums = sums.iter_mut().zip(&mut squares);
        for ((sum, square), pixel) in sums.zip(group.chunks_exact(n)) {
            let distance = simd.sub_f32s(pixel[v], mean);
            *sum = simd.add_f32s(*sum, distance);
            *square = simd.mul_add_e_f32s(distance, distance, *square);
        }
    }
    [total(simd, sums), total(simd, squares)]
}

#[inline(always)]
fn total<S: Simd>(simd: S, sums: [S::f32s; SUMS]) -> S::f32s {
    simd.add_f32s(simd.add_f32s(sums[0], sums[1]), simd.add_f32s(sums[2], sums[3]))
}

/// The norm of a batch: `y = scale * z + shift`, channel by channel. Channels that a map holds
/// beyond those of the layer have scale and shift zero.
#[derive(Debug, Default)]
pub(super) struct Norm {
    /// `[held_channels]`.
    pub(super) scale: Vec<f32>,
    /// `[held_channels]`.
    pub(super) shift: Vec<f32>,
    /// `[held_channels]`; zeros without a norm.
    pub(super) mean: Vec<f32>,
    /// `[channels]`, empty without a norm.
    variance: Vec<f64>,
}

impl Norm {
    /// No norm: the values as they are.
    pub(super) fn set_identity(&mut self, channels: usize, held: usize) {
        *self = Self { scale: vec![1.0; held], shift: vec![0.0; held], ..Self::default() };
        self.scale[channels..].fill(0.0);
        self.mean.resize(held, 0.0);
    }

    /// From the sums of each image, `[batch, 2, held_channels]`, over `count` values a channel.
    pub(super) fn set(&mut self, (weight, bias): (&[f32], &[f32]), sums: &[f64], count: f64) {
        let (channels, totals) = (weight.len(), total_of_images(sums, self.mean.len()));
        let (first, second) = totals.split_at(self.mean.len());
        self.variance.clear();
        for c in 0..channels {
            let mean = first[c] / count;
            let variance = (second[c] / count - mean * mean).max(0.0);
            let scale = f64::from(weight[c]) / (variance + BATCH_NORM_EPSILON).sqrt();
            self.scale[c] = scale as f32;
            self.shift[c] = (f64::from(bias[c]) - mean * scale) as f32;
            self.mean[c] = mean as f32;
            self.variance.push(variance);
        }
    }

    /// Mean and variance, `None` without a norm.
    pub(super) fn statistics(&self) -> Option<BatchStatistics> {
        let channels = self.variance.len();
        (channels > 0).then(|| BatchStatistics {
            mean: self.mean[..channels].to_vec(),
            variance: self.variance.iter().map(|&value| value as f32).collect(),
        })
    }

    /// The gradient of the loss by `y`, from its sums over each image, `[batch, 2, held_channels]`:
    /// that of `y` and that of `y * (z - mean)`.
    ///
    /// Source: <https://arxiv.org/abs/1502.03167>, section 3.
    pub(super) fn backward(&self, sums: &[f64], count: f64) -> NormBackward {
        let held = self.mean.len();
        let totals = total_of_images(sums, held);
        let (first, second) = totals.split_at(held);
        let mut backward = NormBackward {
            weight: Vec::with_capacity(self.variance.len()),
            bias: first.iter().map(|&sum| sum as f32).collect(),
            offset: vec![0.0; held],
            slope: vec![0.0; held],
        };
        for (c, variance) in self.variance.iter().enumerate() {
            let deviation = (variance + BATCH_NORM_EPSILON).sqrt();
            let normalized = second[c] / deviation;
            let scale = f64::from(self.scale[c]);
            let slope = -scale * normalized / (count * deviation);
            backward.weight.push(normalized as f32);
            backward.slope[c] = slope as f32;
            backward.offset[c] = (-scale * first[c] / count - slope * f64::from(self.mean[c])) as f32;
        }
        backward
    }
}

/// Gradients of a norm, and those of its input as `offset + slope * z + scale * dy`.
pub(super) struct NormBackward {
    /// Gradient of the weight, `[channels]`; empty without a norm.
    pub(super) weight: Vec<f32>,
    /// Gradient of the bias, `[held_channels]`; without a norm that of the convolution's bias.
    pub(super) bias: Vec<f32>,
    /// `[held_channels]`.
    pub(super) offset: Vec<f32>,
    /// `[held_channels]`.
    pub(super) slope: Vec<f32>,
}

/// Sums over the images, first to last.
fn total_of_images(sums: &[f64], held: usize) -> Vec<f64> {
    let mut totals = vec![0.0; 2 * held];
    for image in sums.chunks_exact(2 * held) {
        for (total, sum) in totals.iter_mut().zip(image) {
            *total += sum;
        }
    }
    totals
}
