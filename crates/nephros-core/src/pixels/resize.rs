//! `PIL.Image.resize`, bit for bit.
//!
//! Source: Pillow 13.0.0, `libImaging/Resample.c` (bilinear) and `libImaging/Geometry.c` (nearest).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::RgbImage;

/// Resampling filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resample {
    /// Triangle filter, widened when shrinking (PIL's `BILINEAR`).
    #[default]
    Bilinear,
    /// Nearest neighbour (PIL's `NEAREST`).
    Nearest,
}

/// Resizes to `width`×`height`, both at least 1 (0 is taken as 1).
pub fn resize(image: &RgbImage, width: usize, height: usize, resample: Resample) -> RgbImage {
    let (width, height) = (width.max(1), height.max(1));
    if (width, height) == (image.width, image.height) {
        return image.clone();
    }
    let pixels = match resample {
        Resample::Bilinear => bilinear(image, width, height),
        Resample::Nearest => nearest(image, width, height),
    };
    RgbImage { width, height, pixels }
}

/// Fractional bits of a weight: 32, less 8 of the pixel and 2 of headroom.
const PRECISION: u32 = 32 - 8 - 2;
/// One half, so that the shift rounds.
const HALF: i32 = 1 << (PRECISION - 1);

/// For each output position, the input positions it is made of.
struct Taps {
    /// First input position and number of inputs.
    spans: Vec<(usize, usize)>,
    /// Weights in fixed point, `stride` for each output.
    weights: Vec<i32>,
    stride: usize,
}

impl Taps {
    /// The triangle filter from `input` to `output` positions.
    fn triangle(input: usize, output: usize) -> Self {
        let scale = input as f64 / output as f64;
        let support = scale.max(1.0);
        let narrowing = 1.0 / support;
        let stride = support.ceil() as usize * 2 + 1;
        let mut taps = Self { spans: Vec::with_capacity(output), weights: vec![0; stride * output], stride };
        for (position, weights) in taps.weights.chunks_exact_mut(stride).enumerate() {
            let center = (position as f64 + 0.5) * scale;
            // A negative float becomes 0.
            let start = (center - support + 0.5) as usize;
            let count = ((center + support + 0.5) as usize).min(input) - start;
            let distance = |tap: usize| ((tap + start) as f64 - center + 0.5) * narrowing;
            let exact: Vec<f64> = (0..count).map(|tap| (1.0 - distance(tap).abs()).max(0.0)).collect();
            let total: f64 = exact.iter().sum();
            for (weight, exact) in weights.iter_mut().zip(exact) {
                *weight = (0.5 + exact / total * f64::from(1 << PRECISION)) as i32;
            }
            taps.spans.push((start, count));
        }
        taps
    }

    /// First input position, count and weights of each output.
    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        let weights = self.weights.chunks_exact(self.stride);
        self.spans.iter().zip(weights).map(|(&(start, count), weights)| (start, &weights[..count]))
    }
}

/// Two passes, each rounded to bytes; an axis that keeps its size is left alone.
fn bilinear(image: &RgbImage, width: usize, height: usize) -> Vec<u8> {
    if rows_go_first(image, width, height) {
        let pixels = resize_height(&image.pixels, image.height, image.width, height);
        resize_width(&pixels, image.width, width, height).into_owned()
    } else {
        let pixels = resize_width(&image.pixels, image.width, width, image.height);
        if height == image.height {
            return pixels.into_owned();
        }
        resize_height(&pixels, image.height, width, height)
    }
}

/// Pillow 13.0.0 resizes the height first where more than twice as many rows as columns are removed
/// (found from its output on random sizes); the order shows, as the first pass is rounded.
fn rows_go_first(image: &RgbImage, width: usize, height: usize) -> bool {
    let rows_removed = image.height.saturating_sub(height);
    let columns_removed = image.width.saturating_sub(width);
    rows_removed > 2 * columns_removed
}

