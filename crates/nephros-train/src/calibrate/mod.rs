//! What a trained model's probabilities mean, measured on validation patients: temperature scaling
//! and the thresholds below which it does not answer alone.

mod conformal;
mod temperature;

pub use conformal::fit_abstention;
pub use temperature::fit_temperature;

use nephros_core::{
    abstention::Abstention,
    calibration::{Calibration, CalibrationMethod},
};

use crate::{config::Params, evaluate::metrics::Predictions, split::Unit};

/// Predictions on validation images and whose they are.
#[derive(Debug, Clone)]
pub struct Measured {
    /// As the network gives them.
    pub predictions: Predictions,
    /// Group of each image; those that were kept together share it.
    pub groups: Vec<usize>,
    /// What a group is.
    pub unit: Unit,
    /// Classes.
    pub classes: usize,
}

/// Fits both; the thresholds are of calibrated probabilities.
///
/// The same patients serve twice. For two classes that costs nothing: a temperature keeps the order
/// of two images by the probability of a class, and the threshold depends on that order alone.
pub fn fit(measured: &Measured, params: &Params) -> (Calibration, Abstention) {
    let Measured { predictions, groups, unit, classes } = measured;
    // Six decimals are read back from JSON as they were written.
    let temperature = rounded(fit_temperature(predictions, groups));
    let calibrated = predictions.with_temperature(temperature);
    let distinct: std::collections::BTreeSet<usize> = groups.iter().copied().collect();
    let calibration = Calibration {
        method: CalibrationMethod::Temperature,
        temperature,
        images: predictions.len(),
        groups: distinct.len(),
        unit: unit.to_string(),
        ece_before: rounded(predictions.ece()),
        ece_after: rounded(calibrated.ece()),
    };
    let abstention = Abstention {
        unit: unit.to_string(),
        chosen_by_validation: params.early_stopping_patience > 0,
        ..fit_abstention(&calibrated, groups, *classes, params.conformal_error_rate)
    };
    (calibration, abstention)
}

fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
