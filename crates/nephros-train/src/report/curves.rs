//! ROC and precision-recall curves as scikit-learn draws them, and error against share answered.

use serde::{Deserialize, Serialize};

use crate::evaluate::{interval::Interval, metrics::Predictions};

/// Curves of one class against all others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassCurves {
    /// The class.
    pub class: String,
    /// Its share of the test images: the precision of naming it always.
    pub prevalence: f64,
    /// Area under the ROC curve.
    pub auroc: f64,
    /// Mean precision over the steps of recall.
    pub average_precision: f64,
    /// Its 95 % interval by bootstrap over patients.
    pub average_precision_interval_95: Option<Interval>,
    /// From the strictest threshold to the laxest.
    pub roc: Vec<RocPoint>,
    /// From the strictest threshold to the laxest.
    pub precision_recall: Vec<PrecisionRecallPoint>,
}

/// A class is called at `threshold` and above; `None` is above all.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RocPoint {
    /// Probability from which on the class is called.
    pub threshold: Option<f32>,
    /// 1 - specificity.
    pub false_positive_rate: f64,
    /// Sensitivity.
    pub true_positive_rate: f64,
}

/// As [`RocPoint`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PrecisionRecallPoint {
    /// Probability from which on the class is called.
    pub threshold: Option<f32>,
    /// Sensitivity.
    pub recall: f64,
    /// Share of the images called so that are of the class.
    pub precision: f64,
}

/// Images at least `confidence` sure are answered. Every patient counts equally.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AbstentionPoint {
    /// Least probability of the named label at which an image is answered.
    pub confidence: f32,
    /// Share answered.
    pub answered: f64,
    /// Share of wrong labels among the answered.
    pub error_rate: f64,
}

/// Images called so far as the threshold falls past each score.
#[derive(Clone, Copy)]
struct Count {
    threshold: f32,
    true_positives: usize,
    false_positives: usize,
}

/// One count for each distinct score of a class, the highest first.
fn counts(predictions: &Predictions, class: usize) -> Vec<Count> {
    let rows = predictions.labels.iter().zip(&predictions.probabilities);
    let mut scored: Vec<(f32, bool)> = rows.map(|(&label, row)| (row[class], label == class)).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut true_positives, mut seen) = (0, 0);
    let tied = scored.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq());
    tied.map(|tied| {
        seen += tied.len();
        true_positives += tied.iter().filter(|(_, positive)| *positive).count();
        Count { threshold: tied[0].0, true_positives, false_positives: seen - true_positives }
    })
    .collect()
}

/// Positives and negatives of all images; `None` when either is absent.
fn totals(counts: &[Count]) -> Option<(f64, f64)> {
    let Count { true_positives, false_positives, .. } = *counts.last()?;
    let both = true_positives > 0 && false_positives > 0;
    both.then_some((true_positives as f64, false_positives as f64))
}

/// The points between which the curve is straight are left out, as scikit-learn does.
fn roc(counts: &[Count], positives: f64, negatives: f64) -> Vec<RocPoint> {
    let step = |from: &Count, to: &Count| {
        (to.true_positives - from.true_positives, to.false_positives - from.false_positives)
    };
    let turns =
        |index: usize| match (index.checked_sub(1).map(|before| &counts[before]), counts.get(index + 1)) {
            (Some(before), Some(after)) => step(before, &counts[index]) != step(&counts[index], after),
            _ => true,
        };
    let kept = counts.iter().enumerate().filter(|&(index, _)| turns(index));
    let start = RocPoint { threshold: None, false_positive_rate: 0.0, true_positive_rate: 0.0 };
    let points = kept.map(|(_, count)| RocPoint {
        threshold: Some(count.threshold),
        false_positive_rate: count.false_positives as f64 / negatives,
        true_positive_rate: count.true_positives as f64 / positives,
    });
    std::iter::once(start).chain(points).collect()
}

/// Of the points of one recall only the first and the last are kept, as scikit-learn does.
fn precision_recall(counts: &[Count], positives: f64) -> Vec<PrecisionRecallPoint> {
    let found = |index: usize| counts.get(index).map(|count| count.true_positives);
    let ends = |index: usize| {
        let before = index.checked_sub(1).and_then(found);
        before.is_none() || before != found(index) || found(index + 1) != found(index)
    };
    let kept = counts.iter().enumerate().filter(|&(index, _)| ends(index));
    let start = PrecisionRecallPoint { threshold: None, recall: 0.0, precision: 1.0 };
    let points = kept.map(|(_, count)| PrecisionRecallPoint {
        threshold: Some(count.threshold),
        recall: count.true_positives as f64 / positives,
        precision: precision(count),
    });
    std::iter::once(start).chain(points).collect()
}

fn precision(count: &Count) -> f64 {
    count.true_positives as f64 / (count.true_positives + count.false_positives) as f64
}

/// Mean precision over the steps of recall; `None` when a class is absent.
pub(super) fn average_precision(predictions: &Predictions, class: usize) -> Option<f64> {
    let counts = counts(predictions, class);
    let (positives, _) = totals(&counts)?;
    let mut found = 0;
    let parts = counts.iter().map(|count| {
        let gained = count.true_positives - found;
        found = count.true_positives;
        gained as f64 / positives * precision(count)
    });
    Some(parts.sum())
}

