//! Probabilities that mean what they say: temperature scaling, fitted by a training.

use serde::{Deserialize, Serialize};

use crate::predictor::Prediction;

/// How a model's probabilities are corrected before anyone sees them.
///
/// Logits are divided by one temperature, so no label changes: above 1 the model was too sure of
/// itself, below 1 not sure enough.
///
/// Source: Guo et al., On Calibration of Modern Neural Networks, 2017, section 4.2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// The only one there is.
    pub method: CalibrationMethod,
    /// What logits are divided by, above 0.
    pub temperature: f64,
    /// Validation images it was fitted on.
    pub images: usize,
    /// Groups that those are of, each counted equally.
    pub groups: usize,
    /// What a group is: `patient`, `run` or `image`.
    pub unit: String,
    /// Expected calibration error on those images as the model left them.
    pub ece_before: f64,
    /// The same with the temperature. It was fitted on these images: `scores.json` has the figure
    /// for unseen ones.
    pub ece_after: f64,
}

/// How probabilities are corrected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CalibrationMethod {
    /// One temperature for all logits.
    Temperature,
}

impl Calibration {
    /// Whether the temperature can be divided by.
    pub fn is_usable(&self) -> bool {
        self.temperature.is_finite() && self.temperature > 0.0
    }

    /// The prediction with the temperature; its most probable label stays the same.
    #[must_use]
    pub fn apply(&self, prediction: &Prediction) -> Prediction {
        with_temperature(prediction, self.temperature)
    }
}

/// Softmax of the logits over `temperature`. Logits are the logarithms of the probabilities, up to
/// a constant that softmax ignores.
#[must_use]
pub fn with_temperature(prediction: &Prediction, temperature: f64) -> Prediction {
    // A probability that f32 rounded to 0 still has a logarithm.
    let logits =
        prediction.probabilities.iter().map(|&p| f64::from(p.max(f32::MIN_POSITIVE)).ln() / temperature);
    let logits: Vec<f64> = logits.collect();
    let maximum = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = logits.iter().map(|logit| (logit - maximum).exp()).collect();
    let sum: f64 = powers.iter().sum();
    let mut probabilities: Vec<f32> = powers.iter().map(|power| (power / sum) as f32).collect();
    let top = prediction.top();
    if probabilities[..top].iter().any(|&earlier| earlier >= probabilities[top]) {
        // Two that differed by less than the rounding became equal, and the first would win.
        probabilities[top] = probabilities.iter().copied().fold(0.0, f32::max).next_up();
    }
    Prediction { probabilities }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prediction(probabilities: &[f32]) -> Prediction {
        Prediction { probabilities: probabilities.to_vec() }
    }

    #[test]
    fn logits_are_divided() {
        // ln(0.9 / 0.1) = 2.1972; halved, 1 / (1 + e^-1.0986) = 3 / (3 + 1).
        let halved = with_temperature(&prediction(&[0.1, 0.9]), 2.0);
        assert!((halved.probabilities[1] - 0.75).abs() < 1e-6, "{halved:?}");
        // 0.2^2 : 0.3^2 : 0.5^2 = 4 : 9 : 25, of 38.
        let doubled = with_temperature(&prediction(&[0.2, 0.3, 0.5]), 0.5);
        for (got, expected) in doubled.probabilities.iter().zip([4.0, 9.0, 25.0]) {
            assert!((got - expected / 38.0).abs() < 1e-6, "{doubled:?}");
        }
    }

    #[test]
    fn a_label_ahead_by_a_rounding_stays_ahead() {
        let close = prediction(&[0.5_f32.next_down(), 0.5_f32.next_up()]);
        let flat = with_temperature(&close, 50.0);
        assert_eq!((close.top(), flat.top()), (1, 1), "{flat:?}");
    }

    #[test]
    fn certainty_stays_finite() {
        let certain = with_temperature(&prediction(&[0.0, 1.0]), 20.0);
        assert!(certain.probabilities.iter().all(|p| p.is_finite()), "{certain:?}");
        assert_eq!(certain.top(), 1);
    }

    proptest! {
        #[test]
        fn no_label_changes_and_the_sum_is_one(
            raw in prop::collection::vec(0.0_f32..=1.0, 2..6), temperature in 0.02_f64..50.0,
        ) {
            let sum: f32 = raw.iter().sum();
            prop_assume!(sum > 0.0);
            let raw = Prediction { probabilities: raw.iter().map(|p| p / sum).collect() };
            let scaled = with_temperature(&raw, temperature);
            prop_assert_eq!(raw.top(), scaled.top());
            let sum: f32 = scaled.probabilities.iter().sum();
            prop_assert!((sum - 1.0).abs() <= 6.0 * f32::EPSILON, "{}", sum);
        }
    }
}
