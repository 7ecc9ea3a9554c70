//! What a picture is like before any network looks at it.

use super::orientation::{self, Picture, picture_of};
use crate::pixels::{
    Bounds, Resample, RgbImage, TISSUE, crop_about, find_body,
    hash::{hash_of, luma},
    resize,
};

/// Longer side of the small picture that is measured, so that figures of pictures of different
/// sizes can be compared.
const SIDE: usize = 256;
/// Bins of the histogram of grey values, each of 8 levels.
pub(super) const BINS: usize = 32;
/// Grey levels of a bin.
const LEVELS_OF_BIN: usize = 256 / BINS;
/// Difference between the largest and smallest of red, green and blue from which a pixel has a
/// colour; JPEG leaves less in a grey picture.
const COLOURED: u8 = 24;
/// Grey value from which a pixel is white: JPEG moves 255 a little.
const WHITE: u8 = 252;
/// Grey value up to which a pixel is black.
const BLACK: u8 = 3;
/// Grey levels between the darkest and the lightest pixel below which a picture is empty.
const FLAT: u8 = 8;
/// Width of the edge of the picture, as part of the longer side.
const EDGE: usize = 20;
/// Part of the body's pixels that are its brightest: bone, and vessels with contrast medium.
const BRIGHTEST: f64 = 0.05;

/// Figures of one picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Traits {
    /// Shorter side, in pixels.
    pub(super) side: usize,
    /// Perceptual hash.
    pub(super) hash: u64,
    /// Share of pixels with a colour.
    pub(super) chroma: f64,
    /// Figures of the body; `None` where none is found or the picture is one grey value.
    pub(super) body: Option<BodyTraits>,
}

/// Figures of the body in a slice.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct BodyTraits {
    /// Shares of the tissue's pixels with a grey value of at most 7, 15, … 255.
    pub(super) grey: [f32; BINS],
    /// Share of the tissue's pixels that are white.
    pub(super) white: f64,
    /// Share of the pixels between the left and right border of the body that are black.
    pub(super) black: f64,
    /// Natural logarithm of the mean size of the Laplacian in tissue, over the standard deviation
    /// of its grey values.
    pub(super) detail: f64,
    /// Share of the picture's edge that is darker than tissue.
    pub(super) surround: f64,
    /// Share of the picture that the body's box takes.
    pub(super) share: f64,
    /// Natural logarithm of the width of the body's box over its height.
    pub(super) aspect: f64,
    /// Mean row of the brightest tissue, 0 at the top of the body's box and 1 at its bottom.
    pub(super) bright_row: f64,
    /// Mean column of the brightest tissue, 0 to 1 from left to right.
    pub(super) bright_column: f64,
    /// The square about the body.
    pub(super) picture: Picture,
}

impl Traits {
    /// Measures a picture.
    pub fn of(image: &RgbImage) -> Self {
        let small = shrunk(image);
        let grey = Grey::of(&small);
        let flat = grey
            .values
            .iter()
            .max()
            .zip(grey.values.iter().min())
            .is_none_or(|(&most, &least)| most - least < FLAT);
        let body = find_body(&small).filter(|_| !flat);
        Self {
            side: image.width().min(image.height()),
            hash: hash_of(image),
            chroma: chroma(&small),
            body: body.and_then(|bounds| BodyTraits::of(&small, &grey, bounds)),
        }
    }
}

/// The picture with a longer side of at most [`SIDE`].
fn shrunk(image: &RgbImage) -> RgbImage {
    let longer = image.width().max(image.height());
    let side = |length: usize| (length * SIDE).div_ceil(longer).max(1);
    resize(image, side(image.width()), side(image.height()), Resample::Bilinear)
}

fn chroma(image: &RgbImage) -> f64 {
    let pixels = image.pixels().as_chunks::<3>().0;
    let coloured =
        |&&[red, green, blue]: &&[u8; 3]| red.max(green).max(blue) - red.min(green).min(blue) > COLOURED;
    share(pixels.iter().filter(coloured).count(), pixels.len())
}

fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn is_tissue(value: u8) -> bool {
    usize::from(value) >= TISSUE
}

/// `[height, width]` grey values.
struct Grey {
    width: usize,
    height: usize,
    values: Vec<u8>,
}

impl Grey {
    fn of(image: &RgbImage) -> Self {
        let values = image.pixels().as_chunks().0.iter().copied().map(luma).collect();
        Self { width: image.width(), height: image.height(), values }
    }

    fn row(&self, row: usize) -> &[u8] {
        &self.values[row * self.width..(row + 1) * self.width]
    }

    /// Share of the edge that is darker than tissue.
    fn dark_edge(&self) -> f64 {
        let edge = (self.width.max(self.height) / EDGE).max(1);
        let near = |position: usize, length: usize| position < edge || position + edge >= length;
        let (mut dark, mut all) = (0, 0);
        for row in 0..self.height {
            for (column, &value) in self.row(row).iter().enumerate() {
                if near(row, self.height) || near(column, self.width) {
                    all += 1;
                    dark += usize::from(!is_tissue(value));
                }
            }
        }
        share(dark, all)
    }

