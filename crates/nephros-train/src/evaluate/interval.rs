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
/// `units` names the unit of each prediction. Deterministic in `seed`.
///
/// Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3.
pub fn bootstrap(predictions: &Predictions, units: &[String], classes: usize, seed: u64) -> Intervals {
    let mut strata: BTreeMap<usize, BTreeMap<&str, Vec<usize>>> = BTreeMap::new();
    for (position, unit) in units.iter().enumerate() {
        let stratum = strata.entry(predictions.labels[position]).or_default();
        stratum.entry(unit).or_default().push(position);
    }
    let strata: Vec<Vec<Vec<usize>>> =
        strata.into_values().map(|units| units.into_values().collect()).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let resamples: Vec<Metrics> = (0..RESAMPLES)
        .map(|_| {
            let mut positions = Vec::with_capacity(units.len());
            for stratum in &strata {
                for _ in 0..stratum.len() {
                    positions.extend(&stratum[rng.random_range(0..stratum.len())]);
                }
            }
            predictions.select(positions).metrics(classes)
        })
        .collect();
    let of = |metric: &dyn Fn(&Metrics) -> Option<f64>| {
        let mut values: Vec<f64> = resamples.iter().filter_map(metric).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    Intervals {
        accuracy: percentiles(&of(&|m| Some(m.accuracy))).unwrap_or([0.0, 1.0]),
        auroc: percentiles(&of(&|m| m.auroc)),
        sensitivity: percentiles(&of(&|m| Some(m.sensitivity))).unwrap_or([0.0, 1.0]),
        specificity: percentiles(&of(&|m| Some(m.specificity))).unwrap_or([0.0, 1.0]),
    }
}

/// 2.5 % and 97.5 % points of sorted values; `None` with fewer than 100 of them.
fn percentiles(sorted: &[f64]) -> Option<Interval> {
    if sorted.len() < 100 {
        return None;
    }
    let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize];
    Some([at(0.025), at(0.975)])
}
