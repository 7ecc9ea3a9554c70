//! Scores of a picture of which a part is hidden; what all methods but Grad-CAM are made of.

use crate::predictor::PredictError;

/// Inputs that are in memory at a time.
const GROUP: usize = 32;

/// Network input `[height, width, 3]` whose pixels can be hidden under one colour.
#[derive(Debug, Clone, Copy)]
pub struct Picture<'a> {
    input: &'a [f32],
    height: usize,
    width: usize,
    fill: [f32; 3],
}

impl<'a> Picture<'a> {
    /// A picture whose hidden pixels take its mean colour; `None` when the length does not fit or
    /// an axis is zero.
    pub fn new(input: &'a [f32], height: usize, width: usize) -> Option<Self> {
        let pixels = height.checked_mul(width)?;
        let fits = pixels > 0 && pixels.checked_mul(3) == Some(input.len());
        let mut sums = [0.0_f64; 3];
        for pixel in input.as_chunks::<3>().0 {
            sums.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        let fill = sums.map(|sum| (sum / pixels.max(1) as f64) as f32);
        fits.then_some(Self { input, height, width, fill })
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The score with nothing hidden.
    ///
    /// # Errors
    /// Those of `score`.
    pub fn score(&self, score: &impl Score) -> Result<f64, PredictError> {
        Ok(score.score(self.input, 1)?.first().copied().unwrap_or_default())
    }

    /// The score of `count` versions of the picture; in version `i` the pixels with
    /// `hidden(i, pixel)` are hidden, counted row by row.
    ///
    /// # Errors
    /// Those of `score`.
    pub fn hidden_scores(
        &self,
        score: &impl Score,
        count: usize,
        hidden: impl Fn(usize, usize) -> bool,
    ) -> Result<Vec<f64>, PredictError> {
        let mut scores = Vec::with_capacity(count);
        let mut batch = Vec::new();
        for first in (0..count).step_by(GROUP) {
            let versions = first..(first + GROUP).min(count);
            batch.clear();
            for version in versions.clone() {
                let pixels = self.input.as_chunks::<3>().0.iter().enumerate();
                let shown = pixels.map(|(at, pixel)| if hidden(version, at) { &self.fill } else { pixel });
                batch.extend(shown.flatten());
            }
            scores.extend(score.score(&batch, versions.len())?);
        }
        Ok(scores)
    }
}

/// The score that is explained, for `batch` network inputs of `[height, width, 3]`: one value each.
pub trait Score {
    /// One score for each input.
    ///
    /// # Errors
    /// See [`PredictError`].
    fn score(&self, inputs: &[f32], batch: usize) -> Result<Vec<f64>, PredictError>;
}

impl<F: Fn(&[f32], usize) -> Result<Vec<f64>, PredictError>> Score for F {
    fn score(&self, inputs: &[f32], batch: usize) -> Result<Vec<f64>, PredictError> {
        self(inputs, batch)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A linear model: the sum of all channels, each pixel weighted.
    pub(in crate::explain) fn linear(weights: Vec<f64>) -> impl Score {
        move |inputs: &[f32], batch: usize| {
            let images = inputs.chunks_exact(3 * weights.len()).take(batch);
            let score = |image: &[f32]| {
                let pixels = image.as_chunks::<3>().0.iter().zip(&weights);
                pixels.map(|(pixel, weight)| weight * f64::from(pixel.iter().sum::<f32>())).sum()
            };
            Ok(images.map(score).collect())
        }
    }

    #[test]
    fn hidden_pixels_take_the_mean_colour() {
        let input = [0.0, 1.0, 2.0, 4.0, 5.0, 6.0];
        let picture = Picture::new(&input, 1, 2).unwrap();
        let model = linear(vec![1.0, 10.0]);
        assert_eq!(picture.score(&model), Ok(153.0)); // 3 + 10 · 15
        // The mean is [2, 3, 4] and sums to 9. More versions than a group holds.
        let scores = picture.hidden_scores(&model, 70, |version, pixel| version % 2 == pixel).unwrap();
        assert_eq!(scores.len(), 70);
        // 9 + 150, then 3 + 90
        assert!(scores.chunks(2).all(|pair| pair == [159.0, 93.0]), "{scores:?}");
    }

    #[test]
    fn a_picture_has_three_channels() {
        assert!(Picture::new(&[0.0; 5], 1, 2).is_none());
        assert!(Picture::new(&[], 0, 2).is_none());
    }
}
