//! 3×3 convolution: patches are transformed, multiplied by the kernels of each position, and
//! transformed back into pixels.

mod pack;
mod schedule;
mod target;

use std::ops::Range;

use crate::{
    Shape,
    kernels::{Finish, Kernels, Patch, Sink, TileSteps},
    memory::Aligned,
    tiling::Tiling,
};

pub(crate) use pack::Read;
pub(crate) use target::Target;

/// A compiled convolution, with its bias, ReLU and the pooling that follows it.
pub(crate) struct Convolution {
    input: Shape,
    /// After pooling, where there is any.
    output: Shape,
    tiling: Tiling,
    kernels: &'static Kernels,
    /// `[panels, kernel matrices, depth, panel]`, zeros where a panel or the depth is not full.
    weights: Aligned,
    /// `[panels, panel]`
    bias: Vec<f32>,
    relu: bool,
    pool: bool,
    /// Rows and columns of tiles in an image.
    tiles: (usize, usize),
    /// Terms in each sum, up to a multiple of the vector's lanes.
    depth: usize,
    /// Outputs in a panel.
    panel: usize,
}

/// What a thread needs for itself.
#[derive(Default)]
struct Scratch {
    /// Values of the tiles that the thread works on alone.
    values: Aligned,
    /// Sums of one panel.
    sums: Aligned,
    patch: Aligned,
}

/// Tiles that one product takes as its rows, from 1 to [`Kernels::max_rows`].
#[derive(Clone)]
struct Block {
    tiles: Range<usize>,
}

impl Convolution {
    /// # Errors
    /// The first of `read`.
    pub(crate) fn new<E: Send>(
        kernels: &'static Kernels,
        tiling: Tiling,
        (input, output): (Shape, Shape),
        bias: &[f32],
        relu: bool,
        read: &Read<'_, E>,
    ) -> Result<Self, E> {
        let tiles = (output.height.div_ceil(tiling.side()), output.width.div_ceil(tiling.side()));
        let depth = tiling.depth(input.channels).next_multiple_of(kernels.lanes);
        let mut padded = bias.to_vec();
        let panel = kernels.panel(bias.len());
        padded.resize(bias.len().next_multiple_of(panel), 0.0);
        let weights = pack::pack(kernels, tiling, (input.channels, bias.len()), depth, read)?;
        let (bias, pool) = (padded, false);
        Ok(Self { input, output, tiling, kernels, weights, bias, relu, pool, tiles, depth, panel })
    }

    /// Puts 2×2 pooling after the convolution; `output` is the shape after it.
    pub(crate) fn add_pool(&mut self, output: Shape) {
        // An odd last row or column is dropped, and a tile that holds nothing else with it.
        let side = self.tiling.side();
        self.tiles = ((2 * output.height).div_ceil(side), (2 * output.width).div_ceil(side));
        (self.output, self.pool) = (output, true);
    }

    pub(crate) fn relu(&self) -> bool {
        self.relu
    }

    pub(crate) fn pool(&self) -> bool {
        self.pool
    }

    fn panels(&self) -> usize {
        self.bias.len() / self.panel
    }

    /// Values of one position in a block. A line more than it holds, so that the positions of a
    /// tile do not fall into the same set of the cache.
    fn position_stride(&self) -> usize {
        self.depth * self.kernels.max_rows + self.kernels.lanes
    }

    fn block_stride(&self) -> usize {
        self.tiling.positions() * self.position_stride()
    }

    /// Cuts tiles into as few blocks as the product allows, of nearly the same size.
    fn blocks(&self, tiles: &Range<usize>) -> Vec<Block> {
        let count = tiles.len().div_ceil(self.kernels.max_rows);
        (0..count).map(|index| Block { tiles: share(tiles, count, index) }).collect()
    }

    /// Image, first row and first column of a tile's output, before pooling.
    fn locate(&self, tile: usize) -> (usize, usize, usize) {
        let (down, across) = self.tiles;
        let (image, tile) = (tile / (down * across), tile % (down * across));
        (image, tile / across * self.tiling.side(), tile % across * self.tiling.side())
    }

    /// Transforms the patches of a block into `values`, `[positions, depth / lanes, rows, lanes]`
    /// with [`Self::position_stride`].
    fn load(&self, source: &[f32], block: &Block, values: &mut [f32], patch: &mut Aligned) {
        let lanes = self.kernels.lanes;
        let steps = TileSteps { position: self.position_stride(), chunk: block.tiles.len() * lanes };
        for (row, tile) in block.tiles.clone().enumerate() {
            let (image, y, x) = self.locate(tile);
            let image = &source[image * self.input.len()..][..self.input.len()];
            let patch = self.inner_patch(image, y, x).unwrap_or_else(|| self.edge_patch(image, y, x, patch));
            self.kernels.load(self.tiling, &patch, &mut values[row * lanes..], steps);
        }
    }

