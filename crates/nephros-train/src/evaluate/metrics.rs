//! Classification metrics; the definitions are scikit-learn's, and so are the golden values.

use std::{collections::HashMap, hash::Hash};

use nephros_core::patient;
use serde::{Deserialize, Serialize};

/// Smallest probability that a cross-entropy counts, as scikit-learn 1.2 has it.
pub const LEAST_PROBABILITY: f64 = 1e-15;

/// Specificity of [`Metrics::sensitivity_at_90_specificity`].
const SCREENING_SPECIFICITY: f64 = 0.9;

/// Shares of images are rounded fractions.
const ROUNDING: f64 = 1e-9;

/// What a model said of images whose class is known.
#[derive(Debug, Clone, Default)]
pub struct Predictions {
    /// True label of each image.
    pub labels: Vec<usize>,
    /// Probability of each class, image by image: `[images][classes]`.
    pub probabilities: Vec<Vec<f32>>,
}

/// The headline figures of one set of predictions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Mean cross-entropy in nats.
    pub loss: f64,
    /// Share of images whose most probable class is right.
    pub accuracy: f64,
    /// Of the positive class; the mean over classes when there are more than two.
    pub precision: f64,
    /// As `precision`.
    pub recall: f64,
    /// As `precision`.
    pub f1: f64,
    /// Area under the ROC curve of the positive class (mean of one against the rest when there are
    /// more than two); `None` when a class is absent.
    pub auroc: Option<f64>,
    /// Recall of the positive class; the mean over classes when there are more than two.
    pub sensitivity: f64,
    /// Recall of the negatives.
    pub specificity: f64,
    /// The most sensitivity that a threshold has with a specificity of at least 0.9; the mean over
    /// classes when there are more than two, `None` when a class is absent.
    #[serde(default)]
    pub sensitivity_at_90_specificity: Option<f64>,
}

impl Predictions {
    /// Images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Adds one image.
    pub fn push(&mut self, label: usize, probabilities: Vec<f32>) {
        self.labels.push(label);
        self.probabilities.push(probabilities);
    }

    /// One prediction for each unit (patient) and class, in the order of their first images: the mean
    /// of its images. `units` names that of each image. With it the positions of those first images.
    #[must_use]
    pub fn by_unit<U: Eq + Hash>(&self, units: &[U]) -> (Self, Vec<usize>) {
        let mut places: HashMap<(&U, usize), usize> = HashMap::new();
        let mut images: Vec<Vec<usize>> = Vec::new();
        for (image, (unit, &label)) in units.iter().zip(&self.labels).enumerate() {
            let place = *places.entry((unit, label)).or_insert(images.len());
            if place == images.len() {
                images.push(Vec::new());
            }
            images[place].push(image);
        }
        let first: Vec<usize> = images.iter().map(|images| images[0]).collect();
        let mean = |images: &Vec<usize>| {
            let slices = images.iter().map(|&image| self.probabilities[image].as_slice());
            patient::mean(slices).map_or_else(Vec::new, |mean| mean.probabilities)
        };
        let labels = first.iter().map(|&image| self.labels[image]).collect();
        (Self { labels, probabilities: images.iter().map(mean).collect() }, first)
    }

    /// Most probable class of each image, the first one on a tie.
    pub fn predicted(&self) -> Vec<usize> {
        self.probabilities.iter().map(|row| argmax(row)).collect()
    }

    /// `[true class][predicted class]` counts.
    pub fn confusion(&self, classes: usize) -> Vec<Vec<usize>> {
        let mut counts = vec![vec![0; classes]; classes];
        for (&label, predicted) in self.labels.iter().zip(self.predicted()) {
            counts[label][predicted] += 1;
        }
        counts
    }

    /// All metrics; for two classes the second is the positive one.
    pub fn metrics(&self, classes: usize) -> Metrics {
        let confusion = self.confusion(classes);
        let positives: Vec<usize> = if classes == 2 { vec![1] } else { (0..classes).collect() };
        let mean = |metric: &dyn Fn(usize) -> f64| {
            positives.iter().map(|&class| metric(class)).sum::<f64>() / positives.len() as f64
        };
        let recall = |class: usize| recall(&confusion, class);
        let correct: usize = (0..classes).map(|class| confusion[class][class]).sum();
        Metrics {
            loss: self.loss(),
            accuracy: ratio(correct, self.len()),
            precision: mean(&|class| precision(&confusion, class)),
            recall: mean(&recall),
            f1: mean(&|class| f1(precision(&confusion, class), recall(class))),
            auroc: self.mean_auroc(classes),
            sensitivity: mean(&recall),
            specificity: mean(&|class| specificity(&confusion, class)),
            sensitivity_at_90_specificity: mean_over(classes, |class| {
                self.sensitivity_at(class, SCREENING_SPECIFICITY)
            }),
        }
    }

