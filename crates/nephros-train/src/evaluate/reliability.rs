//! Whether probabilities mean what they say: calibration error, Brier score, reliability curve.

use nephros_core::{calibration::with_temperature, predictor::Prediction};
use serde::{Deserialize, Serialize};

use super::metrics::Predictions;

/// Bins of equal width of the reliability curve and of the calibration error.
pub const BINS: usize = 15;

/// Images whose confidence (probability of the label named) lies in `(from, to]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// Lower end, not included.
    pub from: f64,
    /// Upper end, included.
    pub to: f64,
    /// Images.
    pub n: usize,
    /// Mean confidence.
    pub confidence: f64,
    /// Share of images whose label is right.
    pub accuracy: f64,
}

impl Predictions {
    /// The same images with every probability at another temperature.
    #[must_use]
    pub fn with_temperature(&self, temperature: f64) -> Self {
        let scaled = |row: &Vec<f32>| {
            with_temperature(&Prediction { probabilities: row.clone() }, temperature).probabilities
        };
        Self { labels: self.labels.clone(), probabilities: self.probabilities.iter().map(scaled).collect() }
    }

    /// Confidence and accuracy in [`BINS`] bins; bins without an image are left out.
    pub fn reliability(&self) -> Vec<Bin> {
        let mut sums = vec![(0_usize, 0.0, 0_usize); BINS];
        for ((&label, predicted), row) in self.labels.iter().zip(self.predicted()).zip(&self.probabilities) {
            let confidence = f64::from(row[predicted]);
            let (n, total, right) = &mut sums[bin(confidence)];
            *n += 1;
            *total += confidence;
            *right += usize::from(label == predicted);
        }
        let bins = sums.into_iter().enumerate().filter(|(_, (n, ..))| *n > 0);
        bins.map(|(index, (n, confidence, right))| Bin {
            from: edge(index),
            to: edge(index + 1),
            n,
            confidence: confidence / n as f64,
            accuracy: right as f64 / n as f64,
        })
        .collect()
    }

    /// Expected calibration error: mean distance of confidence and accuracy over the bins, by
    /// their images. Few images make it large by chance.
    ///
    /// Source: Naeini et al., Obtaining Well Calibrated Probabilities Using Bayesian Binning, 2015.
    pub fn ece(&self) -> f64 {
        let gap = |bin: &Bin| bin.n as f64 * (bin.confidence - bin.accuracy).abs();
        self.reliability().iter().map(gap).sum::<f64>() / self.len().max(1) as f64
    }

    /// Mean squared distance of the probabilities from the truth. For two classes that of the
    /// positive class alone, for more summed over the classes, as scikit-learn does.
    ///
    /// Source: Brier, Verification of Forecasts Expressed in Terms of Probability, 1950.
    pub fn brier(&self) -> f64 {
        let squared = |label: usize, row: &[f32], class: usize| {
            let truth = f64::from(u8::from(label == class));
            (f64::from(row[class]) - truth).powi(2)
        };
        let rows = self.labels.iter().zip(&self.probabilities);
        let total: f64 = rows
            .map(|(&label, row)| match row.len() {
                2 => squared(label, row, 1),
                classes => (0..classes).map(|class| squared(label, row, class)).sum(),
            })
            .sum();
        total / self.len().max(1) as f64
    }
}

fn edge(index: usize) -> f64 {
    index as f64 / BINS as f64
}

/// The bin that a confidence lies in; 0 belongs to the first.
fn bin(confidence: f64) -> usize {
    (1..BINS).find(|&index| confidence <= edge(index)).unwrap_or(BINS) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What scikit-learn says; made by `scripts/golden/metrics.py`.
    #[derive(Deserialize)]
    struct Golden {
        name: String,
        labels: Vec<usize>,
        probabilities: Vec<Vec<f32>>,
        brier: f64,
        ece: f64,
        /// Images, mean confidence and accuracy of each bin that holds any.
        reliability: Vec<(usize, f64, f64)>,
    }

    #[test]
    fn calibration_is_measured_as_scikit_learn_does() {
        let cases: Vec<Golden> = serde_json::from_str(include_str!("golden/metrics.json")).unwrap();
        for golden in cases {
            let predictions = Predictions { labels: golden.labels, probabilities: golden.probabilities };
            let close = |got: f64, expected: f64| {
                assert!((got - expected).abs() < 1e-9, "{}: {got}, expected {expected}", golden.name);
            };
            close(predictions.brier(), golden.brier);
            close(predictions.ece(), golden.ece);
            let bins = predictions.reliability();
            assert_eq!(bins.len(), golden.reliability.len(), "{}", golden.name);
            for (bin, (n, confidence, accuracy)) in bins.iter().zip(golden.reliability) {
                assert_eq!(bin.n, n, "{}: {bin:?}", golden.name);
                close(bin.confidence, confidence);
                close(bin.accuracy, accuracy);
            }
        }
    }

    #[test]
    fn a_model_that_is_right_as_often_as_it_says_has_no_error() {
        let row = |right: bool| (usize::from(right), vec![0.25, 0.75]);
        let mut predictions = Predictions::default();
        // Three of four right at 0.75.
        for (label, row) in [true, true, true, false].map(row) {
            predictions.push(label, row);
        }
        assert!(predictions.ece() < 1e-12, "{}", predictions.ece());
        // Always sure and right half of the time: 1 - 1/2; squared distances 0 and 1.
        let sure = Predictions { labels: vec![0, 1], probabilities: vec![vec![0.0, 1.0]; 2] };
        assert!((sure.ece() - 0.5).abs() < 1e-12 && (sure.brier() - 0.5).abs() < 1e-12);
    }
}
