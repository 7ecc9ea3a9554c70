//! Grey slices as JPEG and PNG files.

use std::io;

use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};

use super::ImageFormat;

/// JPEG quality of the files.
const QUALITY: f32 = 90.0;

/// A square grey image as a file's bytes.
///
/// # Errors
/// The encoder's own.
pub(super) fn encode(pixels: &[u8], size: usize, format: ImageFormat) -> io::Result<Vec<u8>> {
    match format {
        ImageFormat::Jpeg => jpeg(pixels, size),
        ImageFormat::Png => png(pixels, size),
    }
}

fn jpeg(pixels: &[u8], size: usize) -> io::Result<Vec<u8>> {
    let mut encoder = mozjpeg::Compress::new(mozjpeg::ColorSpace::JCS_GRAYSCALE);
    // Baseline without trellis search, as scanners' viewers export, and ten times faster.
    encoder.set_fastest_defaults();
    encoder.set_size(size, size);
    encoder.set_quality(QUALITY);
    let mut started = encoder.start_compress(Vec::new())?;
    started.write_scanlines(pixels)?;
    started.finish()
}

fn png(pixels: &[u8], size: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes)
        .write_image(pixels, size as u32, size as u32, ExtendedColorType::L8)
        .map_err(io::Error::other)?;
    Ok(bytes)
}
