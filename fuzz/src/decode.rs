//! Image files, of any format: decoded as the server decodes them, and made ready for a network.

use nephros_core::{
    pixels::{BodyOf, Crop, Limits, RgbImage, decode_with_limits},
    preprocessing::{Normalization, Preprocessing},
};

use super::MAX_PIXELS;

/// Decodes and prepares `data`.
pub fn run(data: &[u8]) {
    let decode = || decode_with_limits(data, Limits { max_pixels: MAX_PIXELS });
    let Ok(image) = decode() else { return };
    let (width, height) = (image.width(), image.height());
    assert!(width * height <= MAX_PIXELS, "{width}×{height} pixels were decoded");
    // What a decoder leaves unwritten is whatever was in memory.
    assert!(decode().is_ok_and(|again| again == image), "the same bytes give two pictures");
    for crop in [Crop::None, Crop::Body, Crop::Band] {
        for body in [BodyOf::LargestPiece, BodyOf::AllPieces] {
            let new = Preprocessing::new([16, 24, 3], Normalization::Torchvision);
            check(&Preprocessing { crop, body, ..new }, &image);
        }
    }
}

fn check(preprocessing: &Preprocessing, image: &RgbImage) {
    let input = preprocessing.apply(image);
    assert_eq!(input.len(), 16 * 24 * 3);
    assert!(input.iter().all(|value| value.is_finite()));
}
