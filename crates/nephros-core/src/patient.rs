//! One answer for a patient, from all of its slices.

use serde::{Deserialize, Serialize};

use crate::{
    abstention::{Abstention, Answer},
    calibration::Calibration,
    predictor::Prediction,
};

/// How the mean over a patient's slices is read; `patient` of `bundle.json`.
///
/// Slices of one patient err alike, so that neither the temperature nor the thresholds of slices are those of
/// their mean: both are fitted anew, to validation patients. In `calibration` the errors are over patients, and
/// `images` are all of theirs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatientReading {
    /// How the mean is corrected.
    pub calibration: Calibration,
    /// When a patient is for a radiologist.
    pub abstention: Abstention,
}

/// What a model says of a patient.
#[derive(Debug, Clone, PartialEq)]
pub struct PatientAnswer {
    /// The mean over the slices; corrected where the model's bundle knows how.
    pub prediction: Prediction,
    /// What it amounts to; `None` for a model that knows no error rate for patients.
    pub answer: Option<Answer>,
}

/// The mean of the probabilities of slices, each `[labels]` and calibrated; `None` of no slice.
///
/// The mean and not a product: one slice that is certain and wrong then weighs no more than another.
pub fn mean<'a>(slices: impl IntoIterator<Item = &'a [f32]>) -> Option<Prediction> {
    let mut slices = slices.into_iter();
    let mut sums: Vec<f64> = slices.next()?.iter().copied().map(f64::from).collect();
    let mut count = 1.0;
    for slice in slices {
        for (sum, &probability) in sums.iter_mut().zip(slice) {
            *sum += f64::from(probability);
        }
        count += 1.0;
    }
    Some(Prediction { probabilities: sums.into_iter().map(|sum| (sum / count) as f32).collect() })
}

/// The answer from a patient's slices, as [`mean`] takes them; `None` of no slice.
pub fn answer<'a>(
    reading: Option<&PatientReading>,
    labels: &[String],
    slices: impl IntoIterator<Item = &'a [f32]>,
) -> Option<PatientAnswer> {
    let mean = mean(slices)?;
    let Some(PatientReading { calibration, abstention }) = reading else {
        return Some(PatientAnswer { prediction: mean, answer: None });
    };
    let prediction = calibration.apply(&mean);
    let answer = Some(abstention.answer(labels, &prediction.probabilities));
    Some(PatientAnswer { prediction, answer })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        abstention::{AbstentionMethod, Scope},
        calibration::CalibrationMethod,
    };

    fn reading(temperature: f64, thresholds: [f32; 2]) -> PatientReading {
        PatientReading {
            calibration: Calibration {
                method: CalibrationMethod::Temperature,
                temperature,
                images: 40,
                groups: 10,
                unit: "patient".into(),
                ece_before: 0.2,
                ece_after: 0.1,
            },
            abstention: Abstention {
                method: AbstentionMethod::HierarchicalConformal,
                error_rate: 0.1,
                scope: Scope::Label,
                thresholds: thresholds.to_vec(),
                groups: 10,
                groups_of_label: vec![5, 5],
                needed: 9,
                unit: "patient".into(),
                chosen_by_validation: false,
            },
        }
    }

    #[test]
    fn the_mean_is_corrected_and_read() {
        let labels = ["Normal", "Tumor"].map(String::from);
        let slices: [&[f32]; 3] = [&[0.5, 0.5], &[0.25, 0.75], &[0.0, 1.0]];
        let plain = answer(None, &labels, slices).unwrap();
        assert_eq!((plain.prediction.probabilities, plain.answer), (vec![0.25, 0.75], None));
        // A lead of ln 3, doubled: 9 / (1 + 9).
        let read = answer(Some(&reading(0.5, [0.2, 0.2])), &labels, slices).unwrap();
        assert!((read.prediction.probabilities[1] - 0.9).abs() < 1e-6, "{read:?}");
        assert_eq!(read.answer.unwrap().set, ["Tumor"]);
        assert_eq!(answer(None, &labels, []), None);
    }
}
