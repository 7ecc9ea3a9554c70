//! The perceptual hash of a picture, by which copies are known among thousands.

use std::{f64::consts::PI, sync::LazyLock};

use super::{Resample, RgbImage, resize};

/// Rows and columns of the grey picture that is hashed.
pub const HASHED_SIDE: usize = 64;
/// Rows and columns that the frequencies are computed from.
const HASH_SIDE: usize = 32;
/// Rows and columns of the lowest frequencies.
const FREQUENCIES: usize = 8;

/// The hash of a decoded picture, whatever its size.
pub fn hash_of(image: &RgbImage) -> u64 {
    let small = resize(image, HASHED_SIDE, HASHED_SIDE, Resample::Bilinear);
    let grey: Vec<u8> = small.pixels().as_chunks().0.iter().copied().map(luma).collect();
    perceptual_hash(&grey)
}

/// ITU-R 601-2, as PIL's `convert("L")`.
pub fn luma([red, green, blue]: [u8; 3]) -> u8 {
    let weighted = 19595 * u32::from(red) + 38470 * u32::from(green) + 7471 * u32::from(blue);
    ((weighted + 0x8000) >> 16) as u8
}

/// Means over squares: `[side, side]` to `[smaller, smaller]`.
pub fn pooled(grey: &[u8], side: usize, smaller: usize) -> Vec<f64> {
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

/// Which of the 8×8 lowest frequencies of the discrete cosine transform of a grey
/// `[HASHED_SIDE, HASHED_SIDE]` picture are above their median.
///
/// Source: Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010, 3.2.1.
pub fn perceptual_hash(grey: &[u8]) -> u64 {
    let pooled = pooled(grey, HASHED_SIDE, HASH_SIDE);
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

    #[test]
    fn means_over_squares() {
        let grey: Vec<u8> = (0..16).collect();
        // (0 + 1 + 4 + 5) / 4, and 2 more to the right, 8 more below.
        assert_eq!(pooled(&grey, 4, 2), [2.5, 4.5, 10.5, 12.5]);
    }
}
