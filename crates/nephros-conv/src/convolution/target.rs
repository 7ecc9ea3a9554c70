//! Where a convolution writes.

use crate::{Shape, memory::SharedMap};

/// A map that several threads write, and the order of its values.
pub(crate) struct Target<S> {
    pub(crate) sink: S,
    /// Position of the first pixel.
    pub(crate) start: usize,
    /// Values from an image to the next.
    pub(crate) image_stride: usize,
    pub(crate) row_stride: usize,
    pub(crate) pixel_stride: usize,
    /// Channels that lie next to each other, a multiple of every panel unless it is all of them.
    pub(crate) chunk: usize,
    /// Values from so many channels to the next.
    pub(crate) chunk_stride: usize,
}

impl<'a> Target<SharedMap<'a>> {
    /// `[images, height, width, channels]`
    pub(super) fn floats(shape: Shape, values: &'a mut [f32]) -> Self {
        let Shape { width, channels, .. } = shape;
        Self {
            sink: SharedMap::new(values),
            start: 0,
            image_stride: shape.len(),
            row_stride: width * channels,
            pixel_stride: channels,
            chunk: channels,
            chunk_stride: 0,
        }
    }
}

impl<S> Target<S> {
    pub(super) fn at(&self, image: usize, (y, x): (usize, usize), channel: usize) -> usize {
        let chunk = channel / self.chunk * self.chunk_stride + channel % self.chunk;
        self.start + image * self.image_stride + y * self.row_stride + x * self.pixel_stride + chunk
    }
}