    /// The patch of a tile in place, where it lies inside the image and has whole vectors.
    fn inner_patch<'a>(&self, image: &'a [f32], y: usize, x: usize) -> Option<Patch<'a>> {
        let Shape { height, width, channels } = self.input;
        let side = self.tiling.patch_side();
        let (top, left) = (y.checked_sub(1)?, x.checked_sub(1)?);
        let whole = self.tiling == Tiling::Direct || channels.is_multiple_of(self.kernels.lanes);
        (whole && top + side <= height && left + side <= width).then(|| Patch {
            values: &image[(top * width + left) * channels..],
            row_stride: width * channels,
            pixel_stride: channels,
            channels,
        })
    }

    /// The patch of a tile copied, with zeros for what lies outside the image and for the channels
    /// that fill the last vector.
    fn edge_patch<'a>(&self, image: &[f32], y: usize, x: usize, patch: &'a mut Aligned) -> Patch<'a> {
        let Shape { height, width, channels } = self.input;
        let side = self.tiling.patch_side();
        let padded = match self.tiling {
            Tiling::Direct => channels,
            Tiling::F2 | Tiling::F4 => self.depth,
        };
        let values = patch.of_len(side * side * padded);
        values.fill(0.0);
        // The patch starts one row above and one column left of the tile.
        let columns = x.max(1) - 1..(x + side - 1).min(width);
        for row in y.max(1) - 1..(y + side - 1).min(height) {
            for column in columns.clone() {
                let target = ((row + 1 - y) * side + column + 1 - x) * padded;
                let pixel = &image[(row * width + column) * channels..][..channels];
                values[target..target + channels].copy_from_slice(pixel);
            }
        }
        Patch { values, row_stride: side * padded, pixel_stride: padded, channels: padded }
    }

    /// Multiplies the blocks by one panel of kernels and writes the panel's channels of their
    /// pixels.
    ///
    /// # Safety
    /// No reference to these channels of these tiles' pixels may be alive.
    #[allow(unsafe_code, reason = "writes a map that threads share")]
    unsafe fn multiply<S: Sink>(
        &self,
        panel: usize,
        blocks: &[Block],
        values: &[f32],
        sums: &mut Aligned,
        target: &Target<S>,
    ) {
        let (Some(first), Some(last)) = (blocks.first(), blocks.last()) else { return };
        let tiles = first.tiles.start..last.tiles.end;
        let (positions, columns) = (self.tiling.positions(), self.panel);
        let stride = positions * columns;
        let sums = sums.of_len(tiles.len() * stride);
        let matrix = self.depth * columns;
        let matrices = self.tiling.kernels();
        for position in 0..positions {
            let index = panel * matrices + position % matrices;
            let kernel = &self.weights.values()[index * matrix..][..matrix];
            for (block, values) in blocks.iter().zip(values.chunks_exact(self.block_stride())) {
                let rows = block.tiles.len();
                let values = &values[position * self.position_stride()..][..rows * self.depth];
                let first = (block.tiles.start - tiles.start) * stride + position * columns;
                self.kernels.multiply(rows, columns, values, kernel, &mut sums[first..], stride);
            }
        }
        for (tile, sums) in tiles.zip(sums.chunks_exact(stride)) {
            // SAFETY: the tile and the panel are among the caller's.
            unsafe { self.finish(panel, tile, sums, target) }
        }
    }

    /// # Safety
    /// No reference to this panel's channels of this tile's pixels may be alive.
    #[allow(unsafe_code, reason = "writes a map that threads share")]
    unsafe fn finish<S: Sink>(&self, panel: usize, tile: usize, sums: &[f32], target: &Target<S>) {
        let Shape { height, width, channels } = self.output;
        let columns = self.panel;
        let shrink = if self.pool { 2 } else { 1 };
        let (image, y, x) = self.locate(tile);
        let (y, x) = (y / shrink, x / shrink);
        let finish = Finish {
            sink: &target.sink,
            start: target.at(image, (y, x), panel * columns),
            row_stride: target.row_stride,
            pixel_stride: target.pixel_stride,
            rows: (height - y).min(self.tiling.side()),
            columns: (width - x).min(self.tiling.side()),
            channels: (channels - panel * columns).min(columns),
            bias: &self.bias[panel * columns..][..columns],
            relu: self.relu,
            pool: self.pool,
        };
        // SAFETY: as the caller promises.
        unsafe { self.kernels.finish(self.tiling, sums, &finish) }
    }
}

/// Part `index` of `count` nearly equal parts of a range.
pub(crate) fn share(range: &Range<usize>, count: usize, index: usize) -> Range<usize> {
    range.start + range.len() * index / count..range.start + range.len() * (index + 1) / count
}
