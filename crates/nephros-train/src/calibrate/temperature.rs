//! The temperature of least log-loss.

use std::collections::BTreeMap;

use crate::evaluate::metrics::{LEAST_PROBABILITY, Predictions};

/// Temperatures looked at: beyond them a model is certain or says nothing.
const RANGE: [f64; 2] = [0.05, 20.0];

/// Temperatures of that range that are tried, evenly in the logarithm, before the best is refined.
const TRIED: usize = 61;

/// Halvings between two of them, to a relative error of about 1e-14.
const HALVINGS: usize = 44;

/// What a temperature of e or 1/e costs, in nats of one group; it grows with the square of the logarithm. A few
/// groups that are all right would call for certainty; this outweighs them, and is outweighed by many. Six
/// that are all right by a lead of 1 nat come to 0.88, near the 7/8 of the rule of succession. In the logarithm,
/// because a head with a strong penalty may well need a fourth of its temperature.
const PRIOR: f64 = 1.0;

/// Parts that groups are dealt to, to see whether a temperature helps those it was not fitted on.
const FOLDS: usize = 10;

/// The temperature that makes the log-loss of these predictions least, each group counted equally;
/// 1 where it does not help groups that are left out of the fit, or there are none.
///
/// Source: Guo et al., On Calibration of Modern Neural Networks, 2017, section 4.2.
pub fn fit_temperature(predictions: &Predictions, groups: &[usize]) -> f64 {
    let terms = terms(predictions, groups);
    let all: Vec<&Term> = terms.iter().collect();
    let folds = FOLDS.min(terms.iter().map(|term| term.group + 1).max().unwrap_or(0));
    if folds < 2 {
        return 1.0;
    }
    let (mut scaled, mut plain) = (0.0, 0.0);
    for fold in 0..folds {
        let (left_out, kept): (Vec<&Term>, Vec<&Term>) =
            all.iter().partition(|term| term.group % folds == fold);
        let temperature = least_loss(&kept);
        scaled += left_out.iter().map(|term| term.loss(1.0 / temperature)).sum::<f64>();
        plain += left_out.iter().map(|term| term.loss(1.0)).sum::<f64>();
    }
    if scaled < plain { least_loss(&all) } else { 1.0 }
}

/// The temperature of least loss, with [`PRIOR`].
fn least_loss(terms: &[&Term]) -> f64 {
    let loss = |log_temperature: f64| {
        let power = (-log_temperature).exp();
        terms.iter().map(|term| term.loss(power)).sum::<f64>() + PRIOR * log_temperature.powi(2)
    };
    let slope = |log_temperature: f64| {
        let power = (-log_temperature).exp();
        2.0 * PRIOR * log_temperature - power * terms.iter().map(|term| term.slope(power)).sum::<f64>()
    };
    // The sum of both may have more than one valley.
    let [coldest, hottest] = RANGE.map(f64::ln);
    let step = (hottest - coldest) / (TRIED - 1) as f64;
    let tried = (0..TRIED).map(|number| coldest + number as f64 * step);
    let best = tried.min_by(|a, b| loss(*a).total_cmp(&loss(*b))).unwrap_or(0.0);
    let (mut cold, mut hot) = ((best - step).max(coldest), (best + step).min(hottest));
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(cold, hot);
        if slope(middle) > 0.0 { hot = middle } else { cold = middle }
    }
    f64::midpoint(cold, hot).exp()
}

/// One image's part of the loss.
struct Term {
    /// Its group, counted from 0 without gaps.
    group: usize,
    label: usize,
    weight: f64,
    logits: Vec<f64>,
}

impl Term {
    /// Softmax of the logits times `power`.
    fn probabilities(&self, power: f64) -> Vec<f64> {
        let maximum = self.logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let powers: Vec<f64> = self.logits.iter().map(|logit| (power * (logit - maximum)).exp()).collect();
        let sum: f64 = powers.iter().sum();
        powers.iter().map(|value| value / sum).collect()
    }

    /// Cross-entropy with the true label.
    fn loss(&self, power: f64) -> f64 {
        let truth = self.probabilities(power)[self.label];
        -self.weight * truth.max(LEAST_PROBABILITY).ln()
    }

    /// Derivative of the cross-entropy by `power`.
    fn slope(&self, power: f64) -> f64 {
        let expected = self.logits.iter().zip(self.probabilities(power)).map(|(logit, share)| logit * share);
        self.weight * (expected.sum::<f64>() - self.logits[self.label])
    }
}