/// `[height, old width, 3]` to `[height, width, 3]`.
fn resize_width(pixels: &[u8], old_width: usize, width: usize, height: usize) -> Cow<'_, [u8]> {
    if width == old_width {
        return Cow::Borrowed(pixels);
    }
    let taps = Taps::triangle(old_width, width);
    let mut resized = vec![0; width * height * 3];
    let rows = pixels.chunks_exact(old_width * 3).zip(resized.chunks_exact_mut(width * 3));
    for (input, output) in rows {
        let input = input.as_chunks::<3>().0;
        for (pixel, (start, weights)) in output.as_chunks_mut::<3>().0.iter_mut().zip(taps.iter()) {
            let mut sums = [HALF; 3];
            for (values, &weight) in input[start..start + weights.len()].iter().zip(weights) {
                for (sum, &value) in sums.iter_mut().zip(values) {
                    *sum += i32::from(value) * weight;
                }
            }
            *pixel = sums.map(to_byte);
        }
    }
    Cow::Owned(resized)
}

/// `[old height, width, 3]` to `[height, width, 3]`, whole rows at a time.
fn resize_height(pixels: &[u8], old_height: usize, width: usize, height: usize) -> Vec<u8> {
    let taps = Taps::triangle(old_height, height);
    let row_bytes = width * 3;
    let mut resized = vec![0; row_bytes * height];
    let mut sums = vec![HALF; row_bytes];
    for (output, (start, weights)) in resized.chunks_exact_mut(row_bytes).zip(taps.iter()) {
        sums.fill(HALF);
        for (row, &weight) in pixels[start * row_bytes..].chunks_exact(row_bytes).zip(weights) {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += i32::from(value) * weight;
            }
        }
        for (byte, &sum) in output.iter_mut().zip(&sums) {
            *byte = to_byte(sum);
        }
    }
    resized
}

fn to_byte(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

fn nearest(image: &RgbImage, width: usize, height: usize) -> Vec<u8> {
    let columns = nearest_positions(image.width, width);
    let input = image.pixels.as_chunks::<3>().0;
    let mut pixels = Vec::with_capacity(width * height * 3);
    for row in nearest_positions(image.height, height) {
        let row = &input[row * image.width..][..image.width];
        pixels.extend(columns.iter().flat_map(|&column| row[column]));
    }
    pixels
}

/// The input position of each output position; the step is added up as PIL adds it, rounding errors
/// and all.
fn nearest_positions(input: usize, output: usize) -> Vec<usize> {
    let step = input as f64 / output as f64;
    let positions = std::iter::successors(Some(step * 0.5), |position| Some(position + step));
    positions.take(output).map(|position| (position as usize).min(input - 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(width: usize, height: usize) -> RgbImage {
        let pixels = (0..width * height * 3).map(|i| (i * 7919 % 251) as u8).collect();
        RgbImage { width, height, pixels }
    }

    #[test]
    fn the_same_size_is_the_same_image() {
        let image = image(13, 7);
        assert_eq!(resize(&image, 13, 7, Resample::Bilinear), image);
        assert_eq!(resize(&image, 13, 7, Resample::Nearest), image);
    }

    #[test]
    fn halving_weighs_four_neighbours_by_the_triangle() {
        let grey: Vec<u8> = [0, 80, 160, 240].into_iter().flat_map(|v| [v; 3]).collect();
        let row = RgbImage { width: 4, height: 1, pixels: grey };
        let half = resize(&row, 2, 1, Resample::Bilinear);
        // Weights 3, 3, 1 of 7 for inputs 0, 1, 2: (0 + 240 + 160) / 7 = 57.1; mirrored:
        // (80 + 480 + 720) / 7 = 182.9
        assert_eq!(half.pixels(), [57, 57, 57, 183, 183, 183]);
        // Centres 1 and 3.
        assert_eq!(resize(&row, 2, 1, Resample::Nearest).pixels(), [80, 80, 80, 240, 240, 240]);
    }

    proptest::proptest! {
        #[test]
        fn a_flat_image_stays_flat(
            size in (1_usize..40, 1_usize..40),
            target in (1_usize..40, 1_usize..40),
            value: u8,
        ) {
            let flat = RgbImage { width: size.0, height: size.1, pixels: vec![value; size.0 * size.1 * 3] };
            for resample in [Resample::Bilinear, Resample::Nearest] {
                let resized = resize(&flat, target.0, target.1, resample);
                proptest::prop_assert_eq!(resized.pixels().len(), target.0 * target.1 * 3);
                proptest::prop_assert!(resized.pixels().iter().all(|&byte| byte == value));
            }
        }
    }
}
