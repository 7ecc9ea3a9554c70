//! One 3×3 convolution on 8-bit maps.

use std::ops::Range;

use rayon::prelude::*;

use super::{
    QuantizedKernel,
    cell::{Cell, Finishing},
    kernel::{CHUNK, Cells, Multiplier, PANEL, RUN, Window},
    map::{MapLayout, Output},
    pack,
    tile::{self, WORDS},
    tiled::Tiles,
};
use crate::{Shape, Tiling, convolution::share, memory::Aligned};

/// Tasks for each thread, so that one that is held up does not hold up all.
const TASKS_PER_THREAD: usize = 4;

/// A compiled layer.
pub(super) struct QuantizedLayer {
    pub(super) input: MapLayout,
    pub(super) output: MapLayout,
    pub(super) pool: bool,
    pub(super) multiplier: Multiplier,
    weights: Weights,
    /// What a sum is multiplied by, and what is added then, to give the output's steps,
    /// `[panels, PANEL]`.
    scale: Vec<f32>,
    bias: Vec<f32>,
}

/// For the two ways to the same sums.
enum Weights {
    /// Every product of the definition; see [`pack::taps`].
    Direct(Aligned),
    /// Products of tiles; see [`pack::transformed`].
    Tiles(Aligned),
}

impl QuantizedLayer {
    /// A step of the input stands for `input_step`, a step of the output for `output_step`. `tiling`
    /// is the way to take where it can be taken.
    pub(super) fn new(
        (input, output): (Shape, Shape),
        kernel: &QuantizedKernel,
        bias: &[f32],
        (input_step, output_step): (f32, f32),
        (multiplier, tiling): (Multiplier, Option<Tiling>),
    ) -> Self {
        let len = bias.len().next_multiple_of(PANEL);
        let padded = |values: Vec<f32>| -> Vec<f32> {
            values.into_iter().chain(std::iter::repeat(0.0)).take(len).collect()
        };
        let scale = padded(kernel.steps.iter().map(|step| step * input_step / output_step).collect());
        let bias = padded(bias.iter().map(|bias| bias / output_step).collect());
        let large = input.height.min(input.width) >= multiplier.tiles_from();
        let tiles = tiling.map_or(large, |tiling| tiling == Tiling::F4);
        let weights = if tiles && input.channels <= tile::MOST_CHANNELS {
            Weights::Tiles(pack::transformed(kernel, input.channels.next_multiple_of(WORDS)))
        } else {
            Weights::Direct(pack::taps(kernel))
        };
        let (input, output) = (MapLayout(input), MapLayout(output));
        Self { input, output, pool: false, multiplier, weights, scale, bias }
    }

    /// Puts 2×2 pooling after the convolution; `output` is the shape after it.
    pub(super) fn add_pool(&mut self, output: Shape) {
        (self.output, self.pool) = (MapLayout(output), true);
    }

    /// Rows and columns of the convolution to one of the output.
    pub(super) fn shrink(&self) -> usize {
        if self.pool { 2 } else { 1 }
    }

    pub(super) fn panels(&self) -> usize {
        self.bias.len() / PANEL
    }

    pub(super) fn finishing(&self, panel: usize) -> Finishing<'_> {
        let scale = &self.scale.as_chunks().0[panel];
        Finishing { scale, bias: &self.bias.as_chunks().0[panel], pool: self.pool }
    }

    /// Runs one image, on the threads of the current rayon pool. `shared` is a buffer that is kept
    /// for the next call.
    pub(super) fn run<C: Cell>(&self, source: &[u8], output: &Output<'_, C>, shared: &mut Aligned) {
        match &self.weights {
            Weights::Tiles(weights) => Tiles::new(self, weights.values_as(), source).run(output, shared),
            Weights::Direct(weights) => self.run_direct(source, weights.values_as(), output),
        }
    }

    fn run_direct<C: Cell>(&self, source: &[u8], weights: &[i8], output: &Output<'_, C>) {
        let height = self.output.0.height;
        let tasks = TASKS_PER_THREAD * rayon::current_num_threads();
        let strips = tasks.div_ceil(self.panels()).clamp(1, height);
        let panel_len = self.input.chunks() * 9 * CHUNK * PANEL;
        (0..self.panels() * strips).into_par_iter().with_max_len(1).for_each(|task| {
            let (panel, rows) = (task / strips, share(&(0..height), strips, task % strips));
            self.rows(source, &weights[panel * panel_len..][..panel_len], panel, rows, output);
        });
    }

    /// Computes some rows of one panel.
    #[allow(unsafe_code, reason = "writes a map that threads share")]
    fn rows<C: Cell>(
        &self,
        source: &[u8],
        weights: &[i8],
        panel: usize,
        rows: Range<usize>,
        output: &Output<'_, C>,
    ) {
        let (width, shrink) = (self.output.0.width, self.shrink());
        let (chunk_stride, row_stride) = (self.input.chunk_stride(), self.input.row_stride());
        let runs = (width * shrink).div_ceil(RUN / shrink * shrink);
        let (finishing, output) = (self.finishing(panel), output.panel(panel));
        let mut cells: Cells<C> = [[C::default(); PANEL]; RUN];
        for y in rows {
            for run in 0..runs {
                let columns = share(&(0..width), runs, run);
                let values = &source[self.input.patch(0, y * shrink, columns.start * shrink)..];
                let window = Window { values, chunk_stride, row_stride };
                self.multiplier.direct(columns.len() * shrink, window, weights, &finishing, &mut cells);
                for (cells, x) in cells.iter().step_by(shrink).zip(columns) {
                    // SAFETY: no other task has this panel of these rows.
                    unsafe { output.write(y, x, cells) }
                }
            }
        }
    }
}