    /// Mean cross-entropy in nats, probabilities held above [`LEAST_PROBABILITY`].
    pub fn loss(&self) -> f64 {
        let rows = self.labels.iter().zip(&self.probabilities);
        let total: f64 = rows.map(|(&label, row)| -f64::from(row[label]).max(LEAST_PROBABILITY).ln()).sum();
        total / self.len().max(1) as f64
    }

    /// [`Metrics::auroc`] alone.
    pub fn mean_auroc(&self, classes: usize) -> Option<f64> {
        mean_over(classes, |class| self.auroc(class))
    }

    /// Area under the ROC curve of one class against the rest, by the rank-sum formula with ties
    /// counted half; `None` when all or no images are of that class.
    pub fn auroc(&self, class: usize) -> Option<f64> {
        let Ranked { scored, positives, negatives } = self.ranked(class)?;
        let (mut rank_sum, mut start) = (0.0, 0);
        for tied in scored.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq()) {
            // Ranks count from 1; tied scores share the mean of their ranks.
            let rank = start as f64 + 0.5 * (tied.len() as f64 + 1.0);
            rank_sum += rank * tied.iter().filter(|(_, positive)| *positive).count() as f64;
            start += tied.len();
        }
        let smallest = (positives * (positives + 1)) as f64 / 2.0;
        Some((rank_sum - smallest) / (positives * negatives) as f64)
    }

    /// The most recall of one class that a threshold on its probability has while it leaves at least
    /// `specificity` of the other images below; `None` when all or no images are of that class.
    pub fn sensitivity_at(&self, class: usize, specificity: f64) -> Option<f64> {
        let Ranked { scored, positives, negatives } = self.ranked(class)?;
        let allowed = (1.0 - specificity) * negatives as f64 + ROUNDING;
        let (mut found, mut false_alarms) = (0, 0);
        for tied in scored.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq()).rev() {
            let right = tied.iter().filter(|(_, positive)| *positive).count();
            false_alarms += tied.len() - right;
            if false_alarms as f64 > allowed {
                break;
            }
            found += right;
        }
        Some(ratio(found, positives))
    }

    /// The images by their probability of one class, least first; `None` when all or no images are of it.
    fn ranked(&self, class: usize) -> Option<Ranked> {
        let mut scored: Vec<(f32, bool)> =
            self.labels.iter().zip(&self.probabilities).map(|(&l, row)| (row[class], l == class)).collect();
        scored.sort_by(|a, b| a.0.total_cmp(&b.0));
        let positives = scored.iter().filter(|(_, positive)| *positive).count();
        let negatives = scored.len() - positives;
        (positives > 0 && negatives > 0).then_some(Ranked { scored, positives, negatives })
    }

    /// The images at these positions, which may repeat.
    #[must_use]
    pub fn select(&self, positions: impl IntoIterator<Item = usize>) -> Self {
        let mut selected = Self::default();
        for position in positions {
            selected.push(self.labels[position], self.probabilities[position].clone());
        }
        selected
    }

    /// Share of the largest class: the accuracy of always naming it.
    pub fn majority_accuracy(&self, classes: usize) -> f64 {
        let count = |class: usize| self.labels.iter().filter(|&&label| label == class).count();
        ratio((0..classes).map(count).max().unwrap_or(0), self.len())
    }
}

/// Images in the order of their probability of one class.
struct Ranked {
    /// That probability, and whether the image is of the class.
    scored: Vec<(f32, bool)>,
    positives: usize,
    negatives: usize,
}

/// A figure of the positive class, the mean over classes when there are more than two.
fn mean_over(classes: usize, figure: impl Fn(usize) -> Option<f64>) -> Option<f64> {
    if classes == 2 {
        return figure(1);
    }
    let all: Option<Vec<f64>> = (0..classes).map(figure).collect();
    all.map(|all| all.iter().sum::<f64>() / all.len() as f64)
}

