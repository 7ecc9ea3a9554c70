//! 8-bit maps between layers, and where a layer writes.

use rayon::prelude::*;

use super::{
    cell::to_u8,
    kernel::{CHUNK, PANEL},
    tile::SIDE,
};
use crate::{Shape, convolution::Target, kernels::Bytes, memory::SharedMap};

/// `[chunks, 1 + height + 1, 1 + width + 1, CHUNK]` with height and width up to whole tiles; zeros
/// around each chunk's pixels and for the channels that fill the last chunk.
#[derive(Debug, Clone, Copy)]
pub(super) struct MapLayout(pub(super) Shape);

impl MapLayout {
    pub(super) fn chunks(self) -> usize {
        self.0.channels.div_ceil(CHUNK)
    }

    pub(super) fn row_stride(self) -> usize {
        (self.0.width.next_multiple_of(SIDE) + 2) * CHUNK
    }

    pub(super) fn chunk_stride(self) -> usize {
        (self.0.height.next_multiple_of(SIDE) + 2) * self.row_stride()
    }

    pub(super) fn len(self) -> usize {
        self.chunks() * self.chunk_stride()
    }

    /// Position of a pixel of a chunk.
    fn at(self, chunk: usize, y: usize, x: usize) -> usize {
        chunk * self.chunk_stride() + (y + 1) * self.row_stride() + (x + 1) * CHUNK
    }

    /// Position of the pixel above and left of a pixel, in a channel that begins a panel.
    pub(super) fn patch(self, channel: usize, y: usize, x: usize) -> usize {
        let chunk = channel / CHUNK * self.chunk_stride();
        chunk + y * self.row_stride() + x * CHUNK + channel % CHUNK
    }

    /// For a convolution in floats: `value * scale`, rounded. The rest of `map` is left as it is.
    pub(super) fn target(self, map: &mut [u8], scale: f32) -> Target<Bytes<'_>> {
        Target {
            sink: Bytes { map: SharedMap::new(map), scale },
            start: self.at(0, 0, 0),
            image_stride: self.len(),
            row_stride: self.row_stride(),
            pixel_stride: CHUNK,
            chunk: CHUNK,
            chunk_stride: self.chunk_stride(),
        }
    }

    /// Quantises a `[height, width, channels]` map that holds no negative values: `value * scale`,
    /// rounded. The rest of `map` is left as it is: zeros.
    pub(super) fn quantize(self, values: &[f32], scale: f32, map: &mut [u8]) {
        let Shape { width, channels, .. } = self.0;
        let (stride, chunk_stride) = (self.row_stride(), self.chunk_stride());
        for (chunk, map) in map.chunks_exact_mut(chunk_stride).enumerate() {
            let (first, count) = (chunk * CHUNK, CHUNK.min(channels - chunk * CHUNK));
            let rows = map[stride..].par_chunks_exact_mut(stride);
            rows.zip(values.par_chunks_exact(width * channels)).for_each(|(row, values)| {
                let pixels = row[CHUNK..].chunks_exact_mut(CHUNK).zip(values.chunks_exact(channels));
                for (pixel, values) in pixels {
                    for (target, value) in pixel.iter_mut().zip(&values[first..first + count]) {
                        *target = to_u8(value * scale);
                    }
                }
            });
        }
    }
}

/// A map that several threads write, and the order of its values.
pub(super) struct Output<'a, C> {
    map: SharedMap<'a, C>,
    order: Order,
}

enum Order {
    Chunks(MapLayout),
    /// `[height, width, channels]`
    Pixels(Shape),
}

/// One panel of an [`Output`].
pub(super) struct PanelOutput<'a, C> {
    map: &'a SharedMap<'a, C>,
    start: usize,
    row_stride: usize,
    pixel_stride: usize,
    /// Channels of the panel that the map has.
    channels: usize,
}

impl<'a> Output<'a, u8> {
    /// The next layer's map.
    pub(super) fn map(layout: MapLayout, map: &'a mut [u8]) -> Self {
        Self { map: SharedMap::new(map), order: Order::Chunks(layout) }
    }
}

impl<'a> Output<'a, f32> {
    pub(super) fn floats(shape: Shape, values: &'a mut [f32]) -> Self {
        Self { map: SharedMap::new(values), order: Order::Pixels(shape) }
    }
}

impl<C: Copy> Output<'_, C> {
    pub(super) fn panel(&self, panel: usize) -> PanelOutput<'_, C> {
        let map = &self.map;
        match self.order {
            Order::Chunks(layout) => PanelOutput {
                map,
                start: layout.at(panel * PANEL / CHUNK, 0, 0) + panel * PANEL % CHUNK,
                row_stride: layout.row_stride(),
                pixel_stride: CHUNK,
                channels: PANEL,
            },
            Order::Pixels(Shape { width, channels, .. }) => PanelOutput {
                map,
                start: panel * PANEL,
                row_stride: width * channels,
                pixel_stride: channels,
                channels: PANEL.min(channels - panel * PANEL),
            },
        }
    }
}

impl<C: Copy> PanelOutput<'_, C> {
    /// # Safety
    /// No reference to this panel's channels of this pixel may be alive.
    #[allow(unsafe_code, reason = "writes a map that threads share")]
    #[inline]
    pub(super) unsafe fn write(&self, y: usize, x: usize, cells: &[C; PANEL]) {
        let start = self.start + y * self.row_stride + x * self.pixel_stride;
        // SAFETY: as the caller promises.
        let pixel = unsafe { self.map.part(start..start + self.channels) };
        match pixel.first_chunk_mut::<PANEL>() {
            Some(pixel) => *pixel = *cells,
            None => pixel.copy_from_slice(&cells[..self.channels]),
        }
    }
}
