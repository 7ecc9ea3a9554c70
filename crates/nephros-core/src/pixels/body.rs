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
    /// The band that is as wide as the body and has the proportions of the network's input, about the middle of
    /// the body's height, not stretched; of the whole image where no body is found. Twice as wide as high, it
    /// shows the kidneys larger than a square does, and of what lies above and below them less.
    Band,
}

impl Crop {
    /// Whether the image stays whole.
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// What of an image is taken for an input of so many rows and columns, about the body as it is told by `body`.
    pub fn frame(self, body: BodyOf, image: &RgbImage, rows: usize, columns: usize) -> Frame {
        let whole = Bounds { top: 0, left: 0, bottom: image.height, right: image.width };
        let body = match body {
            _ if self.is_none() => None,
            BodyOf::LargestPiece => find_body(image),
            BodyOf::AllPieces => {
                find_body(image).map(|body| all_pieces(image).map_or(body, |all| all.joined(body)))
            }
        };
        let margin = if body.is_some() { MARGIN } else { 0.0 };
        let bounds = body.unwrap_or(whole);
        match self {
            Self::None => Frame::whole(image),
            Self::Body => bounds.squared(margin),
            Self::Band => bounds.band(margin, rows as f64 / columns.max(1) as f64),
        }
    }
}

/// What of the tissue in an image is the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyOf {
    /// The largest piece. In a window where fat is as dark as air that may be the muscles of the back alone.
    #[default]
    LargestPiece,
    /// All pieces that take 0.5 % of the image.
    AllPieces,
}

impl BodyOf {
    /// Whether it is what bundles mean that do not say it.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Mean of red, green and blue from which a pixel may be the patient. Air is 0 in an abdominal
/// window; at 40/400 this level is -113 HU, between lung and fat.
pub(crate) const TISSUE: usize = 30;
/// Cells along the longer side of the grid that the body is looked for on.
const GRID: usize = 128;
/// The body takes at least this part of the image, or there is none.
const LEAST_SHARE: f64 = 0.02;
/// A piece of a body takes at least this part of the image: letters and marks take less.
const LEAST_PIECE: f64 = 0.005;
/// Width of the margin around the body, as part of the longer side of its box.
const MARGIN: f64 = 0.02;

/// Longest side of what is cut out, in pixels. The square about an image of 40 million pixels in one row
/// would have 1.6 quadrillion; no slice comes near this.
const LONGEST_SIDE: usize = 4096;
/// Rows of a band, at most: whatever the proportions, they can be counted.
const HIGHEST_BAND: f64 = 1e9;

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

impl Bounds {
    /// Of cells of `cell`×`cell` pixels, the last of which may leave the image.
    fn in_pixels(self, cell: usize, image: &RgbImage) -> Self {
        Self {
            top: self.top * cell,
            left: self.left * cell,
            bottom: (self.bottom * cell).min(image.height),
            right: (self.right * cell).min(image.width),
        }
    }

    /// Around both.
    fn joined(self, other: Self) -> Self {
        Self {
            top: self.top.min(other.top),
            left: self.left.min(other.left),
            bottom: self.bottom.max(other.bottom),
            right: self.right.max(other.right),
        }
    }
}

/// A rectangle of an image, in its pixels; it may leave the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Row of the first pixel.
    pub top: isize,
    /// Column of the first pixel.
    pub left: isize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Frame {
    /// The whole image.
    pub fn whole(image: &RgbImage) -> Self {
        Self { top: 0, left: 0, height: image.height, width: image.width }
    }

    /// Where the middle of an image's pixel lies in the frame, as shares of its height and width
    /// from 0 to 1; `None` outside of it.
    pub fn relative(&self, row: usize, column: usize) -> Option<(f32, f32)> {
        let share = |at: usize, start: isize, length: usize| {
            let inside = usize::try_from(at as isize - start).ok().filter(|inside| *inside < length)?;
            Some((inside as f32 + 0.5) / length as f32)
        };
        Some((share(row, self.top, self.height)?, share(column, self.left, self.width)?))
    }
}

impl Bounds {
    /// The square about the middle that holds the box, wider by `margin` of its longer side all round.
    fn squared(self, margin: f64) -> Frame {
        let longer = (self.bottom - self.top).max(self.right - self.left);
        let side = longer + 2 * (longer as f64 * margin).round() as usize;
        // Where the square starts, which may be before the image does.
        let start = |from: usize, to: usize| (from + to) as isize / 2 - side as isize / 2;
        let (top, left) = (start(self.top, self.bottom), start(self.left, self.right));
        Frame { top, left, height: side, width: side }
    }

