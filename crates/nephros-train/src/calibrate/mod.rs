//! What a trained model's probabilities mean, measured on validation patients: temperature scaling
//! and the thresholds below which it does not answer alone.

mod conformal;
mod temperature;

pub use conformal::fit_abstention;
pub use temperature::fit_temperature;

use std::collections::BTreeSet;

use nephros_core::{
    abstention::Abstention,
    calibration::{Calibration, CalibrationMethod},
    patient::PatientReading,
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

/// How a model's answers are read.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// How the probabilities of an image are corrected.
    pub calibration: Calibration,
    /// When an image is for a radiologist.
    pub abstention: Abstention,
    /// The same of a patient; `None` where it is not patients that were kept together.
    pub patient: Option<PatientReading>,
}

/// Fits all; the thresholds are of calibrated probabilities, a patient's are of the mean of those.
///
/// The same patients serve twice. For images of two classes that costs nothing: a temperature keeps the order
/// of two images by the probability of a class, and the threshold depends on that order alone. For patients it
/// is nearly so: one number fitted to all images comes before their means.
pub fn fit(measured: &Measured, params: &Params) -> Reading {
    let (calibration, calibrated) = scaled(measured);
    let abstention = thresholds(measured, &calibrated, params);
    let patient = (measured.unit == Unit::Patient).then(|| {
        let (means, first) = calibrated.by_unit(&measured.groups);
        let groups = first.into_iter().map(|image| measured.groups[image]).collect();
        let patients = Measured { predictions: means, groups, ..*measured };
        let (calibration, calibrated) = scaled(&patients);
        let abstention = thresholds(&patients, &calibrated, params);
        PatientReading {
            calibration: Calibration { images: measured.predictions.len(), ..calibration },
            abstention,
        }
    });
    Reading { calibration, abstention, patient }
}

/// The temperature, and the predictions with it.
fn scaled(measured: &Measured) -> (Calibration, Predictions) {
    let Measured { predictions, groups, unit, .. } = measured;
    // Six decimals are read back from JSON as they were written.
    let temperature = rounded(fit_temperature(predictions, groups));
    let calibrated = predictions.with_temperature(temperature);
    let distinct: BTreeSet<usize> = groups.iter().copied().collect();
    let calibration = Calibration {
        method: CalibrationMethod::Temperature,
        temperature,
        images: predictions.len(),
        groups: distinct.len(),
        unit: unit.to_string(),
        ece_before: rounded(predictions.ece()),
        ece_after: rounded(calibrated.ece()),
    };
    (calibration, calibrated)
}

fn thresholds(measured: &Measured, calibrated: &Predictions, params: &Params) -> Abstention {
    Abstention {
        unit: measured.unit.to_string(),
        chosen_by_validation: params.early_stopping_patience > 0,
        ..fit_abstention(calibrated, &measured.groups, measured.classes, params.conformal_error_rate)
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
