//! One 3×3 convolution on 8-bit maps.

use std::ops::Range;

use rayon::prelude::*;

use super::{
    QuantizedKernel,
    kernel::{CHUNK, Multiplier, PANEL, RUN, Sums, Window},
};
use crate::{Shape, memory::SharedMap};

/// Adding it to a float between 0 and 2^22 leaves the nearest integer, ties to even, in the low
/// bits.
const ROUND: f32 = 12_582_912.0;
/// Tasks for each thread, so that one that is held up does not hold up all.
const TASKS_PER_THREAD: usize = 4;

/// An 8-bit map between layers: `[chunks, height + 2, width + 2, CHUNK]`, zeros around each chunk's
/// pixels and for the channels that fill the last chunk.
#[derive(Debug, Clone, Copy)]
pub(super) struct MapLayout(pub(super) Shape);

impl MapLayout {
    pub(super) fn chunks(self) -> usize {
        self.0.channels.div_ceil(CHUNK)
    }

    pub(super) fn row_stride(self) -> usize {
        (self.0.width + 2) * CHUNK
    }

    pub(super) fn chunk_stride(self) -> usize {
        (self.0.height + 2) * self.row_stride()
    }

    pub(super) fn len(self) -> usize {
        self.chunks() * self.chunk_stride()
    }

    /// Position of a pixel of a chunk.
    pub(super) fn at(self, chunk: usize, y: usize, x: usize) -> usize {
        chunk * self.chunk_stride() + (y + 1) * self.row_stride() + (x + 1) * CHUNK
    }

    /// Writes the zeros around the pixels.
    pub(super) fn clear_border(self, map: &mut [u8]) {
        let stride = self.row_stride();
        for chunk in map.chunks_exact_mut(self.chunk_stride()) {
            let rows = self.0.height + 1;
            chunk[..stride].fill(0);
            chunk[rows * stride..].fill(0);
            for row in chunk.chunks_exact_mut(stride) {
                row[..CHUNK].fill(0);
                row[stride - CHUNK..].fill(0);
            }
        }
    }

    /// Quantises a `[height, width, channels]` map that holds no negative values: `value * scale`,
    /// rounded.
    pub(super) fn quantize(self, values: &[f32], scale: f32, map: &mut [u8]) {
        self.clear_border(map);
        let Shape { width, channels, .. } = self.0;
        let (stride, chunk_stride) = (self.row_stride(), self.chunk_stride());
        for (chunk, map) in map.chunks_exact_mut(chunk_stride).enumerate() {
            let (first, count) = (chunk * CHUNK, CHUNK.min(channels - chunk * CHUNK));
            let rows = map[stride..].par_chunks_exact_mut(stride);
            rows.zip(values.par_chunks_exact(width * channels)).for_each(|(row, values)| {
                let pixels = row[CHUNK..].chunks_exact_mut(CHUNK).zip(values.chunks_exact(channels));
                for (pixel, values) in pixels {
                    pixel[count..].fill(0);
                    for (target, value) in pixel.iter_mut().zip(&values[first..first + count]) {
                        *target = to_u8(value * scale);
                    }
                }
            });
        }
    }
}

/// The nearest integer, ties to even, between 0 and 255.
#[inline]
fn to_u8(value: f32) -> u8 {
    (value.clamp(0.0, 255.0) + ROUND).to_bits() as u8
}

