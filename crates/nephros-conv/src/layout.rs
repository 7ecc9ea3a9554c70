//! How a feature map lies in memory between layers.

use std::ops::Range;

use crate::Shape;

/// A feature map of `[height, width, channels]` inside a border of zeros.
///
/// Rows start `width + 1` pixels apart: the one column of zeros after each row is the right
/// border of that row and the left border of the next. Above and below lies one row of zeros.
/// A 3×3 convolution then reads, for the output pixel at flat position `p` and the kernel row
/// `ky`, the `3 * channels` values that start at pixel `p + (ky - 1) * (width + 1) - 1`, with no
/// case for the edges and no copy into columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) shape: Shape,
}

impl Layout {
    /// `None` when an axis is zero or the buffer would not fit the address space.
    pub(crate) fn new(shape: Shape) -> Option<Self> {
        let pixels = shape.width.checked_add(1)?.checked_mul(shape.height.checked_add(2)?)?.checked_add(1)?;
        let bytes = pixels.checked_mul(shape.channels)?.checked_mul(size_of::<f32>())?;
        (!shape.is_empty() && isize::try_from(bytes).is_ok()).then_some(Self { shape })
    }

    /// Values from the start of a row to the start of the next.
    pub(crate) fn row_stride(self) -> usize {
        (self.shape.width + 1) * self.shape.channels
    }

    /// Values in a row without its border.
    pub(crate) fn row_len(self) -> usize {
        self.shape.width * self.shape.channels
    }

    /// The rows, each with the zeros after it.
    pub(crate) fn body(self) -> Range<usize> {
        let start = self.row_stride() + self.shape.channels;
        start..start + self.shape.height * self.row_stride()
    }

    /// Values in the whole buffer.
    pub(crate) fn len(self) -> usize {
        self.body().end + self.row_stride()
    }

    /// Writes the zeros around the body; those inside it belong to whoever writes the rows.
    pub(crate) fn clear_border(self, buffer: &mut [f32]) {
        let body = self.body();
        buffer[..body.start].fill(0.0);
        buffer[body.end..self.len()].fill(0.0);
    }

    /// The rows without their borders, top row first.
    pub(crate) fn rows(self, buffer: &[f32]) -> impl Iterator<Item = &[f32]> {
        buffer[self.body()].chunks_exact(self.row_stride()).map(move |row| &row[..self.row_len()])
    }

    /// The rows, each split into its pixels and the zeros after them.
    pub(crate) fn rows_mut(self, buffer: &mut [f32]) -> impl Iterator<Item = (&mut [f32], &mut [f32])> {
        let (stride, len) = (self.row_stride(), self.row_len());
        buffer[self.body()].chunks_exact_mut(stride).map(move |row| row.split_at_mut(len))
    }

    /// Copies a dense `[height, width, channels]` image in and writes all zeros.
    pub(crate) fn load(self, image: &[f32], buffer: &mut [f32]) {
        self.clear_border(buffer);
        for (values, (row, border)) in image.chunks_exact(self.row_len()).zip(self.rows_mut(buffer)) {
            row.copy_from_slice(values);
            border.fill(0.0);
        }
    }

    /// Copies the map out as a dense `[height, width, channels]` image.
    pub(crate) fn store(self, buffer: &[f32], image: &mut [f32]) {
        for (row, values) in self.rows(buffer).zip(image.chunks_exact_mut(self.row_len())) {
            values.copy_from_slice(row);
        }
    }
}
