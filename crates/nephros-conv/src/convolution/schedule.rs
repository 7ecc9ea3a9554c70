//! Which thread computes what, and in which order. Results do not depend on it: every sum adds its
//! terms in one order, whoever computes it.

use std::{cell::RefCell, ops::Range};

use rayon::prelude::*;

use super::{Convolution, Scratch, Target, share};
use crate::{kernels::Sink, memory::Aligned};

/// Values that a thread transforms for itself: half of a second-level cache of 1 MiB, beside the
/// sums and the kernels that pass through. Miri, which is slow, gets there with a few tiles.
const ALONE_VALUES: usize = if cfg!(miri) { 1 } else { 512 * 1024 / size_of::<f32>() };
/// Sums of one panel.
const PANEL_SUMS: usize = 512 * 1024 / size_of::<f32>();
/// Tasks for each thread, so that one that is held up does not hold up all.
const TASKS_PER_THREAD: usize = 4;

thread_local! {
    /// Grows to the largest layer and stays.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Convolution {
    /// Runs a group of images, one after the other in `source` and `target`. `shared` is a buffer
    /// that is kept for the next call.
    pub(crate) fn run(&self, source: &[f32], images: usize, target: &mut [f32], shared: &mut Aligned) {
        self.run_to(source, images, &Target::floats(self.output, target), shared);
    }

    /// As [`Self::run`], into another kind of map.
    pub(crate) fn run_to<S: Sink>(
        &self,
        source: &[f32],
        images: usize,
        target: &Target<S>,
        shared: &mut Aligned,
    ) {
        let tiles = 0..images * self.tiles.0 * self.tiles.1;
        let alone = self.group_tiles(ALONE_VALUES);
        let tasks = TASKS_PER_THREAD * rayon::current_num_threads();
        if tiles.len() >= tasks * alone {
            let count = tiles.len().div_ceil(alone);
            (0..count).into_par_iter().for_each(|index| {
                self.run_alone(source, share(&tiles, count, index), target);
            });
        } else {
            let count = tiles.len().div_ceil(self.group_tiles(usize::MAX));
            for index in 0..count {
                self.run_together(source, &share(&tiles, count, index), target, shared);
            }
        }
    }

    /// Tiles, in whole blocks, whose values fit `values` and whose sums fit [`PANEL_SUMS`].
    fn group_tiles(&self, values: usize) -> usize {
        let rows = self.kernels.max_rows;
        let by_values = values / self.block_stride();
        let by_sums = PANEL_SUMS / (self.tiling.positions() * self.panel * rows);
        by_values.min(by_sums).max(1) * rows
    }

    /// One thread takes tiles all the way: where there are many tiles and few kernels, their
    /// values never leave its cache.
    #[allow(unsafe_code, reason = "writes a map that threads share")]
    fn run_alone<S: Sink>(&self, source: &[f32], tiles: Range<usize>, target: &Target<S>) {
        SCRATCH.with_borrow_mut(|Scratch { values, sums, patch }| {
            let blocks = self.blocks(&tiles);
            let values = values.of_len(blocks.len() * self.block_stride());
            for (block, values) in blocks.iter().zip(values.chunks_exact_mut(self.block_stride())) {
                self.load(source, block, values, patch);
            }
            for panel in 0..self.panels() {
                // SAFETY: no other task has these tiles.
                unsafe { self.multiply(panel, &blocks, values, sums, target) }
            }
        });
    }

    /// All threads transform the tiles, then each takes other panels: where there are few tiles and
    /// many kernels, each kernel is read once.
    #[allow(unsafe_code, reason = "writes a map that threads share")]
    fn run_together<S: Sink>(
        &self,
        source: &[f32],
        tiles: &Range<usize>,
        target: &Target<S>,
        shared: &mut Aligned,
    ) {
        let (blocks, stride) = (self.blocks(tiles), self.block_stride());
        let values = shared.of_len(blocks.len() * stride);
        blocks.par_iter().zip(values.par_chunks_exact_mut(stride)).for_each(|(block, values)| {
            SCRATCH.with_borrow_mut(|scratch| self.load(source, block, values, &mut scratch.patch));
        });
        let tasks = TASKS_PER_THREAD * rayon::current_num_threads();
        let parts = tasks.div_ceil(self.panels()).min(blocks.len());
        let values = &*values;
        (0..self.panels() * parts).into_par_iter().for_each(|task| {
            let (panel, part) = (task / parts, share(&(0..blocks.len()), parts, task % parts));
            let values = &values[part.start * stride..part.end * stride];
            SCRATCH.with_borrow_mut(|scratch| {
                // SAFETY: no other task has this panel of these tiles.
                unsafe { self.multiply(panel, &blocks[part], values, &mut scratch.sums, target) }
            });
        });
    }
}
