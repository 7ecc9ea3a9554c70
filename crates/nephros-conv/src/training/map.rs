//! How feature maps lie in memory while training.

use crate::Shape;

/// Channels of inner maps are rounded up to this many, so that every map is whole vectors on every
/// instruction set; the channels added are zero throughout.
pub(super) const CHANNEL_MULTIPLE: usize = 16;

/// A map `[height, width, channels]`, dense or inside a border of zeros.
///
/// With the border, rows start `width + 1` pixels apart: the pixel of zeros after a row is also the
/// one before the next. A row of zeros lies above and below. Then the 3×3 window of the output
/// pixel `(y, x)` is, for the kernel row `ky`, the `3 * channels` values that start at pixel
/// `(y + ky) * (width + 1) + x`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Map {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
}

impl Map {
    /// An inner map: the channels of `shape`, rounded up.
    pub(super) fn inner(shape: Shape) -> Self {
        let channels = shape.channels.next_multiple_of(CHANNEL_MULTIPLE);
        Self { height: shape.height, width: shape.width, channels }
    }

    /// The map of the network's input, whose channels stay as they are.
    pub(super) fn input(shape: Shape) -> Self {
        Self { height: shape.height, width: shape.width, channels: shape.channels }
    }

    /// Values of the dense map.
    pub(super) fn len(self) -> usize {
        self.height * self.row_len()
    }

    /// Values in a row of the dense map.
    pub(super) fn row_len(self) -> usize {
        self.width * self.channels
    }

    /// Values from a row of the bordered map to the next.
    pub(super) fn stride(self) -> usize {
        (self.width + 1) * self.channels
    }

    /// Values of the bordered map.
    pub(super) fn bordered_len(self) -> usize {
        (self.height + 2) * self.stride() + self.channels
    }

    /// Where a row of the bordered map starts, behind the pixel of zeros.
    pub(super) fn row_start(self, row: usize) -> usize {
        (row + 1) * self.stride() + self.channels
    }

    /// Rows of an inner map that are worked on at a time, an even number; they stay in cache
    /// between the passes over them.
    pub(super) fn block_rows(self) -> usize {
        /// Values in a block, 128 KiB.
        const BLOCK: usize = 32 * 1024;
        (BLOCK / self.row_len()).next_multiple_of(2).clamp(2, self.height.next_multiple_of(2))
    }

    /// The rows of the dense map in blocks, as ranges `[start, end)`.
    pub(super) fn blocks(self) -> impl Iterator<Item = (usize, usize)> {
        let step = self.block_rows();
        (0..self.height).step_by(step).map(move |start| (start, self.height.min(start + step)))
    }
}
