//! Split-conformal prediction where images come in groups: the slices of a patient.

use std::collections::{BTreeMap, BTreeSet};

use nephros_core::abstention::{Abstention, AbstentionMethod, Scope};

use crate::evaluate::metrics::Predictions;

/// Cumulative weights are sums of rounded fractions.
const ROUNDING: f64 = 1e-9;

/// Thresholds at which the true label of a slice of a new patient is in the set at a rate of at
/// least `1 - error_rate`, and with `n` groups of distinct scores at most `2 / (n + 1)` more. It
/// holds for patients that are exchangeable with these and for any model that did not see them.
///
/// The score of a slice is the probability of its true label. Each of `n` groups has the weight
/// `1 / (n + 1)`, shared among its slices, and the new patient the same at the worst score there
/// is; the threshold is the quantile of that distribution. With enough groups of every label each
/// label has a threshold of its own and the rate holds for each; else all share one.
///
/// Source: Lee, Barber and Willett, Distribution-free Inference with Hierarchical Data, 2023
/// (<https://arxiv.org/abs/2306.06342>), section 3; by label as Vovk, Conditional Validity of
/// Inductive Conformal Predictors, 2012.
pub fn fit_abstention(
    predictions: &Predictions,
    groups: &[usize],
    classes: usize,
    error_rate: f64,
) -> Abstention {
    let of_label = |class: usize| -> Vec<(usize, f32)> {
        let images = predictions.labels.iter().zip(&predictions.probabilities).zip(groups);
        images
            .filter(|((label, _), _)| **label == class)
            .map(|((_, row), group)| (*group, row[class]))
            .collect()
    };
    let by_label: Vec<Vec<(usize, f32)>> = (0..classes).map(of_label).collect();
    let needed = needed(error_rate);
    let groups_of_label: Vec<usize> = by_label.iter().map(|images| count(images)).collect();
    let (scope, thresholds) = if groups_of_label.iter().all(|&groups| groups >= needed) {
        (Scope::Label, by_label.iter().map(|images| threshold(images, error_rate)).collect())
    } else {
        (Scope::Pooled, vec![threshold(&by_label.concat(), error_rate); classes])
    };
    Abstention {
        method: AbstentionMethod::HierarchicalConformal,
        error_rate,
        scope,
        thresholds,
        groups: count(&by_label.concat()),
        groups_of_label,
        needed,
        unit: "group".into(),
        chosen_by_validation: false,
    }
}

/// Fewest groups that exclude anything: `n / (n + 1)` must reach `1 - error_rate`.
fn needed(error_rate: f64) -> usize {
    ((1.0 - error_rate) / error_rate - ROUNDING).ceil().max(1.0) as usize
}

/// Distinct groups of `(group, score)` pairs.
fn count(images: &[(usize, f32)]) -> usize {
    images.iter().map(|(group, _)| group).collect::<BTreeSet<_>>().len()
}

/// The quantile of `(group, score)` pairs from above; 0 with too few groups.
fn threshold(images: &[(usize, f32)], error_rate: f64) -> f32 {
    let mut sizes: BTreeMap<usize, f64> = BTreeMap::new();
    for (group, _) in images {
        *sizes.entry(*group).or_default() += 1.0;
    }
    let whole = (sizes.len() + 1) as f64;
    let mut sorted = images.to_vec();
    sorted.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut covered = 0.0;
    for (group, score) in sorted {
        covered += 1.0 / (whole * sizes[&group]);
        if covered >= 1.0 - error_rate - ROUNDING {
            return score;
        }
    }
    0.0
}

#[cfg(test)]
mod tests;
