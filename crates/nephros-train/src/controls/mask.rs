//! Images of which a part is hidden, so that a model has to do without it.

use nephros_core::{
    digest::sha256,
    pixels::{Crop, Frame, RgbImage, cut, tissue_box},
    preprocessing::Preprocessing,
};

/// What is hidden under a black box.
///
/// The box follows the body, because a fixed one would hide less of a body that is drawn large. It is
/// around all tissue but what is thin or small, such as table and letters. Where there is none, the
/// whole image is taken for it.
///
/// Source: Maguolo and Nanni, A critic evaluation of methods for COVID-19 automatic detection from
/// X-ray images, 2021, who hid the lungs under a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    /// The whole body: what is left is table, letters and air.
    Body,
    /// The middle 85 % of its width and height, in which the kidneys lie: what is left is the rim of the
    /// body and what [`Self::Body`] leaves.
    Centre,
}

/// Part of the width and height of the body's box that [`Mask::Body`] hides: tissue is found on a grid
/// of 128 cells, and its rim may be in the next one.
const BODY: f64 = 1.04;
/// The same of [`Mask::Centre`].
const CENTRE: f64 = 0.85;

impl Mask {
    /// Hides, then crops and resizes as the preprocessing says. What is hidden and what is cropped is told by the
    /// image as it was, so that every crop loses the same part of the body.
    pub fn resize(self, image: &RgbImage, preprocessing: &Preprocessing) -> RgbImage {
        self.resize_as(image, image, preprocessing)
    }

    /// As [`Self::resize`], of `shown`, a picture of the same size: a mask of the image.
    pub fn resize_as(self, image: &RgbImage, shown: &RgbImage, preprocessing: &Preprocessing) -> RgbImage {
        let hidden = self.hide(image, shown);
        let masked = match preprocessing.crop {
            Crop::None => hidden,
            Crop::Body | Crop::Band => cut(&hidden, preprocessing.frame(image)),
        };
        Preprocessing { crop: Crop::None, ..preprocessing.clone() }.resize(&masked)
    }

    /// A name for the masked form of the image of this digest.
    pub fn name_of(self, sha256_of_image: &str) -> String {
        sha256(format!("{self:?} {} hidden, then cropped, in {sha256_of_image}", self.part()).as_bytes())
    }

    /// Of the width and height of the tissue's box.
    fn part(self) -> f64 {
        match self {
            Self::Body => BODY,
            Self::Centre => CENTRE,
        }
    }

    /// What is shown of an image, with a black box on it.
    fn hide(self, image: &RgbImage, shown: &RgbImage) -> RgbImage {
        let Frame { top, left, height, width } = self.hidden(image);
        let (columns, rows) = (image.width(), image.height());
        // A frame may leave the image.
        let inside = |start: isize, length: usize, most: usize| {
            let at = |position: isize| position.clamp(0, most as isize) as usize;
            at(start)..at(start + length as isize)
        };
        let span = inside(left, width, columns);
        let mut pixels = shown.pixels().to_vec();
        for row in inside(top, height, rows) {
            let start = row * columns;
            pixels[3 * (start + span.start)..3 * (start + span.end)].fill(0);
        }
        RgbImage::new(columns, rows, pixels).unwrap_or_else(|| shown.clone())
    }

    /// The box that is hidden, in pixels of the image.
    pub fn hidden(self, image: &RgbImage) -> Frame {
        let body = tissue_box(image).unwrap_or_else(|| Frame::whole(image));
        let scaled = |start: isize, length: usize| {
            let scaled = (length as f64 * self.part()).round() as usize;
            (start + (length as isize - scaled as isize) / 2, scaled)
        };
        let ((top, height), (left, width)) = (scaled(body.top, body.height), scaled(body.left, body.width));
        Frame { top, left, height, width }
    }
}

#[cfg(test)]
mod tests {
    use nephros_core::preprocessing::Normalization;

    use super::*;
    use crate::phantom::{Cohort, Patient, slice};

    /// A grey body of 60×40 at row 30 and column 20 of 100×100, and a table of 2 rows below it.
    fn drawn() -> RgbImage {
        let is_body = |row: usize, column: usize| (30..70).contains(&row) && (20..80).contains(&column);
        let value = |row: usize, column: usize| match (row, column) {
            (row, column) if is_body(row, column) => 100,
            (90..92, _) => 200,
            _ => 0,
        };
        let pixels = (0..100 * 100).flat_map(|at| [value(at / 100, at % 100); 3]).collect();
        RgbImage::new(100, 100, pixels).unwrap()
    }

    fn count(image: &RgbImage, value: u8) -> usize {
        image.pixels().chunks_exact(3).filter(|&pixel| pixel == [value; 3]).count()
    }

    #[test]
    fn without_the_body_the_table_stays_and_without_the_centre_the_rim() {
        let plain = Preprocessing::new([100, 100, 3], Normalization::Unit);
        let outside = Mask::Body.resize(&drawn(), &plain);
        assert_eq!((count(&outside, 100), count(&outside, 200)), (0, 2 * 100));
        let rim = Mask::Centre.resize(&drawn(), &plain);
        // 60×40 less 51×34.
        assert_eq!((count(&rim, 100), count(&rim, 200)), (2400 - 1734, 2 * 100));
    }

    #[test]
    fn the_crop_is_that_of_the_image_as_it_was() {
        let cropped =
            Preprocessing { crop: Crop::Body, ..Preprocessing::new([62, 62, 3], Normalization::Unit) };
        let outside = Mask::Body.resize(&drawn(), &cropped);
        // A square of 62 about the body, from row 19 to 80: the table is not in it.
        assert_eq!(count(&outside, 0), 62 * 62);
        let rim = Mask::Centre.resize(&drawn(), &cropped);
        assert_eq!(count(&rim, 100), 2400 - 1734);
    }

    #[test]
    fn a_picture_without_a_body_is_hidden_whole_or_in_its_middle() {
        let speck = |at: usize| if at == 0 { 255 } else { 0 };
        let image = RgbImage::new(40, 20, (0..800).flat_map(|at| [speck(at); 3]).collect()).unwrap();
        assert_eq!(count(&Mask::Body.hide(&image, &image), 255), 0);
        assert_eq!(count(&Mask::Centre.hide(&image, &image), 255), 1);
        assert_ne!(Mask::Body.name_of("ab"), Mask::Centre.name_of("ab"));
    }

    #[test]
    fn the_centre_hides_every_drawn_kidney_lesion() {
        let cohort = Cohort { patients: 24, slices: 2, seed: 5, size: 256, ..Cohort::default() };
        let mut lesions = 0;
        for index in 0..cohort.patients {
            let patient = Patient::new(&cohort, index);
            let (center, width) = patient.window();
            for number in 0..cohort.slices {
                let drawn = slice(&patient, number);
                let rgb = drawn.windowed(center, width).iter().flat_map(|value| [*value; 3]).collect();
                let image = RgbImage::new(cohort.size, cohort.size, rgb).unwrap();
                let hidden = Mask::Centre.hidden(&image);
                for (at, _) in drawn.lesion.iter().enumerate().filter(|(_, inside)| **inside) {
                    let (row, column) = (at / cohort.size, at % cohort.size);
                    assert!(hidden.relative(row, column).is_some(), "patient {index}, slice {number}");
                    lesions += 1;
                }
            }
        }
        assert!(lesions > 1000, "{lesions}");
    }
}
