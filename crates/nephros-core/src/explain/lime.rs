//! LIME: a linear model of what superpixels, shown or hidden, do to the score.
//!
//! Source: Ribeiro, Singh and Guestrin, "Why Should I Trust You?", 2016,
//! <https://arxiv.org/abs/1602.04938>.

use super::{
    hide::{Picture, Score},
    random::Random,
    solve::weighted_least_squares,
    superpixels::Superpixels,
};
use crate::predictor::PredictError;

/// Versions of the picture that are scored.
pub const SAMPLES: usize = 500;

/// Width of the kernel over the cosine distance to the whole picture; that of the authors' code.
const KERNEL_WIDTH: f64 = 0.25;
/// Strength of the ridge; that of the authors' code.
const RIDGE: f64 = 1.0;

/// What each superpixel adds to the score when it is shown, in the units of the score.
///
/// # Errors
/// Those of `score`.
pub fn values(
    score: &impl Score,
    picture: &Picture<'_>,
    superpixels: &Superpixels,
    samples: usize,
    seed: u64,
) -> Result<Vec<f64>, PredictError> {
    let mut random = Random::new(seed);
    let count = superpixels.count();
    let shown: Vec<Vec<bool>> = (0..samples.max(1))
        // The whole picture is always among them.
        .map(|sample| (0..count).map(|_| random.coin() || sample == 0).collect())
        .collect();
    let hidden = |sample: usize, pixel: usize| !shown[sample][superpixels.labels()[pixel]];
    let scores = picture.hidden_scores(score, shown.len(), hidden)?;
    let weights: Vec<f64> = shown.iter().map(|shown| closeness(shown)).collect();
    Ok(ridge(&shown, &scores, &weights))
}

/// Weight of a version by its cosine distance to the whole picture.
fn closeness(shown: &[bool]) -> f64 {
    let share = shown.iter().filter(|shown| **shown).count() as f64 / shown.len().max(1) as f64;
    let distance = 1.0 - share.sqrt();
    // The authors' code takes the root of the kernel.
    (-(distance / KERNEL_WIDTH).powi(2)).exp().sqrt()
}

/// Ridge regression whose intercept is not shrunk: on values about their weighted means.
fn ridge(shown: &[Vec<bool>], scores: &[f64], weights: &[f64]) -> Vec<f64> {
    let total: f64 = weights.iter().sum();
    let mean = |value: &dyn Fn(usize) -> f64| {
        weights.iter().enumerate().map(|(sample, weight)| weight * value(sample)).sum::<f64>() / total
    };
    let count = shown.first().map_or(0, Vec::len);
    let score_mean = mean(&|sample| scores[sample]);
    let means: Vec<f64> = (0..count).map(|cell| mean(&|sample| f64::from(shown[sample][cell]))).collect();
    let rows: Vec<Vec<f64>> = shown
        .iter()
        .map(|shown| shown.iter().zip(&means).map(|(&shown, mean)| f64::from(shown) - mean).collect())
        .collect();
    let targets: Vec<f64> = scores.iter().map(|score| score - score_mean).collect();
    weighted_least_squares(&rows, &targets, weights, RIDGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::hide::tests::linear;

    #[test]
    fn a_linear_model_is_found_again_but_for_the_ridge() {
        // Four strips of 4 pixels; each adds 3 · 4 · weight · (1 − mean).
        let input: Vec<f32> = (0..16).flat_map(|pixel| [f32::from(u8::from(pixel % 4 < 2)); 3]).collect();
        let picture = Picture::new(&input, 4, 4).unwrap();
        let superpixels = Superpixels::new((0..16).map(|pixel| pixel % 4).collect()).unwrap();
        let weights: Vec<f64> = (0..16).map(|pixel| [5.0, -2.0, 1.0, 0.0][pixel % 4]).collect();
        let model = linear(weights);
        let found = values(&model, &picture, &superpixels, SAMPLES, 1).unwrap();
        // Strips of 1 lie 0.5 above the mean and strips of 0 as much below: ±0.5 · 12 · weight.
        for (found, expected) in found.iter().zip([30.0, -12.0, -6.0, 0.0]) {
            assert!((found - expected).abs() < 0.1 * 30.0, "{found}, expected {expected}");
        }
        assert_eq!(found, values(&model, &picture, &superpixels, SAMPLES, 1).unwrap());
    }
}
