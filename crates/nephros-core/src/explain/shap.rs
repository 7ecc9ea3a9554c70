//! Kernel SHAP: the Shapley value of each superpixel, by a weighted regression.
//!
//! Source: Lundberg and Lee, "A Unified Approach to Interpreting Model Predictions", 2017,
//! <https://arxiv.org/abs/1705.07874>.

use super::{
    hide::{Picture, Score},
    random::Random,
    solve::weighted_least_squares,
    superpixels::Superpixels,
};
use crate::predictor::PredictError;

/// Versions of the picture that are scored, beside the whole and the hidden one.
pub const SAMPLES: usize = 1000;

/// Versions of the picture, and the weight of each in the regression.
struct Coalitions {
    shown: Vec<Vec<bool>>,
    weights: Vec<f64>,
}

/// The Shapley value of each superpixel, in the units of the score; they sum to the score of the
/// picture less that of the picture with all superpixels hidden.
///
/// Exact where `samples` covers every set of superpixels, sampled otherwise.
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
    let count = superpixels.count();
    let whole = picture.score(score)?;
    let nothing = picture.hidden_scores(score, 1, |_, _| true)?.first().copied().unwrap_or_default();
    if count == 1 {
        return Ok(vec![whole - nothing]);
    }
    let Coalitions { shown, weights } = match all(count, samples) {
        Some(all) => all,
        None => sampled(count, samples, seed),
    };
    let hidden = |sample: usize, pixel: usize| !shown[sample][superpixels.labels()[pixel]];
    let scores = picture.hidden_scores(score, shown.len(), hidden)?;
    Ok(constrained(&shown, &scores, &weights, nothing, whole - nothing))
}

/// Weight of one set of `size` out of `count`, by the Shapley kernel:
/// `(count − 1) / (C(count, size) · size · (count − size))`.
fn kernel(count: usize, size: usize) -> f64 {
    let choose: f64 = (0..size).map(|i| (count - i) as f64 / (i + 1) as f64).product();
    (count - 1) as f64 / (choose * size as f64 * (count - size) as f64)
}

/// Every set but the empty and the whole one, where they are at most `samples`.
fn all(count: usize, samples: usize) -> Option<Coalitions> {
    let sets = 1_usize.checked_shl(u32::try_from(count).ok()?)?.checked_sub(2)?;
    // A shift by the width of the type or more gives `None` above.
    if sets > samples {
        return None;
    }
    let shown: Vec<Vec<bool>> =
        (1..=sets).map(|set| (0..count).map(|cell| set >> cell & 1 == 1).collect()).collect();
    let size = |shown: &Vec<bool>| shown.iter().filter(|shown| **shown).count();
    let weights = shown.iter().map(|shown| kernel(count, size(shown))).collect();
    Some(Coalitions { shown, weights })
}

/// Sets drawn as the kernel weighs them, each with its complement; then all weights are equal.
fn sampled(count: usize, samples: usize, seed: u64) -> Coalitions {
    let mut random = Random::new(seed);
    let sizes: Vec<f64> = (1..count).map(|size| 1.0 / (size * (count - size)) as f64).collect();
    let total: f64 = sizes.iter().sum();
    let mut shown = Vec::with_capacity(samples + 1);
    while shown.len() < samples {
        let mut left = random.unit() * total;
        let below = |weight: &&f64| {
            left -= **weight;
            left > 0.0
        };
        let size = (1 + sizes.iter().take_while(below).count()).min(count - 1);
        let set = subset(&mut random, count, size);
        shown.push(set.iter().map(|shown| !shown).collect());
        shown.push(set);
    }
    Coalitions { weights: vec![1.0; shown.len()], shown }
}

/// A set of `size` out of `count`, each as likely: the start of a Fisher-Yates shuffle.
fn subset(random: &mut Random, count: usize, size: usize) -> Vec<bool> {
    let mut order: Vec<usize> = (0..count).collect();
    let mut set = vec![false; count];
    for place in 0..size {
        order.swap(place, place + random.below(count - place));
        set[order[place]] = true;
    }
    set
}

/// The regression with the constraint that the values sum to `total`: the last value is what the
/// others leave, which makes the constraint exact.
fn constrained(shown: &[Vec<bool>], scores: &[f64], weights: &[f64], nothing: f64, total: f64) -> Vec<f64> {
    let last = shown.first().map_or(0, Vec::len).saturating_sub(1);
    let rows: Vec<Vec<f64>> = shown
        .iter()
        .map(|set| set[..last].iter().map(|&cell| f64::from(cell) - f64::from(set[last])).collect())
        .collect();
    let targets: Vec<f64> =
        shown.iter().zip(scores).map(|(set, score)| score - nothing - f64::from(set[last]) * total).collect();
    let mut values = weighted_least_squares(&rows, &targets, weights, 0.0);
    values.push(total - values.iter().sum::<f64>());
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which pixels of a picture of ones and minus ones are shown; their mean, 0, hides.
    fn is_shown(image: &[f32], pixel: usize) -> f64 {
        f64::from(image[3 * pixel].abs())
    }

    fn picture(pixels: usize) -> Vec<f32> {
        (0..pixels).flat_map(|pixel| [if pixel % 2 == 0 { 1.0 } else { -1.0 }; 3]).collect()
    }

    fn run(pixels: usize, samples: usize, game: impl Fn(&[f32]) -> f64) -> Vec<f64> {
        let input = picture(pixels);
        let picture = Picture::new(&input, 1, pixels).unwrap();
        let superpixels = Superpixels::new((0..pixels).collect()).unwrap();
        let model = |inputs: &[f32], _: usize| Ok(inputs.chunks_exact(3 * pixels).map(&game).collect());
        values(&model, &picture, &superpixels, samples, 7).unwrap()
    }

    #[test]
    fn the_glove_game_is_shared_out_exactly() {
        // A pair of gloves is worth 1; player 0 has a left one, 1 and 2 a right one each, 3 none.
        let worth = |image: &[f32]| is_shown(image, 0) * (is_shown(image, 1) + is_shown(image, 2)).min(1.0);
        let found = run(4, 100, worth);
        // 2/3, 1/6, 1/6 (Shapley's own example) and nothing for a player who adds nothing.
        for (found, expected) in found.iter().zip([2.0 / 3.0, 1.0 / 6.0, 1.0 / 6.0, 0.0]) {
            assert!((found - expected).abs() < 1e-9, "{found}, expected {expected}");
        }
    }

    #[test]
    fn sampled_values_sum_to_the_score_less_that_of_nothing() {
        // Neither linear nor symmetric: products of neighbours, and 3 for an empty picture.
        let worth = |image: &[f32]| {
            let pairs = (0..29).map(|cell| is_shown(image, cell) * is_shown(image, cell + 1) * cell as f64);
            3.0 + pairs.sum::<f64>()
        };
        let found = run(30, 400, worth);
        let sum: f64 = found.iter().sum();
        assert!((sum - 406.0).abs() < 1e-6, "{sum}"); // 0 + 1 + … + 28
        // Cell 20 shares 19 with cell 19 and 20 with cell 21: (19 + 20) / 2.
        assert!((found[20] - 19.5).abs() < 4.0, "{}", found[20]);
    }

    #[test]
    fn the_kernel_weighs_small_and_large_sets_most() {
        // 3 / (4 · 1 · 3) and 3 / (6 · 2 · 2)
        assert!((kernel(4, 1) - 0.25).abs() < 1e-12 && (kernel(4, 2) - 0.125).abs() < 1e-12);
        assert!(all(64, usize::MAX).is_none() && all(200, usize::MAX).is_none());
    }
}
