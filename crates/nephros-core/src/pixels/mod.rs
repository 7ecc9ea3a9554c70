//! Decoded images, by the rules of PIL.

mod body;
mod decode;
mod error;
pub mod hash;
mod jpeg;
mod raster;
mod resize;
mod tiff;
mod webp;

pub use body::{BodyOf, Crop, Frame, cut, tissue_box};
pub(crate) use body::{Bounds, TISSUE, crop_about, find_body};
pub use decode::{Limits, decode, decode_with_limits};
pub use error::{DecodeError, Format, Lookalike};
pub use resize::{Resample, resize};

/// An 8-bit RGB image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RgbImage {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl RgbImage {
    /// Wraps `[height, width, 3]` bytes; `None` when the length does not fit or an axis is zero.
    pub fn new(width: usize, height: usize, pixels: Vec<u8>) -> Option<Self> {
        let expected = width.checked_mul(height)?.checked_mul(3)?;
        (expected > 0 && pixels.len() == expected).then_some(Self { width, height, pixels })
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// `[height, width, 3]` bytes.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }
}
