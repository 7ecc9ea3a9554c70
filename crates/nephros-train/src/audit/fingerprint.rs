//! What is remembered of a picture: enough to know it, and what resembles it, among thousands.

use std::{f64::consts::PI, sync::LazyLock};

use nephros_core::{
    digest::sha256,
    pixels::{Resample, RgbImage, resize},
};

/// Rows and columns of the small grey picture that resemblance is measured on. Neighbouring slices
/// of one patient still agree at this size; at 16×16, so do those of different patients.
pub const SIDE: usize = 64;
/// Rows and columns of the still smaller one that most pairs are told apart on.
pub const COARSE_SIDE: usize = 16;
/// Pixels of the coarse picture.
pub const COARSE: usize = COARSE_SIDE * COARSE_SIDE;
/// Rows and columns that the perceptual hash is computed from.
const HASH_SIDE: usize = 32;
/// Rows and columns of its lowest frequencies.
const FREQUENCIES: usize = 8;

/// One picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Fingerprint {
    /// SHA-256 of size and decoded pixels.
    pub pixels: String,
    /// Perceptual hash: a bit for each low frequency above the median.
    pub hash: u64,
    /// Grey, `[SIDE, SIDE]`.
    grey: Vec<u8>,
    /// Sum of `grey`.
    sum: f64,
    /// Root of `SIDE² Σ grey² - (Σ grey)²`; 0 for a flat picture.
    spread: f64,
}

impl Fingerprint {
    /// Takes the fingerprint of a decoded picture.
    pub fn of(image: &RgbImage) -> Self {
        let small = resize(image, SIDE, SIDE, Resample::Bilinear);
        let grey: Vec<u8> = small.pixels().as_chunks().0.iter().copied().map(luma).collect();
        let sum = grey.iter().map(|&value| f64::from(value)).sum::<f64>();
        let squares = grey.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>();
        let spread = ((SIDE * SIDE) as f64 * squares - sum * sum).max(0.0).sqrt();
        let mut content = format!("{}x{} ", image.width(), image.height()).into_bytes();
        content.extend_from_slice(image.pixels());
        Self { pixels: sha256(&content), hash: perceptual_hash(&grey), grey, sum, spread }
    }

    /// Correlation of the small pictures, -1 to 1: brightness and contrast play no part. A flat
    /// picture resembles none.
    pub fn correlation(&self, other: &Self) -> f32 {
        // 64² * 255² fits in 32 bits.
        let products: u32 =
            self.grey.iter().zip(&other.grey).map(|(&a, &b)| u32::from(a) * u32::from(b)).sum();
        let covariance = (SIDE * SIDE) as f64 * f64::from(products) - self.sum * other.sum;
        let spread = self.spread * other.spread;
        if spread > 0.0 { (covariance / spread) as f32 } else { 0.0 }
    }

    /// Bits in which the perceptual hashes differ, 0 to 64.
    pub fn hash_distance(&self, other: &Self) -> u32 {
        (self.hash ^ other.hash).count_ones()
    }

    /// The picture at [`COARSE_SIDE`], less its mean; no value exceeds 1020 in size, so that a sum of
    /// [`COARSE`] products fits in 32 bits.
    pub fn coarse(&self) -> [i16; COARSE] {
        let sums = pooled(&self.grey, SIDE, COARSE_SIDE);
        let mean = sums.iter().sum::<f64>() / COARSE as f64;
        let mut values = [0; COARSE];
        for (value, sum) in values.iter_mut().zip(sums) {
            *value = ((sum - mean) * 4.0).round() as i16;
        }
        values
    }
}

/// ITU-R 601-2, as PIL's `convert("L")`.
fn luma([red, green, blue]: [u8; 3]) -> u8 {
    let weighted = 19595 * u32::from(red) + 38470 * u32::from(green) + 7471 * u32::from(blue);
    ((weighted + 0x8000) >> 16) as u8
}

/// Means over squares: `[side, side]` to `[smaller, smaller]`.
fn pooled(grey: &[u8], side: usize, smaller: usize) -> Vec<f64> {
    let square = side / smaller;
    let mut means = vec![0.0; smaller * smaller];
    for (row, values) in grey.chunks_exact(side).enumerate() {
        for (column, &value) in values.iter().enumerate() {
            means[row / square * smaller + column / square] += f64::from(value) / (square * square) as f64;
        }
    }
    means
}

