//! JPEG, PNG, BMP, TIFF and WebP to 8-bit RGB as `PIL.Image.open(...).convert("RGB")` gives it.

use std::{any::Any, panic::catch_unwind};

use super::{
    RgbImage,
    error::{DecodeError, Format, Lookalike},
    jpeg, raster,
};

/// What a decoder may use on one image.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Width times height.
    pub max_pixels: usize,
}

impl Default for Limits {
    /// The limit of PIL (`Image.MAX_IMAGE_PIXELS`).
    fn default() -> Self {
        Self { max_pixels: 89_478_485 }
    }
}

impl Limits {
    /// Checks a header's size, before anything of that size is allocated.
    pub(super) fn check(self, format: Format, width: usize, height: usize) -> Result<(), DecodeError> {
        if width == 0 || height == 0 {
            return Err(DecodeError::Corrupt { format, detail: format!("it has {width}×{height} pixels") });
        }
        if width.saturating_mul(height) > self.max_pixels {
            return Err(DecodeError::TooLarge { width, height, limit: self.max_pixels });
        }
        Ok(())
    }
}

/// Decodes with the default [`Limits`].
///
/// # Errors
/// See [`DecodeError`].
pub fn decode(bytes: &[u8]) -> Result<RgbImage, DecodeError> {
    decode_with_limits(bytes, Limits::default())
}

/// Decodes an image; limits are checked before pixels are allocated.
///
/// The rules are PIL's: alpha is dropped, 16-bit grey is clipped to 255 (16-bit colour keeps its
/// high byte), palettes are applied, an EXIF orientation is ignored (a TIFF's is applied), and
/// data that end too early are an error.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode_with_limits(bytes: &[u8], limits: Limits) -> Result<RgbImage, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    let Some(format) = Format::detect(bytes) else {
        let start = bytes[..bytes.len().min(16)].escape_ascii().to_string();
        return Err(DecodeError::UnknownFormat { start, lookalike: Lookalike::guess(bytes) });
    };
    // libjpeg has no other way out of a fatal error than not to return; the mozjpeg crate makes it
    // unwind, and asks its callers to catch that. The other decoders read the same hostile bytes
    // and get the same containment. Nothing outside the closure is changed by it.
    catch_unwind(|| match format {
        Format::Jpeg => jpeg::decode(bytes, limits),
        _ => raster::decode(bytes, format, limits),
    })
    .unwrap_or_else(|payload| Err(DecodeError::Corrupt { format, detail: panic_message(&*payload) }))
}

/// What a decoder said as it gave up.
pub(super) fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    let text = text.unwrap_or("the decoder gave up");
    text.trim_start_matches("libjpeg fatal error: ").to_owned()
}
