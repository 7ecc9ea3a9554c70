//! A convolution by [`super::tile`]'s transforms: which thread computes what, and in which order.

use std::{cell::RefCell, ops::Range};

use rayon::prelude::*;

use super::{
    cell::Cell,
    kernel::{PANEL, RUN},
    layer::QuantizedLayer,
    map::{Output, PanelOutput},
    tile::{POSITIONS, SIDE, TileSums, WORDS},
};
use crate::{Shape, convolution::share, memory::Aligned};

/// Blocks that a thread works on together: their sums of one panel take 252 KiB, a quarter of a
/// second-level cache of 1 MiB.
const BLOCKS: usize = 4;
/// Tiles for each thread from which it reads all weights: for fewer, reading them takes longer than
/// the products. Miri, which is slow, gets there with a few tiles.
const ALONE_TILES: usize = if cfg!(miri) { 1 } else { 6 * RUN };
/// Tasks for each thread, so that one that is held up does not hold up all.
const TASKS_PER_THREAD: usize = 4;

thread_local! {
    /// Grows to the largest layer and stays.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// What a thread needs for itself.
#[derive(Default)]
struct Scratch {
    /// Values of the tiles that the thread works on alone.
    values: Aligned,
    /// Sums of one panel.
    sums: Aligned,
}

/// The tiles of a layer.
pub(super) struct Tiles<'a> {
    layer: &'a QuantizedLayer,
    /// `[panels, POSITIONS, depth / 2, PANEL, 2]`
    weights: &'a [i16],
    source: &'a [u8],
    /// Columns of tiles.
    across: usize,
    count: usize,
    /// Channels up to whole lines.
    depth: usize,
}

impl<'a> Tiles<'a> {
    pub(super) fn new(layer: &'a QuantizedLayer, weights: &'a [i16], source: &'a [u8]) -> Self {
        let Shape { height, width, .. } = layer.output.0;
        // An odd last row or column is dropped by pooling, and a tile that holds nothing else with it.
        let shrink = layer.shrink();
        let (down, across) = ((height * shrink).div_ceil(SIDE), (width * shrink).div_ceil(SIDE));
        let depth = layer.input.0.channels.next_multiple_of(WORDS);
        Self { layer, weights, source, across, count: down * across, depth }
    }

    /// `shared` is a buffer that is kept for the next call.
    pub(super) fn run<C: Cell>(&self, output: &Output<'_, C>, shared: &mut Aligned) {
        let threads = rayon::current_num_threads();
        if self.count < threads * ALONE_TILES {
            return self.run_together(output, shared);
        }
        let count = self.count.div_ceil(BLOCKS * RUN).next_multiple_of(threads);
        let groups = (0..count).into_par_iter().with_max_len(1);
        groups.for_each(|index| self.run_alone(share(&(0..self.count), count, index), output));
    }

    fn panels(&self) -> usize {
        self.layer.panels()
    }

    /// Values of one position in a block. A line more than it holds, so that the positions of a
    /// tile do not fall into the same set of the cache.
    fn position_stride(&self) -> usize {
        self.depth * RUN + WORDS
    }

    fn block_stride(&self) -> usize {
        POSITIONS * self.position_stride()
    }

    /// Cuts tiles into as few blocks as the product allows, of nearly the same size.
    fn blocks(tiles: &Range<usize>) -> Vec<Range<usize>> {
        let count = tiles.len().div_ceil(RUN);
        (0..count).map(|index| share(tiles, count, index)).collect()
    }

    /// One thread takes tiles all the way: where there are many tiles and few weights, their values
    /// never leave its cache.
    fn run_alone<C: Cell>(&self, tiles: Range<usize>, output: &Output<'_, C>) {
        SCRATCH.with_borrow_mut(|Scratch { values, sums }| {
            let blocks = Self::blocks(&tiles);
            let values = values.of_len_as::<i16>(blocks.len() * self.block_stride());
            for (block, values) in blocks.iter().zip(values.chunks_exact_mut(self.block_stride())) {
                self.load(block.clone(), values);
            }
            for panel in 0..self.panels() {
                self.multiply(panel, &blocks, values, sums, output);
            }
        });
    }

