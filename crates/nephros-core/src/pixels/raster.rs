//! PNG, BMP, TIFF and WebP through the `image` crate, converted to RGB by PIL's rules.

use std::io::{Cursor, ErrorKind};

use image::{
    DynamicImage, ExtendedColorType, ImageDecoder, ImageError, ImageFormat, ImageReader,
    metadata::Orientation,
};

use super::{
    RgbImage,
    decode::Limits,
    error::{DecodeError, Format},
    tiff, webp,
};

/// Beside the pixels, for tables, metadata and the decoders' own buffers.
const WORKING_BYTES: u64 = 64 << 20;
/// 16-bit RGBA, the widest that is read.
const MAX_BYTES_PER_PIXEL: u64 = 8;

/// Decodes the first picture of a PNG, BMP, TIFF or WebP file.
pub(super) fn decode(bytes: &[u8], format: Format, limits: Limits) -> Result<RgbImage, DecodeError> {
    let fail = |error| from_image_error(format, error);
    match format {
        Format::Tiff => tiff::check(bytes).map_err(|detail| DecodeError::Corrupt { format, detail })?,
        Format::WebP => webp::check(bytes, limits)?,
        _ => {}
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), image_format(format));
    reader.limits(memory(limits));
    let mut decoder = reader.into_decoder().map_err(fail)?;
    let (width, height) = decoder.dimensions();
    limits.check(format, width as usize, height as usize)?;
    if matches!(decoder.original_color_type(), ExtendedColorType::Cmyk8 | ExtendedColorType::Cmyk16) {
        return Err(DecodeError::Unsupported { format, what: "CMYK samples".into() });
    }
    // PIL turns a TIFF as it loads it, and leaves every other format as stored.
    let orientation = match format {
        Format::Tiff => decoder.orientation().map_err(fail)?,
        _ => Orientation::NoTransforms,
    };
    let mut image = DynamicImage::from_decoder(decoder).map_err(fail)?;
    image.apply_orientation(orientation);
    to_rgb(image, format, bytes)
}

/// PIL's `convert("RGB")`.
fn to_rgb(image: DynamicImage, format: Format, bytes: &[u8]) -> Result<RgbImage, DecodeError> {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let pixels: Vec<u8> = match image {
        DynamicImage::ImageRgb8(image) => image.into_raw(),
        DynamicImage::ImageRgba8(image) => image.pixels().flat_map(|p| [p[0], p[1], p[2]]).collect(),
        DynamicImage::ImageLuma8(image) => image.pixels().flat_map(|p| [p[0]; 3]).collect(),
        DynamicImage::ImageLumaA8(image) => image.pixels().flat_map(|p| [p[0]; 3]).collect(),
        DynamicImage::ImageLuma16(image) => image.pixels().flat_map(|p| [clip(p[0]); 3]).collect(),
        DynamicImage::ImageLumaA16(image) if is_grey_png(format, bytes) => {
            image.pixels().flat_map(|p| [clip(p[0]); 3]).collect()
        }
        DynamicImage::ImageLumaA16(image) => image.pixels().flat_map(|p| [high_byte(p[0]); 3]).collect(),
        DynamicImage::ImageRgb16(image) => image.into_raw().into_iter().map(high_byte).collect(),
        DynamicImage::ImageRgba16(image) => {
            image.pixels().flat_map(|p| [p[0], p[1], p[2]].map(high_byte)).collect()
        }
        other => {
            let what = format!("{:?} samples", other.color());
            return Err(DecodeError::Unsupported { format, what });
        }
    };
    RgbImage::new(width, height, pixels)
        .ok_or_else(|| DecodeError::Corrupt { format, detail: "its size changes".into() })
}

/// 16-bit grey (PIL's mode `I;16`) is clipped, not scaled.
fn clip(value: u16) -> u8 {
    value.min(255) as u8
}

/// 16-bit colour, and 16-bit grey with alpha, keep their high byte.
fn high_byte(value: u16) -> u8 {
    (value >> 8) as u8
}

/// A grey PNG (colour type 0) with a transparent grey is given alpha by the decoder; to PIL it is
/// grey. The colour type is byte 25, in IHDR, always the first chunk.
fn is_grey_png(format: Format, bytes: &[u8]) -> bool {
    format == Format::Png && bytes.get(25) == Some(&0)
}

fn image_format(format: Format) -> ImageFormat {
    match format {
        Format::Jpeg => ImageFormat::Jpeg,
        Format::Png => ImageFormat::Png,
        Format::Bmp => ImageFormat::Bmp,
        Format::Tiff => ImageFormat::Tiff,
        Format::WebP => ImageFormat::WebP,
    }
}

fn memory(limits: Limits) -> image::Limits {
    let mut memory = image::Limits::no_limits();
    let pixels = (limits.max_pixels as u64).saturating_mul(MAX_BYTES_PER_PIXEL);
    memory.max_alloc = Some(pixels.saturating_add(WORKING_BYTES));
    memory
}

fn from_image_error(format: Format, error: ImageError) -> DecodeError {
    match error {
        ImageError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            DecodeError::Truncated { format }
        }
        ImageError::Unsupported(error) => DecodeError::Unsupported { format, what: error.to_string() },
        error => DecodeError::Corrupt { format, detail: error.to_string() },
    }
}
