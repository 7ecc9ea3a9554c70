//! What is remembered of a picture: enough to know it, and what resembles it, among thousands.

use nephros_core::{
    digest::sha256,
    pixels::{
        Resample, RgbImage,
        hash::{HASHED_SIDE, luma, perceptual_hash, pooled},
        resize,
    },
};

/// Rows and columns of the small grey picture that resemblance is measured on. Neighbouring slices
/// of one patient still agree at this size; at 16×16, so do those of different patients.
pub const SIDE: usize = HASHED_SIDE;
/// Rows and columns of the still smaller one that most pairs are told apart on.
pub const COARSE_SIDE: usize = 16;
/// Pixels of the coarse picture.
pub const COARSE: usize = COARSE_SIDE * COARSE_SIDE;

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
}