    /// Size of the Laplacian at a pixel that has four neighbours; `None` unless all are tissue, so
    /// that borders of the body and of air in it do not count.
    fn laplacian(&self, row: usize, column: usize) -> Option<f64> {
        let at = |row: usize, column: usize| self.values[row * self.width + column];
        let centre = at(row, column);
        let around = [at(row - 1, column), at(row + 1, column), at(row, column - 1), at(row, column + 1)];
        let all_tissue = is_tissue(centre) && around.iter().all(|&value| is_tissue(value));
        all_tissue.then(|| {
            (around.iter().map(|&value| f64::from(value)).sum::<f64>() - 4.0 * f64::from(centre)).abs()
        })
    }

    /// Mean of [`Self::laplacian`] in a box.
    fn mean_laplacian(&self, bounds: Bounds) -> f64 {
        let (mut sum, mut count) = (0.0, 0_usize);
        for row in bounds.top.max(1)..bounds.bottom.min(self.height - 1) {
            for column in bounds.left.max(1)..bounds.right.min(self.width - 1) {
                if let Some(size) = self.laplacian(row, column) {
                    sum += size;
                    count += 1;
                }
            }
        }
        sum / count.max(1) as f64
    }

    /// Share of black pixels between the first and the last tissue of each row of a box.
    fn black_inside(&self, bounds: Bounds) -> f64 {
        let (mut black, mut all) = (0, 0);
        for row in bounds.top..bounds.bottom {
            let values = &self.row(row)[bounds.left..bounds.right];
            let first = values.iter().position(|&value| is_tissue(value));
            let last = values.iter().rposition(|&value| is_tissue(value));
            if let Some((first, last)) = first.zip(last) {
                all += last + 1 - first;
                black += values[first..=last].iter().filter(|&&value| value <= BLACK).count();
            }
        }
        share(black, all)
    }
}

impl BodyTraits {
    /// `None` where the box holds no tissue.
    fn of(image: &RgbImage, grey: &Grey, bounds: Bounds) -> Option<Self> {
        let (height, width) = (bounds.bottom - bounds.top, bounds.right - bounds.left);
        let counts = counts(grey, bounds);
        let pixels: usize = counts.iter().sum();
        if pixels == 0 {
            return None;
        }
        let square = crop_about(image, bounds);
        let glance = resize(&square, orientation::SIDE, orientation::SIDE, Resample::Bilinear);
        let cumulative = cumulative(&counts, pixels);
        let (bright_row, bright_column) = brightest(grey, bounds, &counts, pixels);
        // A body of one grey value has no detail at all, which a logarithm cannot say.
        let relative = grey.mean_laplacian(bounds).max(1e-3) / deviation(&counts, pixels).max(1e-3);
        Some(Self {
            grey: cumulative,
            white: share(counts[usize::from(WHITE)..].iter().sum(), pixels),
            black: grey.black_inside(bounds),
            detail: relative.ln(),
            surround: grey.dark_edge(),
            share: share(height * width, grey.values.len()),
            aspect: (width as f64 / height as f64).ln(),
            bright_row,
            bright_column,
            picture: picture_of(glance.pixels())?,
        })
    }
}

/// Number of tissue pixels of each grey value in a box.
fn counts(grey: &Grey, bounds: Bounds) -> [usize; 256] {
    let mut counts = [0; 256];
    for row in bounds.top..bounds.bottom {
        for &value in grey.row(row)[bounds.left..bounds.right].iter().filter(|&&value| is_tissue(value)) {
            counts[usize::from(value)] += 1;
        }
    }
    counts
}

fn cumulative(counts: &[usize; 256], pixels: usize) -> [f32; BINS] {
    let mut sum = 0;
    let mut bins = counts.chunks_exact(LEVELS_OF_BIN);
    std::array::from_fn(|_| {
        sum += bins.next().map_or(0, |bin| bin.iter().sum());
        share(sum, pixels) as f32
    })
}

fn deviation(counts: &[usize; 256], pixels: usize) -> f64 {
    let moment = |power: i32| {
        let terms =
            counts.iter().enumerate().map(|(value, &count)| count as f64 * (value as f64).powi(power));
        terms.sum::<f64>() / pixels as f64
    };
    (moment(2) - moment(1).powi(2)).max(0.0).sqrt()
}

/// Mean row and column of the brightest tissue, in parts of the box.
fn brightest(grey: &Grey, bounds: Bounds, counts: &[usize; 256], pixels: usize) -> (f64, f64) {
    let wanted = ((pixels as f64 * BRIGHTEST).ceil() as usize).max(1);
    let mut found = 0;
    let level = counts.iter().rposition(|&count| {
        found += count;
        found >= wanted
    });
    let level = level.unwrap_or_default();
    let (mut rows, mut columns, mut count) = (0, 0, 0_usize);
    for row in bounds.top..bounds.bottom {
        for column in bounds.left..bounds.right {
            if usize::from(grey.row(row)[column]) >= level {
                rows += row - bounds.top;
                columns += column - bounds.left;
                count += 1;
            }
        }
    }
    let mean = |sum: usize, length: usize| (sum as f64 / count.max(1) as f64 + 0.5) / length as f64;
    (mean(rows, bounds.bottom - bounds.top), mean(columns, bounds.right - bounds.left))
}