    /// All threads transform the tiles, then each takes other panels: where there are few tiles and
    /// many weights, each weight is read once.
    fn run_together<C: Cell>(&self, output: &Output<'_, C>, shared: &mut Aligned) {
        let (blocks, stride) = (Self::blocks(&(0..self.count)), self.block_stride());
        let values = shared.of_len_as::<i16>(blocks.len() * stride);
        let loads = blocks.par_iter().zip(values.par_chunks_exact_mut(stride));
        loads.with_max_len(1).for_each(|(block, values)| self.load(block.clone(), values));
        let tasks = TASKS_PER_THREAD * rayon::current_num_threads();
        let parts = tasks.div_ceil(self.panels()).max(blocks.len().div_ceil(BLOCKS)).min(blocks.len());
        let values = &*values;
        (0..self.panels() * parts).into_par_iter().with_max_len(1).for_each(|task| {
            let (panel, part) = (task / parts, share(&(0..blocks.len()), parts, task % parts));
            let values = &values[part.start * stride..part.end * stride];
            SCRATCH.with_borrow_mut(|scratch| {
                self.multiply(panel, &blocks[part], values, &mut scratch.sums, output);
            });
        });
    }

    /// Transforms the patches of a block into `values`, `[POSITIONS, depth / WORDS, rows, WORDS]`
    /// with [`Self::position_stride`].
    fn load(&self, block: Range<usize>, values: &mut [i16]) {
        let (input, rows) = (self.layer.input, block.len());
        for (row, tile) in block.enumerate() {
            let (y, x) = self.locate(tile);
            for line in 0..self.depth / WORDS {
                let source = &self.source[input.patch(line * WORDS, y, x)..];
                let lines = &mut values[(line * rows + row) * WORDS..];
                self.layer.multiplier.load(source, input.row_stride(), lines, self.position_stride());
            }
        }
    }

    /// First row and column of a tile, before pooling.
    fn locate(&self, tile: usize) -> (usize, usize) {
        (tile / self.across * SIDE, tile % self.across * SIDE)
    }

    /// Multiplies the blocks by one panel of weights and writes the panel's channels of their
    /// pixels.
    fn multiply<C: Cell>(
        &self,
        panel: usize,
        blocks: &[Range<usize>],
        values: &[i16],
        sums: &mut Aligned,
        output: &Output<'_, C>,
    ) {
        let (Some(first), Some(last)) = (blocks.first(), blocks.last()) else { return };
        let tiles = first.start..last.end;
        let sums = sums.of_len_as::<i32>(tiles.len() * POSITIONS * PANEL).as_chunks_mut::<PANEL>().0;
        let matrix = self.depth * PANEL;
        let weights = self.weights[panel * POSITIONS * matrix..].chunks_exact(matrix);
        for (position, weights) in weights.take(POSITIONS).enumerate() {
            for (block, values) in blocks.iter().zip(values.chunks_exact(self.block_stride())) {
                let rows = block.len();
                let values = &values[position * self.position_stride()..][..rows * self.depth];
                let sums = &mut sums[(block.start - tiles.start) * POSITIONS + position..];
                self.layer.multiplier.multiply(rows, values, weights, sums);
            }
        }
        let output = output.panel(panel);
        for (tile, sums) in tiles.zip(sums.as_chunks::<POSITIONS>().0) {
            self.finish(panel, tile, sums, &output);
        }
    }

    #[allow(unsafe_code, reason = "writes a map that threads share")]
    fn finish<C: Cell>(&self, panel: usize, tile: usize, sums: &TileSums, output: &PanelOutput<'_, C>) {
        let mut cells = [[C::default(); PANEL]; SIDE * SIDE];
        self.layer.multiplier.finish(sums, &self.layer.finishing(panel), &mut cells);
        let Shape { height, width, .. } = self.layer.output.0;
        let shrink = self.layer.shrink();
        let (top, left) = self.locate(tile);
        let (top, left, side) = (top / shrink, left / shrink, SIDE / shrink);
        for (index, cells) in cells[..side * side].iter().enumerate() {
            let (y, x) = (top + index / side, left + index % side);
            if y < height && x < width {
                // SAFETY: no other task has this panel of this tile.
                unsafe { output.write(y, x, cells) }
            }
        }
    }
}
