//! Small pictures of the worst errors and of where the model looked, as data URIs.

use std::{io, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use image::{ExtendedColorType, ImageEncoder as _, codecs::png::PngEncoder};
use nephros_core::{
    explain::{Explainer, Method, Question, overlay},
    input_gate::Similar,
    pixels::{Resample, RgbImage, decode, resize},
};

use super::WrongImage;
use crate::{evaluate::EvaluateError, train::data::DataError};

/// Longest side in pixels.
const SIDE: usize = 160;

/// Similar training slices of each image.
const SIMILAR: usize = 3;

/// The picture of one image of the report.
#[derive(Debug, Clone, PartialEq)]
pub struct Thumbnail {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `data:image/png;base64,…`
    pub data_uri: String,
    /// The nearest training slices by the model's features, one of a patient; empty without a model.
    pub similar: Vec<Similar>,
    /// Where the model looked for the class that it named; `None` without a model.
    pub heat_map: Option<HeatPicture>,
}

/// A heat map over the same picture, of the same size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeatPicture {
    /// As of [`Thumbnail`].
    pub data_uri: String,
    /// Whether the map stood its check; `None` where it could not be made.
    pub faithful: Option<bool>,
}

/// One for each image, in order; `root` is the folder that paths start from. `explainer` is of the
/// model that named them wrongly.
///
/// # Errors
/// The first file that cannot be read or decoded, and what the model cannot explain.
pub fn thumbnails(
    root: &Path,
    images: &[WrongImage],
    explainer: Option<&Explainer>,
) -> Result<Vec<Thumbnail>, EvaluateError> {
    let thumbnail = |image: &WrongImage| {
        let path = root.join(&image.path);
        let bytes = fs_err::read(&path)?;
        let decoded = decode(&bytes).map_err(|source| DataError::Decode { path, source })?;
        let heat_map = explainer.map(|explainer| heat_map(&decoded, explainer)).transpose()?;
        let similar = explainer.map(|explainer| explainer.similar(&decoded, SIMILAR)).transpose()?;
        let similar = similar.unwrap_or_default();
        Ok(Thumbnail { similar, heat_map, ..Thumbnail::of(&decoded)? })
    };
    images.iter().map(thumbnail).collect()
}

fn heat_map(image: &RgbImage, explainer: &Explainer) -> Result<HeatPicture, EvaluateError> {
    // Grad-CAM costs one pass; the seed only draws the regions of the check.
    let question = Question { method: Method::GradCam, class: None, seed: 0 };
    let explanation = explainer.explain(image, question)?;
    let Thumbnail { data_uri, .. } = Thumbnail::of(&overlay::heated(image, &explanation))?;
    let faithful = explanation.faithfulness.map(|check| check.is_faithful());
    Ok(HeatPicture { data_uri, faithful })
}

impl Thumbnail {
    /// The whole image, its longest side at most [`SIDE`], without a map.
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
        let data_uri = format!("data:image/png;base64,{}", STANDARD.encode(png));
        Ok(Self { width, height, data_uri, similar: Vec::new(), heat_map: None })
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