fn terms(predictions: &Predictions, groups: &[usize]) -> Vec<Term> {
    let mut sizes: BTreeMap<usize, f64> = BTreeMap::new();
    for &group in groups {
        *sizes.entry(group).or_default() += 1.0;
    }
    let numbers: BTreeMap<usize, usize> =
        sizes.keys().enumerate().map(|(number, &group)| (group, number)).collect();
    let rows = predictions.labels.iter().zip(&predictions.probabilities).zip(groups);
    let term = |((&label, row), group): ((&usize, &Vec<f32>), &usize)| {
        let logits = row.iter().map(|&p| f64::from(p.max(f32::MIN_POSITIVE)).ln()).collect();
        Term { group: numbers[group], label, weight: 1.0 / sizes[group], logits }
    };
    rows.map(term).collect()
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// `images` of two classes whose label is drawn by the true probability, each its own patient;
    /// the model's logits are `sharpness` times the true ones.
    fn overconfident(images: usize, sharpness: f64) -> Predictions {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut predictions = Predictions::default();
        for _ in 0..images {
            let logit = rng.random_range(-3.0..3.0);
            let chance = |logit: f64| 1.0 / (1.0 + (-logit).exp());
            let label = usize::from(rng.random_range(0.0..1.0) < chance(logit));
            let stated = chance(sharpness * logit) as f32;
            predictions.push(label, vec![1.0 - stated, stated]);
        }
        predictions
    }

    #[test]
    fn the_temperature_undoes_what_sharpened_the_logits() {
        for sharpness in [0.5, 1.0, 4.0] {
            let predictions = overconfident(20_000, sharpness);
            let groups: Vec<usize> = (0..predictions.len()).collect();
            let temperature = fit_temperature(&predictions, &groups);
            // 20,000 drawn labels know the slope of the logits to about 1.4 %.
            assert!((temperature / sharpness - 1.0).abs() < 0.05, "{temperature} for {sharpness}");
        }
    }

    #[test]
    fn no_other_temperature_has_a_lower_loss() {
        let predictions = overconfident(5_000, 3.0);
        let groups: Vec<usize> = (0..predictions.len()).collect();
        let best = fit_temperature(&predictions, &groups);
        let loss = |temperature: f64| predictions.with_temperature(temperature).loss();
        for other in [0.5, 0.8, 0.95, 1.05, 1.2, 2.0] {
            assert!(loss(best) < loss(best * other), "{best} times {other}");
        }
    }

    fn least(predictions: &Predictions, groups: &[usize]) -> f64 {
        let terms = terms(predictions, groups);
        least_loss(&terms.iter().collect::<Vec<_>>())
    }

    #[test]
    fn a_few_patients_that_are_all_right_do_not_make_certain() {
        let mut predictions = Predictions::default();
        for label in [0, 0, 1, 1] {
            let right = if label == 1 { vec![0.001, 0.999] } else { vec![0.999, 0.001] };
            predictions.push(label, right);
        }
        let temperature = least(&predictions, &[0, 1, 2, 3]);
        // ln(0.999 / 0.001) = 6.907: the four pull with 4 * 0.001 * 6.907, the prior with twice the logarithm
        // of the power, which is then 0.0138, less what the pull loses on the way.
        let power = 1.0 / temperature;
        assert!((1.011..1.014).contains(&power), "{power}");
    }

    #[test]
    fn many_patients_that_are_right_by_little_are_believed() {
        let of = |patients: usize, lead: f64| {
            let mut predictions = Predictions::default();
            let stated = 1.0 / (1.0 + (-lead).exp()) as f32;
            for patient in 0..patients {
                let row =
                    if patient % 2 == 1 { vec![1.0 - stated, stated] } else { vec![stated, 1.0 - stated] };
                predictions.push(patient % 2, row);
            }
            let groups: Vec<usize> = (0..patients).collect();
            let power = 1.0 / least(&predictions, &groups);
            1.0 / (1.0 + (-lead * power).exp())
        };
        // patients * lead / (1 + exp(power * lead)) = 2 ln(power) / power at powers of 2.029 and 6.694 (by
        // bisection).
        assert!((of(6, 1.0) - 0.8838).abs() < 0.0005, "{}", of(6, 1.0));
        assert!((of(16, 0.3) - 0.8817).abs() < 0.0005, "{}", of(16, 0.3));
    }

    #[test]
    fn a_patient_counts_once_however_many_slices_it_has() {
        let mut predictions = Predictions::default();
        predictions.push(0, vec![0.9, 0.1]);
        predictions.push(1, vec![0.6, 0.4]);
        let once = least(&predictions, &[0, 1]);
        for _ in 0..50 {
            predictions.push(1, vec![0.6, 0.4]);
        }
        let groups: Vec<usize> = (0..52).map(|image| usize::from(image > 0)).collect();
        assert!((least(&predictions, &groups) - once).abs() < 1e-9);
        let images: Vec<usize> = (0..52).collect();
        assert!((least(&predictions, &images) - once).abs() > 0.1, "counting images differs");
    }

    #[test]
    fn without_images_nothing_is_scaled() {
        assert_eq!(fit_temperature(&Predictions::default(), &[]).to_bits(), 1.0f64.to_bits());
    }
}
