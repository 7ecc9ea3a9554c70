//! Occlusion: a grey square slides over the picture, and the fall of the score is noted.
//!
//! Source: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2014,
//! <https://arxiv.org/abs/1311.2901>.

use super::{
    hide::{Picture, Score},
    map::HeatMap,
};
use crate::predictor::PredictError;

/// The square that hides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Square {
    /// Rows and columns of the square, in pixels of the network's input.
    pub side: usize,
    /// Pixels from one position to the next.
    pub stride: usize,
}

impl Square {
    /// A seventh of the shorter side, moved by half of itself: 32 and 16 pixels of 224.
    pub fn of(height: usize, width: usize) -> Self {
        let side = (height.min(width) / 7).max(1);
        Self { side, stride: (side / 2).max(1) }
    }

    /// First pixels along an axis; the last square ends with the axis.
    fn starts(self, length: usize) -> Vec<usize> {
        let last = length.saturating_sub(self.side);
        let mut starts: Vec<usize> = (0..last).step_by(self.stride.max(1)).collect();
        starts.push(last);
        starts
    }
}

/// The fall of the score, averaged over the squares that hide a pixel.
///
/// # Errors
/// Those of `score`.
pub fn map(score: &impl Score, picture: &Picture<'_>, square: Square) -> Result<HeatMap, PredictError> {
    let (height, width) = (picture.height(), picture.width());
    let corners: Vec<(usize, usize)> = square
        .starts(height)
        .into_iter()
        .flat_map(|top| square.starts(width).into_iter().map(move |left| (top, left)))
        .collect();
    let covers = |index: usize, pixel: usize| {
        let (top, left) = corners[index];
        let (row, column) = (pixel / width, pixel % width);
        (top..top + square.side).contains(&row) && (left..left + square.side).contains(&column)
    };
    let whole = picture.score(score)?;
    let scores = picture.hidden_scores(score, corners.len(), covers)?;
    let (mut falls, mut counts) = (vec![0.0; height * width], vec![0_u32; height * width]);
    for (&(top, left), score) in corners.iter().zip(scores) {
        for row in top..(top + square.side).min(height) {
            for pixel in row * width + left..row * width + (left + square.side).min(width) {
                falls[pixel] += whole - score;
                counts[pixel] += 1;
            }
        }
    }
    Ok(HeatMap::of_pixels(height, width, |pixel| falls[pixel] / f64::from(counts[pixel].max(1))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::hide::tests::linear;

    #[test]
    fn squares_reach_the_last_pixel() {
        assert_eq!(Square { side: 4, stride: 3 }.starts(11), [0, 3, 6, 7]);
        assert_eq!(Square { side: 4, stride: 2 }.starts(4), [0]);
        assert_eq!(Square { side: 9, stride: 2 }.starts(4), [0]);
        assert_eq!(Square::of(224, 224), Square { side: 32, stride: 16 });
    }

    /// 1 inside a circle about row 20, column 44, and 0 outside.
    fn disc(pixel: usize) -> f32 {
        let (row, column) = ((pixel / 64) as f32 - 20.0, (pixel % 64) as f32 - 44.0);
        f32::from(u8::from(row.hypot(column) <= 6.0))
    }

    #[test]
    fn a_planted_disc_is_found() {
        let input: Vec<f32> = (0..64 * 64).flat_map(|pixel| [disc(pixel); 3]).collect();
        let picture = Picture::new(&input, 64, 64).unwrap();
        let map = map(&linear(vec![1.0; 64 * 64]), &picture, Square::of(64, 64)).unwrap();
        let hottest = (0..64 * 64).max_by(|&a, &b| map.values()[a].total_cmp(&map.values()[b])).unwrap();
        assert!(disc(hottest) > 0.0, "hottest at row {}, column {}", hottest / 64, hottest % 64);
        let mask: Vec<bool> = (0..64 * 64).map(|pixel| disc(pixel) > 0.0).collect();
        let share = mask.iter().filter(|inside| **inside).count() as f64 / 4096.0;
        let inside = map.mass_inside(&mask).unwrap();
        assert!(share < 0.03 && inside > 10.0 * share, "{inside} of the mass on {share} of the pixels");
    }
}
