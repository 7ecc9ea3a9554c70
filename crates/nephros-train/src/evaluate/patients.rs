//! Patients, each answered for by all of its images.

use std::fmt;

use nephros_core::{abstention::Abstention, patient::PatientReading};
use serde::{Deserialize, Serialize};

use super::{
    AbstentionScores, CalibrationScores, Doubt, abstention_scores, calibration_scores,
    interval::{Intervals, Resampler, bootstrap},
    metrics::{Metrics, Predictions},
};

/// `by_patient` of `scores.json` and `crossval.json`: a patient is one case, however many images it has. One
/// with images of two classes is two. All images count, those too that the input gate would leave out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PatientScores {
    /// The headline figures.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// Patients, one with images of two classes twice.
    pub n: usize,
    /// 95 % intervals by bootstrap over patients.
    pub interval_95: Intervals,
    /// Rows are true classes, columns predicted ones.
    pub confusion_matrix: Vec<Vec<usize>>,
    /// Whether a patient's probability means what it says; "before" is the mean of the images'.
    pub calibration: CalibrationScores,
    /// How often a patient is referred to a radiologist; `None` without an error rate.
    pub abstention: Option<AbstentionScores>,
}

/// Figures from calibrated answers for images; `units` names the patient of each, `readings` how that
/// patient's mean is read, if it is known.
pub(crate) fn patient_scores(
    readings: &[Option<&PatientReading>],
    images: &Predictions,
    units: &[String],
    labels: &[String],
    seed: u64,
) -> PatientScores {
    let (means, first) = images.by_unit(units);
    let names: Vec<String> = first.iter().map(|&image| units[image].clone()).collect();
    let readings: Vec<_> = first.iter().map(|&image| readings[image]).collect();
    let mut patients = Predictions::default();
    for (patient, reading) in readings.iter().enumerate() {
        let mean = means.select([patient]);
        let read = reading
            .map_or_else(|| mean.clone(), |reading| mean.with_temperature(reading.calibration.temperature));
        patients.push(mean.labels[0], read.probabilities.concat());
    }
    let rules: Option<Vec<&Abstention>> =
        readings.iter().map(|reading| reading.map(|reading| &reading.abstention)).collect();
    let resampler = Resampler::new(&patients, &names, seed);
    // Patients of one model share a reading, those of several folds do not.
    let shared =
        readings.first().copied().flatten().filter(|one| readings.iter().all(|other| *other == Some(one)));
    PatientScores {
        metrics: patients.metrics(labels.len()),
        n: patients.len(),
        interval_95: bootstrap(&patients, &resampler, labels.len()),
        confusion_matrix: patients.confusion(labels.len()),
        calibration: calibration_scores(
            shared.map(|reading| &reading.calibration),
            &means,
            &patients,
            &resampler,
        ),
        abstention: rules.and_then(|rules| abstention_scores(&rules, &patients, &names, labels, &resampler)),
    }
}

impl fmt::Display for PatientScores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { metrics, n, interval_95, calibration, .. } = self;
        let [low, high] = interval_95.accuracy;
        write!(f, "by patient, the mean of all images of each of {n}:")?;
        write!(f, "\n  accuracy    {:.3} ({low:.3} to {high:.3})", metrics.accuracy)?;
        if let Some(auroc) = metrics.auroc {
            let range = interval_95.auroc.map(|[low, high]| format!(" ({low:.3} to {high:.3})"));
            write!(f, "\n  AUROC       {auroc:.3}{}", range.unwrap_or_default())?;
        }
        if let Some(sensitivity) = metrics.sensitivity_at_90_specificity {
            write!(f, ", sensitivity {sensitivity:.3} at a specificity of 0.9")?;
        }
        write!(f, "\n{}", Doubt(calibration, self.abstention.as_ref(), "patients"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        calibrate::{self, Measured},
        split::Unit,
    };

    #[test]
    fn a_patient_is_one_case_read_anew() {
        let mut images = Predictions::default();
        let mut units = Vec::new();
        for patient in 0..24 {
            // Of five slices two err: their mean is right by a little, for every patient.
            let label = patient % 2;
            for slice in 0..5 {
                let right = if slice < 2 { 0.4 } else { 0.7_f32 };
                let row = if label == 1 { vec![1.0 - right, right] } else { vec![right, 1.0 - right] };
                images.push(label, row);
                units.push(format!("P{patient}"));
            }
        }
        let labels = ["Normal", "Tumor"].map(String::from);
        let none = patient_scores(&[None; 120], &images, &units, &labels, 1);
        assert_eq!((none.n, none.metrics.auroc, none.metrics.accuracy), (24, Some(1.0), 1.0));
        // 1 - (3 * 0.7 + 2 * 0.4) / 5
        assert!((none.calibration.ece - 0.42).abs() < 1e-6, "{}", none.calibration.ece);
        assert!(none.abstention.is_none() && none.calibration.temperature.is_none());

        let groups: Vec<usize> = (0..120).map(|image| image / 5).collect();
        let measured = Measured { predictions: images.clone(), groups, unit: Unit::Patient, classes: 2 };
        let of_images = calibrate::fit(&measured, &crate::testing::params());
        let images = images.with_temperature(of_images.calibration.temperature);
        let reading = of_images.patient.unwrap();
        assert_eq!((reading.calibration.groups, reading.abstention.groups), (24, 24));
        let read = patient_scores(&[Some(&reading); 120], &images, &units, &labels, 1);
        assert_eq!(read.calibration.temperature, Some(reading.calibration.temperature));
        // Stated are 0.90 where all are right: the prior keeps 24 patients from certainty.
        assert!((0.05..0.15).contains(&read.calibration.ece), "{}", read.calibration.ece);
        let abstention = read.abstention.unwrap();
        assert_eq!((abstention.coverage, abstention.abstention_rate), (1.0, 0.0));
    }
}