/// Cosines of the lowest frequencies, `[FREQUENCIES, HASH_SIDE]`.
static COSINES: LazyLock<Vec<[f64; HASH_SIDE]>> = LazyLock::new(|| {
    let cosine = |frequency: usize, position: usize| {
        (PI / HASH_SIDE as f64 * (position as f64 + 0.5) * frequency as f64).cos()
    };
    (0..FREQUENCIES).map(|frequency| std::array::from_fn(|position| cosine(frequency, position))).collect()
});

/// Which of the 8×8 lowest frequencies of the discrete cosine transform are above their median.
///
/// Source: Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010, 3.2.1.
fn perceptual_hash(grey: &[u8]) -> u64 {
    let pooled = pooled(grey, SIDE, HASH_SIDE);
    // [HASH_SIDE, FREQUENCIES]
    let rows: Vec<[f64; FREQUENCIES]> = pooled
        .chunks_exact(HASH_SIDE)
        .map(|row| std::array::from_fn(|frequency| dot(row, &COSINES[frequency])))
        .collect();
    let mut coefficients = Vec::with_capacity(FREQUENCIES * FREQUENCIES);
    for vertical in COSINES.iter() {
        for horizontal in 0..FREQUENCIES {
            let column = rows.iter().map(|row| row[horizontal]);
            coefficients.push(column.zip(vertical).map(|(value, cosine)| value * cosine).sum::<f64>());
        }
    }
    let mut sorted = coefficients.clone();
    sorted.sort_by(f64::total_cmp);
    let median = sorted[sorted.len() / 2];
    coefficients.iter().fold(0, |hash, &coefficient| hash << 1 | u64::from(coefficient > median))
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bright disc on a slope, so that no axis is like another.
    fn picture(size: usize, centre: (f64, f64), gain: f64) -> RgbImage {
        let mut pixels = Vec::new();
        for row in 0..size {
            for column in 0..size {
                let (y, x) = (row as f64 / size as f64, column as f64 / size as f64);
                let disc = (y - centre.0).hypot(x - centre.1) < 0.25;
                let value = (40.0 * x + 20.0 * y + if disc { 120.0 } else { 0.0 }) * gain;
                pixels.extend([value as u8; 3]);
            }
        }
        RgbImage::new(size, size, pixels).unwrap()
    }

    #[test]
    fn a_picture_resembles_its_smaller_and_darker_copy_and_not_another() {
        let original = Fingerprint::of(&picture(256, (0.4, 0.5), 1.0));
        let copy = Fingerprint::of(&picture(200, (0.4, 0.5), 0.7));
        let other = Fingerprint::of(&picture(256, (0.7, 0.3), 1.0));
        assert!(original.correlation(&copy) > 0.99, "{}", original.correlation(&copy));
        assert!(original.hash_distance(&copy) <= 6, "{}", original.hash_distance(&copy));
        assert!(original.correlation(&other) < 0.7, "{}", original.correlation(&other));
        assert!(original.hash_distance(&other) > 10, "{}", original.hash_distance(&other));
        assert_ne!(original.pixels, copy.pixels);
    }

    #[test]
    fn a_flat_picture_resembles_nothing() {
        let flat = Fingerprint::of(&RgbImage::new(8, 8, vec![9; 192]).unwrap());
        assert!(flat.correlation(&flat).abs() < f32::EPSILON);
        assert_eq!(flat.coarse(), [0; COARSE]);
    }

    #[test]
    fn the_digest_knows_the_shape() {
        let wide = Fingerprint::of(&RgbImage::new(4, 2, vec![9; 24]).unwrap());
        let high = Fingerprint::of(&RgbImage::new(2, 4, vec![9; 24]).unwrap());
        assert_ne!(wide.pixels, high.pixels);
    }

    #[test]
    fn means_over_squares() {
        let grey: Vec<u8> = (0..16).collect();
        // (0 + 1 + 4 + 5) / 4, and 2 more to the right, 8 more below.
        assert_eq!(pooled(&grey, 4, 2), [2.5, 4.5, 10.5, 12.5]);
    }
}