fn argmax(row: &[f32]) -> usize {
    (1..row.len()).fold(0, |best, class| if row[class] > row[best] { class } else { best })
}

fn recall(confusion: &[Vec<usize>], class: usize) -> f64 {
    ratio(confusion[class][class], confusion[class].iter().sum())
}

fn precision(confusion: &[Vec<usize>], class: usize) -> f64 {
    ratio(confusion[class][class], confusion.iter().map(|row| row[class]).sum())
}

fn specificity(confusion: &[Vec<usize>], class: usize) -> f64 {
    let negatives = || (0..confusion.len()).filter(|&other| other != class);
    let false_positives: usize = negatives().map(|other| confusion[other][class]).sum();
    let all: usize = negatives().map(|other| confusion[other].iter().sum::<usize>()).sum();
    ratio(all - false_positives, all)
}

fn f1(precision: f64, recall: f64) -> f64 {
    if precision + recall == 0.0 { 0.0 } else { 2.0 * precision * recall / (precision + recall) }
}

/// 0 where the denominator is 0, as scikit-learn's `zero_division=0`.
fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What scikit-learn says; made by `scripts/golden/metrics.py`.
    #[derive(Deserialize)]
    struct Golden {
        name: String,
        classes: usize,
        labels: Vec<usize>,
        probabilities: Vec<Vec<f32>>,
        accuracy: f64,
        precision: f64,
        recall: f64,
        f1: f64,
        auroc: f64,
        loss: f64,
        specificity: f64,
        sensitivity_at_90_specificity: f64,
        confusion: Vec<Vec<usize>>,
    }

    #[test]
    fn metrics_are_scikit_learns() {
        let cases: Vec<Golden> = serde_json::from_str(include_str!("golden/metrics.json")).unwrap();
        assert_eq!(cases.len(), 3);
        for golden in cases {
            let predictions = Predictions { labels: golden.labels, probabilities: golden.probabilities };
            let got = predictions.metrics(golden.classes);
            assert_eq!(predictions.confusion(golden.classes), golden.confusion, "{}", golden.name);
            for (what, got, expected) in [
                ("accuracy", got.accuracy, golden.accuracy),
                ("precision", got.precision, golden.precision),
                ("recall", got.recall, golden.recall),
                ("sensitivity", got.sensitivity, golden.recall),
                ("f1", got.f1, golden.f1),
                ("auroc", got.auroc.unwrap(), golden.auroc),
                ("specificity", got.specificity, golden.specificity),
                ("loss", got.loss, golden.loss),
                (
                    "sensitivity at 90 % specificity",
                    got.sensitivity_at_90_specificity.unwrap(),
                    golden.sensitivity_at_90_specificity,
                ),
            ] {
                assert!((got - expected).abs() < 1e-9, "{}: {what} {got}, expected {expected}", golden.name);
            }
        }
    }

    #[test]
    fn without_both_classes_there_is_no_auroc() {
        let predictions = Predictions { labels: vec![1, 1], probabilities: vec![vec![0.4, 0.6]; 2] };
        assert_eq!(predictions.metrics(2).auroc, None);
        assert_eq!(predictions.metrics(2).sensitivity_at_90_specificity, None);
        assert_eq!(predictions.majority_accuracy(2).to_bits(), 1.0f64.to_bits());
    }

    #[test]
    fn a_patient_is_the_mean_of_its_images() {
        let probabilities = [0.2, 0.9, 0.4, 0.7].map(|tumor| vec![1.0 - tumor, tumor]).to_vec();
        let predictions = Predictions { labels: vec![0, 1, 0, 1], probabilities };
        let units = ["a", "b", "a", "c"].map(String::from);
        let (patients, first) = predictions.by_unit(&units);
        assert_eq!((patients.labels, first), (vec![0, 1, 1], vec![0, 1, 3]));
        let tumor: Vec<f32> = patients.probabilities.iter().map(|row| row[1]).collect();
        // (0.2 + 0.4) / 2
        for (got, expected) in tumor.iter().zip([0.3, 0.9, 0.7]) {
            assert!((got - expected).abs() < 1e-6, "{tumor:?}");
        }
    }
}