    /// About the middle, as wide as the box and `margin` of its width on each side, and `proportion` as high.
    fn band(self, margin: f64, proportion: f64) -> Frame {
        let width = self.right - self.left;
        let width = width + 2 * (width as f64 * margin).round() as usize;
        let height = (width as f64 * proportion).round().clamp(1.0, HIGHEST_BAND) as usize;
        let start = |from: usize, to: usize, length: usize| (from + to) as isize / 2 - length as isize / 2;
        let (top, left) = (start(self.top, self.bottom, height), start(self.left, self.right, width));
        Frame { top, left, height, width }
    }
}

/// The square around a body that was found already.
pub(crate) fn crop_about(image: &RgbImage, body: Bounds) -> RgbImage {
    cut(image, body.squared(MARGIN))
}

/// The box around all pieces of tissue that take 0.5 % of the image, once what is thinner than three
/// cells, such as the table and tubes, is taken away: also that of a body which falls into pieces because
/// its fat is darker than tissue. `None` where there is none.
pub fn tissue_box(image: &RgbImage) -> Option<Frame> {
    let Bounds { top, left, bottom, right } = all_pieces(image)?;
    let (height, width) = (bottom - top, right - left);
    Some(Frame { top: top as isize, left: left as isize, height, width })
}

/// As [`tissue_box`], in pixels of the image.
fn all_pieces(image: &RgbImage) -> Option<Bounds> {
    let cell = image.width.max(image.height).div_ceil(GRID);
    let mut mask = tissue(image, cell).eroded().dilated();
    let least = LEAST_PIECE * (image.width * image.height) as f64 / (cell * cell) as f64;
    let mut all: Option<Bounds> = None;
    for start in 0..mask.cells.len() {
        if !mask.cells[start] {
            continue;
        }
        let (cells, piece) = mask.take_piece(start);
        if cells as f64 >= least {
            all = Some(all.map_or(piece, |all| all.joined(piece)));
        }
    }
    all.map(|bounds| bounds.in_pixels(cell, image))
}

/// The largest connected piece of tissue, once what is thinner than three cells, such as the table
/// and tubes, is taken away.
pub(crate) fn find_body(image: &RgbImage) -> Option<Bounds> {
    let cell = image.width.max(image.height).div_ceil(GRID);
    let mask = tissue(image, cell).eroded().dilated();
    let (cells, bounds) = mask.largest_piece()?;
    let share = (cells * cell * cell) as f64 / (image.width * image.height) as f64;
    (share >= LEAST_SHARE).then(|| bounds.in_pixels(cell, image))
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

/// The pixels of a frame, black where it leaves the image. Of more than 4096 rows or columns as many are taken,
/// spread over the frame.
pub fn cut(image: &RgbImage, frame: Frame) -> RgbImage {
    if frame.width > LONGEST_SIDE || frame.height > LONGEST_SIDE {
        return sampled(image, frame);
    }
    let Frame { top, left, height, width } = frame;
    let skipped = left.max(0) as usize;
    let filled = (left + width as isize).min(image.width as isize).max(0) as usize;
    let mut pixels = vec![0; height * width * 3];
    for (row, target) in (top..).zip(pixels.chunks_exact_mut(width * 3)) {
        if (0..image.height as isize).contains(&row) && filled > skipped {
            let begin = row as usize * image.width;
            let source = &image.pixels[(begin + skipped) * 3..(begin + filled) * 3];
            let offset = (skipped as isize - left) as usize * 3;
            target[offset..offset + source.len()].copy_from_slice(source);
        }
    }
    RgbImage { width, height, pixels }
}

/// As [`cut`], of a frame that is larger than what is cut out may be.
fn sampled(image: &RgbImage, frame: Frame) -> RgbImage {
    let (height, width) = (frame.height.min(LONGEST_SIDE), frame.width.min(LONGEST_SIDE));
    // Of `taken` places spread over `length`, the one with this index.
    let place = |index: usize, taken: usize, start: isize, length: usize, end: usize| {
        let place = start + (index * length / taken) as isize;
        usize::try_from(place).ok().filter(|place| *place < end)
    };
    let mut pixels = vec![0; height * width * 3];
    for (row, target) in pixels.chunks_exact_mut(width * 3).enumerate() {
        let Some(row) = place(row, height, frame.top, frame.height, image.height) else { continue };
        for (column, target) in target.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            if let Some(column) = place(column, width, frame.left, frame.width, image.width) {
                let pixel = (row * image.width + column) * 3;
                target.copy_from_slice(&image.pixels[pixel..pixel + 3]);
            }
        }
    }
    RgbImage { width, height, pixels }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body_frame(image: &RgbImage) -> Frame {
        Crop::Body.frame(BodyOf::LargestPiece, image, 1, 1)
    }

    fn crop_to_body(image: &RgbImage) -> RgbImage {
        cut(image, body_frame(image))
    }

    #[test]
    fn the_square_about_a_long_image_stays_small() {
        // Found by fuzzing: a PNG of some KB with 3 million pixels in a row asked for 27 TB, which ends a server.
        let row = RgbImage { width: 3_000_000, height: 1, pixels: vec![100; 9_000_000] };
        let cropped = crop_to_body(&row);
        assert_eq!((cropped.width, cropped.height), (LONGEST_SIDE, LONGEST_SIDE));
        // 8192 by 8192, left half bright: columns 0, 2, … are taken, so that 2048 of 4096 are bright.
        let mut pixels = vec![0; 8192 * 8192 * 3];
        for row in pixels.chunks_exact_mut(8192 * 3) {
            row[..4096 * 3].fill(100);
        }
        let halves = RgbImage { width: 8192, height: 8192, pixels };
        let whole = Frame { top: 0, left: 0, height: 8192, width: 8192 };
        let cropped = cut(&halves, whole);
        let (row, _) = cropped.pixels.split_at(LONGEST_SIDE * 3);
        assert!(row[..2048 * 3].iter().all(|&value| value == 100));
        assert!(row[2048 * 3..].iter().all(|&value| value == 0));
    }

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
    fn pieces_of_a_body_are_in_the_box_of_tissue_and_table_and_letters_are_not() {
        let (wall, table, letter) = ([80, 8, 90, 20], [100, 0, 102, 128], [2, 2, 8, 8]);
        let image = drawn(128, 128, &[[20, 30, 70, 90], wall, table, letter]);
        // The wall takes 120 of 16384 pixels, the letter 36.
        assert_eq!(tissue_box(&image), Some(Frame { top: 20, left: 8, height: 70, width: 82 }));
        assert_eq!(tissue_box(&drawn(10, 4, &[])), None);
    }

    #[test]
    fn a_body_in_pieces_is_framed_whole_where_all_count() {
        let (back, wall, table, letter) =
            ([60, 40, 90, 90], [30, 20, 90, 26], [100, 0, 102, 128], [2, 2, 8, 8]);
        let image = drawn(128, 128, &[back, wall, table, letter]);
        // 50 columns and 1 on each side; 70 and 1, from the wall on.
        let framed = |body| Crop::Band.frame(body, &image, 1, 1);
        assert_eq!(framed(BodyOf::LargestPiece), Frame { top: 49, left: 39, height: 52, width: 52 });
        assert_eq!(framed(BodyOf::AllPieces), Frame { top: 24, left: 19, height: 72, width: 72 });
        // Of a body in one piece both are the same, and where there is none.
        for image in [drawn(128, 128, &[back, table]), drawn(100, 100, &[[50, 50, 54, 54]])] {
            let [largest, all] =
                [BodyOf::LargestPiece, BodyOf::AllPieces].map(|body| Crop::Body.frame(body, &image, 1, 1));
            assert_eq!(largest, all);
        }
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
    fn a_pixel_is_found_again_in_the_frame() {
        // 50 columns in 62: the frame starts 6 columns before the image.
        let frame = body_frame(&drawn(100, 60, &[[0, 0, 60, 50]]));
        assert_eq!(frame, Frame { top: -1, left: -6, height: 62, width: 62 });
        assert_eq!(frame.relative(0, 0), Some((1.5 / 62.0, 6.5 / 62.0)));
        assert_eq!(frame.relative(0, 56), None); // 56 + 6 is the first beyond
        assert_eq!(frame.relative(59, 55), Some((60.5 / 62.0, 61.5 / 62.0)));
    }

    #[test]
    fn the_crop_shows_what_the_frame_says() {
        let mut image = drawn(90, 70, &[[8, 31, 60, 88]]);
        // Every pixel another colour, none of them dark.
        for (at, value) in image.pixels.iter_mut().enumerate().filter(|(_, value)| **value > 0) {
            *value = 60 + (at * 7 % 190) as u8;
        }
        let (frame, cropped) = (body_frame(&image), crop_to_body(&image));
        assert_eq!((frame.height, frame.width), (cropped.height, cropped.width));
        let mut inside = 0;
        for (row, column) in (0..70).flat_map(|row| (0..90).map(move |column| (row, column))) {
            let Some((y, x)) = frame.relative(row, column) else { continue };
            let at = (y * frame.height as f32) as usize * cropped.width + (x * frame.width as f32) as usize;
            let from = (row * 90 + column) * 3;
            assert_eq!(cropped.pixels[3 * at..3 * at + 3], image.pixels[from..from + 3]);
            inside += 1;
        }
        assert!(inside >= 52 * 57, "{inside}"); // the whole rectangle
    }

    #[test]
    fn a_band_is_as_wide_as_the_body_and_has_the_proportions_of_the_input() {
        // 60 columns and 1 on each side; the middle is row 45 and column 60.
        let image = drawn(128, 128, &[[20, 30, 70, 90], [100, 0, 102, 128]]);
        let frame = Crop::Band.frame(BodyOf::LargestPiece, &image, 112, 224);
        assert_eq!(frame, Frame { top: 30, left: 29, height: 31, width: 62 });
        assert_eq!(cut(&image, frame), drawn(62, 31, &[[0, 1, 31, 61]]));
        // A square input of a body that is wider than high is that of the other crop.
        assert_eq!(Crop::Band.frame(BodyOf::LargestPiece, &image, 64, 64), body_frame(&image));
        // Higher than the body, and beyond the image.
        assert_eq!(
            Crop::Band.frame(BodyOf::LargestPiece, &image, 3, 1),
            Frame { top: 45 - 93, left: 29, height: 186, width: 62 }
        );
        let nothing = drawn(40, 100, &[]);
        assert_eq!(
            Crop::Band.frame(BodyOf::LargestPiece, &nothing, 1, 2),
            Frame { top: 40, left: 0, height: 20, width: 40 }
        );
    }

    #[test]
    fn any_size_is_framed() {
        for (width, height) in [(1, 1), (1, 300), (513, 2), (129, 127), (1, 30_000)] {
            let image = drawn(width, height, &[[0, 0, height, width]]);
            let cropped = crop_to_body(&image);
            assert_eq!(cropped.width, cropped.height);
            assert!(cropped.width >= width.max(height).min(LONGEST_SIDE));
            for (rows, columns) in [(1, 1), (1, 1_000_000), (1_000_000, 1), (0, 0)] {
                let frame = Crop::Band.frame(BodyOf::LargestPiece, &image, rows, columns);
                let cropped = cut(&image, frame);
                assert_eq!(cropped.width, frame.width);
                assert_eq!(cropped.height, frame.height.min(LONGEST_SIDE));
                assert!(cropped.height > 0);
            }
        }
    }
}