/// Curves of one class; `None` when all test images are of it or none is.
pub(super) fn class_curves(
    predictions: &Predictions,
    class: usize,
    name: &str,
    interval: impl Fn(&dyn Fn(&Predictions) -> Option<f64>) -> Option<Interval>,
) -> Option<ClassCurves> {
    let counts = counts(predictions, class);
    let (positives, negatives) = totals(&counts)?;
    let average = |predictions: &Predictions| average_precision(predictions, class);
    Some(ClassCurves {
        class: name.to_owned(),
        prevalence: positives / (positives + negatives),
        auroc: predictions.auroc(class)?,
        average_precision: average(predictions)?,
        average_precision_interval_95: interval(&average),
        roc: roc(&counts, positives, negatives),
        precision_recall: precision_recall(&counts, positives),
    })
}

/// Share answered against error as the confidence asked for falls; `weights` are those of the images.
pub(super) fn abstention_curve(predictions: &Predictions, weights: &[f64]) -> Vec<AbstentionPoint> {
    let rows = predictions.labels.iter().zip(predictions.predicted()).zip(&predictions.probabilities);
    let mut images: Vec<(f32, bool, f64)> = rows
        .zip(weights)
        .map(|(((&label, predicted), row), &weight)| (row[predicted], label != predicted, weight))
        .collect();
    images.sort_by(|a, b| b.0.total_cmp(&a.0));
    let whole: f64 = weights.iter().sum();
    let (mut answered, mut wrong) = (0.0, 0.0);
    let tied = images.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq());
    tied.map(|tied| {
        for (_, is_wrong, weight) in tied {
            answered += weight;
            wrong += if *is_wrong { *weight } else { 0.0 };
        }
        AbstentionPoint { confidence: tied[0].0, answered: answered / whole, error_rate: wrong / answered }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What scikit-learn says of the cases of `metrics.json`; made by `scripts/golden/curves.py`.
    #[derive(Deserialize)]
    struct Golden {
        labels: Vec<usize>,
        probabilities: Vec<Vec<f32>>,
        curves: Vec<GoldenCurves>,
    }

    /// Thresholds are absent where scikit-learn has infinity, or none.
    #[derive(Deserialize)]
    struct GoldenCurves {
        class: usize,
        auroc: f64,
        average_precision: f64,
        /// Threshold, false positive rate, true positive rate.
        roc: Vec<(Option<f32>, f64, f64)>,
        /// Threshold, recall, precision.
        precision_recall: Vec<(Option<f32>, f64, f64)>,
    }

    #[test]
    fn curves_are_scikit_learns() {
        let cases: Vec<Golden> = serde_json::from_str(include_str!("golden/curves.json")).unwrap();
        let mut compared = 0;
        for Golden { labels, probabilities, curves } in cases {
            let predictions = Predictions { labels, probabilities };
            for golden in curves {
                let got = class_curves(&predictions, golden.class, "Tumor", |_| None).unwrap();
                let roc = |p: &RocPoint| (p.threshold, p.false_positive_rate, p.true_positive_rate);
                let pr = |p: &PrecisionRecallPoint| (p.threshold, p.recall, p.precision);
                assert_points(&got.roc.iter().map(roc).collect::<Vec<_>>(), &golden.roc);
                let points: Vec<_> = got.precision_recall.iter().map(pr).collect();
                assert_points(&points, &golden.precision_recall);
                assert!((got.auroc - golden.auroc).abs() < 1e-12, "{}", got.auroc);
                let average = got.average_precision;
                assert!((average - golden.average_precision).abs() < 1e-12, "{average}");
                compared += 1;
            }
        }
        // One of each case of two classes, four of the one with four.
        assert_eq!(compared, 6);
    }

    fn assert_points(got: &[(Option<f32>, f64, f64)], expected: &[(Option<f32>, f64, f64)]) {
        assert_eq!(got.len(), expected.len(), "{got:?}, expected {expected:?}");
        for (got, expected) in got.iter().zip(expected) {
            let close = (got.1 - expected.1).abs() < 1e-12 && (got.2 - expected.2).abs() < 1e-12;
            assert!(got.0 == expected.0 && close, "{got:?}, expected {expected:?}");
        }
    }

    #[test]
    fn one_class_alone_has_no_curves() {
        let predictions = Predictions { labels: vec![1, 1], probabilities: vec![vec![0.4, 0.6]; 2] };
        assert_eq!(class_curves(&predictions, 1, "Tumor", |_| None), None);
        assert_eq!(average_precision(&predictions, 0), None);
    }

    #[test]
    fn the_least_sure_are_referred_first() {
        // Confidences .9 (right, weight 1/2), .7 (wrong, 1/2), .6 (right, 1), .6 (wrong, 1).
        let rows: [[f32; 2]; 4] = [[0.9, 0.1], [0.7, 0.3], [0.4, 0.6], [0.4, 0.6]];
        let probabilities = rows.map(|row| row.to_vec()).to_vec();
        let predictions = Predictions { labels: vec![0, 1, 1, 0], probabilities };
        let curve = abstention_curve(&predictions, &[0.5, 0.5, 1.0, 1.0]);
        let points: Vec<_> = curve.iter().map(|p| (p.confidence, p.answered, p.error_rate)).collect();
        // .5 of 3 answered, none wrong; 1 of 3, half wrong; all, 1.5 of 3 wrong.
        assert_eq!(points, [(0.9, 0.5 / 3.0, 0.0), (0.7, 1.0 / 3.0, 0.5), (0.6, 1.0, 0.5)]);
    }
}
