//! 95 % intervals by the percentile bootstrap over patients.

use std::collections::BTreeMap;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::metrics::{Metrics, Predictions};

/// Lower and upper end of a 95 % interval.
pub type Interval = [f64; 2];

/// Intervals of the headline figures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Intervals {
    /// Of the accuracy.
    pub accuracy: Interval,
    /// Of the AUROC; `None` when too few resamples hold every class.
    pub auroc: Option<Interval>,
    /// Of the sensitivity.
    pub sensitivity: Interval,
    /// Of the specificity.
    pub specificity: Interval,
}

/// Resamples drawn.
pub const RESAMPLES: usize = 2000;

/// Draws whole units (patients, or images where none is known) with replacement within each class
/// of unit, because slices of a patient are not independent.
///
/// Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3.
#[derive(Debug)]
pub struct Resampler {
    /// Positions of the images of each unit, units of a class together.
    strata: Vec<Vec<Vec<usize>>>,
    seed: u64,
}

impl Resampler {
    /// `units` names the unit of each prediction. Deterministic in `seed`.
    pub fn new(predictions: &Predictions, units: &[String], seed: u64) -> Self {
        let mut strata: BTreeMap<usize, BTreeMap<&str, Vec<usize>>> = BTreeMap::new();
        for (position, unit) in units.iter().enumerate() {
            let stratum = strata.entry(predictions.labels[position]).or_default();
            stratum.entry(unit).or_default().push(position);
        }
        let strata = strata.into_values().map(|units| units.into_values().collect()).collect();
        Self { strata, seed }
    }

    /// What `statistic` says of each of [`RESAMPLES`] resamples, given as positions of images.
    fn each<T>(&self, statistic: impl Fn(&[usize]) -> T) -> Vec<T> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let resample = |_| {
            let mut positions = Vec::new();
            for stratum in &self.strata {
                for _ in 0..stratum.len() {
                    positions.extend(&stratum[rng.random_range(0..stratum.len())]);
                }
            }
            statistic(&positions)
        };
        (0..RESAMPLES).map(resample).collect()
    }

    /// The 95 % interval of a statistic; `None` where too few resamples have it.
    pub fn interval(&self, statistic: impl Fn(&[usize]) -> Option<f64>) -> Option<Interval> {
        percentiles(&sorted(self.each(statistic).into_iter().flatten()))
    }
}

/// Intervals of the headline figures.
pub fn bootstrap(predictions: &Predictions, resampler: &Resampler, classes: usize) -> Intervals {
    let resamples: Vec<Metrics> =
        resampler.each(|positions| predictions.select(positions.iter().copied()).metrics(classes));
    let of = |metric: &dyn Fn(&Metrics) -> Option<f64>| sorted(resamples.iter().filter_map(metric));
    Intervals {
        accuracy: percentiles(&of(&|m| Some(m.accuracy))).unwrap_or([0.0, 1.0]),
        auroc: percentiles(&of(&|m| m.auroc)),
        sensitivity: percentiles(&of(&|m| Some(m.sensitivity))).unwrap_or([0.0, 1.0]),
        specificity: percentiles(&of(&|m| Some(m.specificity))).unwrap_or([0.0, 1.0]),
    }
}

/// In rising order.
pub(crate) fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// 2.5 % and 97.5 % points of sorted values; `None` with fewer than 100 of them.
pub(crate) fn percentiles(sorted: &[f64]) -> Option<Interval> {
    if sorted.len() < 100 {
        return None;
    }
    let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize];
    Some([at(0.025), at(0.975)])
}
