//! Small pictures of the worst errors, as data URIs.

use std::{io, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use image::{ExtendedColorType, ImageEncoder as _, codecs::png::PngEncoder};
use nephros_core::pixels::{Resample, RgbImage, decode, resize};

use super::WrongImage;
use crate::train::data::DataError;

/// Longest side in pixels.
const SIDE: usize = 160;

/// The picture of one image of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thumbnail {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `data:image/png;base64,…`
    pub data_uri: String,
}

/// One for each image, in order; `root` is the folder that paths start from.
///
/// # Errors
/// The first file that cannot be read or decoded.
pub fn thumbnails(root: &Path, images: &[WrongImage]) -> Result<Vec<Thumbnail>, DataError> {
    let thumbnail = |image: &WrongImage| {
        let path = root.join(&image.path);
        let decoded = decode(&fs_err::read(&path)?).map_err(|source| DataError::Decode { path, source })?;
        Ok(Thumbnail::of(&decoded)?)
    };
    images.iter().map(thumbnail).collect()
}

impl Thumbnail {
    /// The whole image, its longest side at most [`SIDE`].
    fn of(image: &RgbImage) -> io::Result<Self> {
        let longest = image.width().max(image.height()).max(SIDE);
        let side = |length: usize| (length * SIDE / longest).max(1);
        let small = resize(image, side(image.width()), side(image.height()), Resample::Bilinear);
        let (width, height) = (small.width(), small.height());
        let (pixels, _) = small.pixels().as_chunks::<3>();
        let is_gray = pixels.iter().all(|[red, green, blue]| red == green && green == blue);
        let gray: Vec<u8> = pixels.iter().map(|pixel| pixel[0]).collect();
        let (bytes, color) = if is_gray {
            (gray.as_slice(), ExtendedColorType::L8)
        } else {
            (small.pixels(), ExtendedColorType::Rgb8)
        };
        let mut png = Vec::new();
        PngEncoder::new(&mut png)
            .write_image(bytes, width as u32, height as u32, color)
            .map_err(io::Error::other)?;
        Ok(Self { width, height, data_uri: format!("data:image/png;base64,{}", STANDARD.encode(png)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(thumbnail: &Thumbnail) -> RgbImage {
        let base64 = thumbnail.data_uri.strip_prefix("data:image/png;base64,").unwrap();
        decode(&STANDARD.decode(base64).unwrap()).unwrap()
    }

    #[test]
    fn large_images_shrink_and_small_ones_stay() {
        let large = Thumbnail::of(&RgbImage::new(640, 320, vec![90; 640 * 320 * 3]).unwrap()).unwrap();
        assert_eq!((large.width, large.height), (160, 80));
        assert_eq!(decoded(&large), RgbImage::new(160, 80, vec![90; 160 * 80 * 3]).unwrap());
        let small = RgbImage::new(2, 1, vec![1, 2, 3, 250, 251, 252]).unwrap();
        assert_eq!(decoded(&Thumbnail::of(&small).unwrap()), small);
    }
}
