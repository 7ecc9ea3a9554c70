//! How a convolution's output is cut into tiles, and which way each tile is computed.

use crate::Shape;

/// The way a 3×3 convolution is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tiling {
    /// Every product of the definition, over windows copied next to each other.
    Direct,
    /// Winograd's `F(2×2, 3×3)`: 16 products a channel for 4 outputs in place of 36, and 16/9 of
    /// the memory for weights.
    F2,
    /// Winograd's `F(4×4, 3×3)`: 36 products a channel for 16 outputs in place of 144, and 4 times
    /// the memory for weights.
    F4,
}

/// Input channels from which Winograd's transforms pay; below, a tile has hardly any products.
const TRANSFORM_CHANNELS: usize = 8;
/// Shorter side of a map from which `F4` is faster than `F2`: on 14×14 pixels a fifth of its tiles
/// lies outside, and reading four times the weights takes longer than the products it saves.
const LARGE_TILES_FROM: usize = 20;

impl Tiling {
    /// The fastest way for a map, as measured: docs/adr/0008-winograd.md has the figures.
    pub(crate) fn choose(input: Shape) -> Self {
        if input.channels < TRANSFORM_CHANNELS {
            Self::Direct
        } else if input.height.min(input.width) >= LARGE_TILES_FROM {
            Self::F4
        } else {
            Self::F2
        }
    }

    /// Rows and columns of output in a tile, before pooling.
    pub(crate) fn side(self) -> usize {
        match self {
            Self::Direct | Self::F2 => 2,
            Self::F4 => 4,
        }
    }

    /// Rows and columns of input that a tile needs.
    pub(crate) fn patch_side(self) -> usize {
        self.side() + 2
    }

    /// Matrix products that make a tile.
    pub(crate) fn positions(self) -> usize {
        match self {
            Self::Direct => 4,
            Self::F2 => 16,
            Self::F4 => 36,
        }
    }

    /// Kernel matrices: the four pixels of a direct tile share one.
    pub(crate) fn kernels(self) -> usize {
        match self {
            Self::Direct => 1,
            Self::F2 | Self::F4 => self.positions(),
        }
    }

    /// Terms in each sum of a product.
    pub(crate) fn depth(self, channels: usize) -> usize {
        match self {
            Self::Direct => 9 * channels,
            Self::F2 | Self::F4 => channels,
        }
    }
}