/// Where a layer writes.
pub(super) enum Target<'a> {
    /// The next layer's 8-bit map.
    Map(&'a mut [u8]),
    /// `[height, width, channels]` floats.
    Floats(&'a mut [f32]),
}

/// A compiled layer.
pub(super) struct QuantizedLayer {
    pub(super) input: MapLayout,
    pub(super) output: MapLayout,
    pub(super) pool: bool,
    pub(super) multiplier: Multiplier,
    /// `[panels, chunks, 3, 3, CHUNK / 4, PANEL, 4]`
    weights: Vec<i8>,
    /// What a sum is multiplied by, and what is added then, to give the output's steps.
    scale: Vec<f32>,
    bias: Vec<f32>,
}

impl QuantizedLayer {
    /// A step of the input stands for `input_step`, a step of the output for `output_step`.
    pub(super) fn new(
        (input, output): (Shape, Shape),
        kernel: &QuantizedKernel,
        bias: &[f32],
        (input_step, output_step): (f32, f32),
        multiplier: Multiplier,
    ) -> Self {
        let outputs = bias.len();
        let (input, layout) = (MapLayout(input), MapLayout(output));
        let panels = outputs.div_ceil(PANEL);
        let padded = |values: Vec<f32>| -> Vec<f32> {
            values.into_iter().chain(std::iter::repeat(0.0)).take(panels * PANEL).collect()
        };
        let scale = padded(kernel.steps.iter().map(|step| step * input_step / output_step).collect());
        let bias = padded(bias.iter().map(|bias| bias / output_step).collect());
        let weights = pack(input, &kernel.values, outputs);
        Self { input, output: layout, pool: false, multiplier, weights, scale, bias }
    }

    /// Puts 2×2 pooling after the convolution; `output` is the shape after it.
    pub(super) fn add_pool(&mut self, output: Shape) {
        (self.output, self.pool) = (MapLayout(output), true);
    }

    /// Runs one image, on the threads of the current rayon pool.
    pub(super) fn run(&self, source: &[u8], target: Target<'_>) {
        let height = self.output.0.height;
        let chunks = self.output.chunks();
        let tasks = TASKS_PER_THREAD * rayon::current_num_threads();
        let strips = tasks.div_ceil(chunks).clamp(1, height);
        let rows = |task: usize| {
            let strip = task % strips;
            height * strip / strips..height * (strip + 1) / strips
        };
        let tasks = (0..chunks * strips).into_par_iter();
        match target {
            Target::Map(map) => {
                self.output.clear_border(map);
                let map = SharedMap::new(map);
                tasks.for_each(|task| self.rows_to_map(source, task / strips, rows(task), &map));
            }
            Target::Floats(values) => {
                let map = SharedMap::new(values);
                tasks.for_each(|task| self.rows_to_floats(source, task / strips, rows(task), &map));
            }
        }
    }

    #[allow(unsafe_code, reason = "writes a map that threads share")]
    fn rows_to_map(&self, source: &[u8], chunk: usize, rows: Range<usize>, map: &SharedMap<'_, u8>) {
        let offset = |panel: usize| panel * PANEL % CHUNK;
        for panel in [2 * chunk, 2 * chunk + 1] {
            self.panel(source, panel, rows.clone(), |y, x, values| {
                let start = self.output.at(chunk, y, x) + offset(panel);
                // SAFETY: no other task has this chunk of these rows.
                let pixel = unsafe { map.part(start..start + PANEL) };
                for (target, value) in pixel.iter_mut().zip(values) {
                    *target = to_u8(*value);
                }
            });
        }
    }

    #[allow(unsafe_code, reason = "writes a map that threads share")]
    fn rows_to_floats(&self, source: &[u8], chunk: usize, rows: Range<usize>, map: &SharedMap<'_, f32>) {
        let Shape { width, channels, .. } = self.output.0;
        for panel in [2 * chunk, 2 * chunk + 1] {
            let count = PANEL.min(channels.saturating_sub(panel * PANEL));
            if count == 0 {
                continue;
            }
            self.panel(source, panel, rows.clone(), |y, x, values| {
                let start = (y * width + x) * channels + panel * PANEL;
                // SAFETY: no other task has this chunk of these rows.
                let pixel = unsafe { map.part(start..start + count) };
                for (target, value) in pixel.iter_mut().zip(values) {
                    *target = value.max(0.0);
                }
            });
        }
    }

    /// Computes some rows of one panel and hands each pixel's values, in steps, to `write`. Zeros
    /// for a panel that only fills a chunk.
    fn panel(
        &self,
        source: &[u8],
        panel: usize,
        rows: Range<usize>,
        mut write: impl FnMut(usize, usize, &[f32; PANEL]),
    ) {
        let width = self.output.0.width;
        let taps = self.input.chunks() * 9 * CHUNK * PANEL;
        let Some(weights) = self.weights.get(panel * taps..(panel + 1) * taps) else {
            for y in rows {
                (0..width).for_each(|x| write(y, x, &[0.0; PANEL]));
            }
            return;
        };
        let shrink = if self.pool { 2 } else { 1 };
        let runs = (width * shrink).div_ceil(RUN / shrink * shrink);
        for y in rows {
            for run in 0..runs {
                let columns = width * run / runs..width * (run + 1) / runs;
                let mut sums = [[0; PANEL]; RUN];
                self.sums(
                    source,
                    weights,
                    (y * shrink, columns.start * shrink),
                    columns.len() * shrink,
                    &mut sums,
                );
                for (sums, x) in sums.iter().step_by(shrink).zip(columns) {
                    write(y, x, &self.scaled(panel, sums));
                }
            }
        }
    }

    /// The sums of a run of pixels; with pooling, of two rows, the maximum of each 2×2 in the
    /// place of its first.
    fn sums(&self, source: &[u8], weights: &[i8], (y, x): (usize, usize), run: usize, sums: &mut Sums) {
        let (chunk_stride, row_stride) = (self.input.chunk_stride(), self.input.row_stride());
        let window = |y: usize| {
            let values = &source[y * row_stride + x * CHUNK..];
            Window { values, chunk_stride, row_stride }
        };
        self.multiplier.multiply(run, window(y), weights, sums);
        if !self.pool {
            return;
        }
        let mut lower = [[0; PANEL]; RUN];
        self.multiplier.multiply(run, window(y + 1), weights, &mut lower);
        for (upper, lower) in sums.chunks_exact_mut(2).zip(lower.chunks_exact(2)) {
            let [first, second] = upper else { continue };
            for (o, value) in first.iter_mut().enumerate() {
                *value = (*value).max(second[o]).max(lower[0][o].max(lower[1][o]));
            }
        }
    }

    /// Rounded after each operation, so that every instruction set gives the same.
    #[inline]
    fn scaled(&self, panel: usize, sums: &[i32; PANEL]) -> [f32; PANEL] {
        let scale = &self.scale[panel * PANEL..][..PANEL];
        let bias = &self.bias[panel * PANEL..][..PANEL];
        let mut values = [0.0; PANEL];
        for (o, value) in values.iter_mut().enumerate() {
            *value = sums[o] as f32 * scale[o] + bias[o];
        }
        values
    }
}

/// `[outputs, inputs, 3, 3]` to `[panels, chunks, 3, 3, CHUNK / 4, PANEL, 4]`, zeros for the inputs
/// and outputs that are not there.
fn pack(input: MapLayout, values: &[i8], outputs: usize) -> Vec<i8> {
    let inputs = input.0.channels;
    let panel_len = input.chunks() * 9 * CHUNK * PANEL;
    let mut weights = vec![0_i8; outputs.div_ceil(PANEL) * panel_len];
    let filters = values.par_chunks(PANEL * inputs * 9);
    weights.par_chunks_exact_mut(panel_len).zip(filters).for_each(|(panel, filters)| {
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
    weights
}
