//! Where the patient lies in a slice.
//!
//! How large a body is drawn, and where, says more about the scanner than about the kidneys. A
//! network that sees every body at the same size and place has less to memorise of a patient.

use serde::{Deserialize, Serialize};

use super::RgbImage;

/// What of an image the network sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Crop {
    /// All of it, stretched to the network's input.
    #[default]
    None,
    /// The square around the body, not stretched; all of it, in a square, where no body is found.
    Body,
}

impl Crop {
    /// Whether the image stays whole.
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// Mean of red, green and blue from which a pixel may be the patient. Air is 0 in an abdominal
/// window; at 40/400 this level is -113 HU, between lung and fat.
pub(crate) const TISSUE: usize = 30;
/// Cells along the longer side of the grid that the body is looked for on.
const GRID: usize = 128;
/// The body takes at least this part of the image, or there is none.
const LEAST_SHARE: f64 = 0.02;
/// Width of the margin around the body, as part of the longer side of its box.
const MARGIN: f64 = 0.02;

/// Cells of the image that are tissue or not, `[rows, columns]`.
struct Mask {
    rows: usize,
    columns: usize,
    cells: Vec<bool>,
}

/// First and last row and column, the last not included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) top: usize,
    pub(crate) left: usize,
    pub(crate) bottom: usize,
    pub(crate) right: usize,
}

/// The square around the body, black where it leaves the image.
pub fn crop_to_body(image: &RgbImage) -> RgbImage {
    let whole = Bounds { top: 0, left: 0, bottom: image.height, right: image.width };
    let body = find_body(image);
    let bounds = body.unwrap_or(whole);
    let margin = if body.is_some() { MARGIN } else { 0.0 };
    let longer = (bounds.bottom - bounds.top).max(bounds.right - bounds.left);
    let side = longer + 2 * (longer as f64 * margin).round() as usize;
    square(image, bounds, side)
}

/// The largest connected piece of tissue, once what is thinner than three cells, such as the table
/// and tubes, is taken away.
pub(crate) fn find_body(image: &RgbImage) -> Option<Bounds> {
    let cell = image.width.max(image.height).div_ceil(GRID);
    let mask = tissue(image, cell).eroded().dilated();
    let (cells, bounds) = mask.largest_piece()?;
    let share = (cells * cell * cell) as f64 / (image.width * image.height) as f64;
    (share >= LEAST_SHARE).then(|| Bounds {
        top: bounds.top * cell,
        left: bounds.left * cell,
        bottom: (bounds.bottom * cell).min(image.height),
        right: (bounds.right * cell).min(image.width),
    })
}

/// Cells of `cell`×`cell` pixels whose mean is at least [`TISSUE`].
fn tissue(image: &RgbImage, cell: usize) -> Mask {
    let (rows, columns) = (image.height.div_ceil(cell), image.width.div_ceil(cell));
    let mut cells = Vec::with_capacity(rows * columns);
    for band in image.pixels.chunks(cell * image.width * 3) {
        let mut sums = vec![(0, 0); columns];
        for row in band.chunks_exact(image.width * 3) {
            for ((sum, count), values) in sums.iter_mut().zip(row.chunks(cell * 3)) {
                *sum += values.iter().map(|&value| usize::from(value)).sum::<usize>();
                *count += values.len();
            }
        }
        cells.extend(sums.into_iter().map(|(sum, count)| sum >= TISSUE * count));
    }
    Mask { rows, columns, cells }
}

impl Mask {
    /// Cells whose 3×3 window is all set; what lies beyond the edge does not count.
    fn eroded(&self) -> Self {
        let near_unset = self.near(false);
        Self { cells: near_unset.into_iter().map(|near| !near).collect(), ..*self }
    }

    /// Cells with a set one in their 3×3 window.
    fn dilated(&self) -> Self {
        Self { cells: self.near(true), ..*self }
    }

    /// Whether the 3×3 window of each cell holds a cell of this state.
    fn near(&self, state: bool) -> Vec<bool> {
        let mut near = Vec::with_capacity(self.cells.len());
        for row in 0..self.rows {
            let rows = row.saturating_sub(1)..(row + 2).min(self.rows);
            for column in 0..self.columns {
                let columns = column.saturating_sub(1)..(column + 2).min(self.columns);
                near.push(rows.clone().any(|row| {
                    let start = row * self.columns;
                    self.cells[start + columns.start..start + columns.end].contains(&state)
                }));
            }
        }
        near
    }

    /// Size and bounds of the largest 4-connected piece; of equal ones the first from the top.
    fn largest_piece(mut self) -> Option<(usize, Bounds)> {
        let mut largest: Option<(usize, Bounds)> = None;
        for start in 0..self.cells.len() {
            if self.cells[start] {
                let piece = self.take_piece(start);
                if largest.is_none_or(|(cells, _)| piece.0 > cells) {
                    largest = Some(piece);
                }
            }
        }
        largest
    }

    /// Clears the piece around `start` and says how large it was.
    fn take_piece(&mut self, start: usize) -> (usize, Bounds) {
        let (row, column) = (start / self.columns, start % self.columns);
        let mut bounds = Bounds { top: row, left: column, bottom: row + 1, right: column + 1 };
        let mut count = 0;
        let mut open = vec![start];
        self.cells[start] = false;
        while let Some(position) = open.pop() {
            count += 1;
            let (row, column) = (position / self.columns, position % self.columns);
            bounds.top = bounds.top.min(row);
            bounds.left = bounds.left.min(column);
            bounds.bottom = bounds.bottom.max(row + 1);
            bounds.right = bounds.right.max(column + 1);
            let neighbours = [
                (row > 0).then(|| position - self.columns),
                (row + 1 < self.rows).then(|| position + self.columns),
                (column > 0).then(|| position - 1),
                (column + 1 < self.columns).then(|| position + 1),
            ];
            for neighbour in neighbours.into_iter().flatten() {
                if std::mem::take(&mut self.cells[neighbour]) {
                    open.push(neighbour);
                }
            }
        }
        (count, bounds)
    }
}

/// `side`×`side` pixels about the middle of `bounds`.
fn square(image: &RgbImage, bounds: Bounds, side: usize) -> RgbImage {
    // Where the square starts, which may be before the image does.
    let start = |from: usize, to: usize| (from + to) as isize / 2 - side as isize / 2;
    let (top, left) = (start(bounds.top, bounds.bottom), start(bounds.left, bounds.right));
    let skipped = left.max(0) as usize;
    let filled = (left + side as isize).min(image.width as isize).max(0) as usize;
    let mut pixels = vec![0; side * side * 3];
    for (row, target) in (top..).zip(pixels.chunks_exact_mut(side * 3)) {
        if (0..image.height as isize).contains(&row) && filled > skipped {
            let begin = row as usize * image.width;
            let source = &image.pixels[(begin + skipped) * 3..(begin + filled) * 3];
            let offset = (skipped as isize - left) as usize * 3;
            target[offset..offset + source.len()].copy_from_slice(source);
        }
    }
    RgbImage { width: side, height: side, pixels }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Black but for grey rectangles of `[top, left, bottom, right]`.
    fn drawn(width: usize, height: usize, rectangles: &[[usize; 4]]) -> RgbImage {
        let mut pixels = vec![0; width * height * 3];
        for &[top, left, bottom, right] in rectangles {
            for row in top..bottom {
                pixels[(row * width + left) * 3..(row * width + right) * 3].fill(100);
            }
        }
        RgbImage { width, height, pixels }
    }

    #[test]
    fn the_body_is_framed_with_a_margin_and_the_table_left_out() {
        // The table: 2 pixels thick, as wide as the image, below the body.
        let image = drawn(128, 128, &[[20, 30, 70, 90], [100, 0, 102, 128]]);
        let cropped = crop_to_body(&image);
        // 60 columns and 2 % of them, 1, on each side.
        assert_eq!((cropped.width, cropped.height), (62, 62));
        // The middle, row 45 and column 60, comes to row and column 31.
        let expected = drawn(62, 62, &[[6, 1, 56, 61]]);
        assert_eq!(cropped, expected);
    }

    #[test]
    fn a_body_at_the_edge_is_padded_with_black() {
        let image = drawn(100, 60, &[[0, 0, 60, 50]]);
        let cropped = crop_to_body(&image);
        assert_eq!((cropped.width, cropped.height), (62, 62));
        assert_eq!(cropped, drawn(62, 62, &[[1, 6, 61, 56]]));
    }

    #[test]
    fn the_larger_of_two_pieces_is_the_body() {
        let image = drawn(100, 100, &[[0, 0, 10, 10], [40, 40, 90, 90]]);
        assert_eq!(crop_to_body(&image), drawn(52, 52, &[[1, 1, 51, 51]]));
    }

    #[test]
    fn without_a_body_the_image_is_squared() {
        assert_eq!(crop_to_body(&drawn(10, 4, &[])), drawn(10, 10, &[]));
        let dot = drawn(100, 100, &[[50, 50, 54, 54]]);
        assert_eq!(crop_to_body(&dot), dot);
    }

    #[test]
    fn any_size_is_framed() {
        for (width, height) in [(1, 1), (1, 300), (513, 2), (129, 127)] {
            let image = drawn(width, height, &[[0, 0, height, width]]);
            let cropped = crop_to_body(&image);
            assert_eq!(cropped.width, cropped.height);
            assert!(cropped.width >= width.max(height));
        }
    }
}
