//! Calibration and abstention across folds.

use nephros_core::abstention::Abstention;

use crate::{
    calibrate::{self, Measured, Reading},
    config::Params,
    evaluate::{
        AbstentionScores, CalibrationScores, PatientScores, abstention_scores, calibration_scores,
        interval::Resampler, metrics::Predictions, patient_scores,
    },
    split::{Split, Subset, Unit, grouped},
    stages::Dataset,
};

/// What the answers of all folds come to once each fold has a temperature and thresholds.
///
/// Those of a fold are fitted to the answers for the images of all other folds, each by a model that
/// never saw its patient: no label of a fold's own images takes part, no model is trained again, and no
/// image is set aside. As the other models saw the patients of this fold, the error rate is promised
/// for twice its value only.
///
/// Source: Vovk, Cross-conformal Predictors, 2015; Barber et al., Predictive Inference with the
/// Jackknife+, 2021.
pub(super) fn doubt(
    dataset: &Dataset,
    params: &Params,
    unit: Unit,
    rounds: &[Split],
    answers: &Predictions,
    (units, resampler): (&[String], &Resampler),
) -> (CalibrationScores, Option<AbstentionScores>, Option<PatientScores>) {
    let fold_of = fold_of(rounds, answers.len());
    let readings = readings(dataset, params, unit, &fold_of, answers);
    let mut calibrated = Predictions::default();
    for (image, &fold) in fold_of.iter().enumerate() {
        let answer = answers.select([image]).with_temperature(readings[fold].calibration.temperature);
        calibrated.push(answer.labels[0], answer.probabilities.concat());
    }
    let rules: Vec<&Abstention> = fold_of.iter().map(|&fold| &readings[fold].abstention).collect();
    let known = dataset.records.iter().all(|record| !record.patient.is_empty());
    let patients: Vec<_> = fold_of.iter().map(|&fold| readings[fold].patient.as_ref()).collect();
    (
        calibration_scores(None, answers, &calibrated, resampler),
        abstention_scores(&rules, &calibrated, units, &dataset.labels, resampler),
        known.then(|| patient_scores(&patients, &calibrated, units, &dataset.labels, params.seed)),
    )
}

/// What is read of each fold's answers, from the answers for the images of the others.
fn readings(
    dataset: &Dataset,
    params: &Params,
    unit: Unit,
    fold_of: &[usize],
    answers: &Predictions,
) -> Vec<Reading> {
    let groups = grouped(&dataset.records, unit);
    let folds = fold_of.iter().max().map_or(0, |last| last + 1);
    let reading = |fold| {
        let others: Vec<usize> = (0..answers.len()).filter(|&image| fold_of[image] != fold).collect();
        let measured = Measured {
            groups: others.iter().map(|&image| groups[image]).collect(),
            predictions: answers.select(others),
            unit,
            classes: dataset.labels.len(),
        };
        calibrate::fit(&measured, params)
    };
    (0..folds).map(reading).collect()
}

/// The fold that tests each image.
pub(super) fn fold_of(rounds: &[Split], images: usize) -> Vec<usize> {
    let mut fold_of = vec![0; images];
    for (fold, split) in rounds.iter().enumerate() {
        for image in split.indices(Subset::Test) {
            fold_of[image] = fold;
        }
    }
    fold_of
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crossval::tests::dataset;

    #[test]
    fn the_labels_of_a_fold_do_not_correct_it() {
        let dataset = dataset(20);
        let params = crate::testing::params();
        let images = dataset.records.len();
        let fold_of: Vec<usize> =
            grouped(&dataset.records, Unit::Patient).iter().map(|group| group % 2).collect();
        let mut answers = Predictions::default();
        for (image, &label) in dataset.targets.iter().enumerate() {
            // Sure of the right label four times of five.
            let right = if image % 5 == 0 { 1 - label } else { label };
            answers.push(label, if right == 0 { vec![0.9, 0.1] } else { vec![0.1, 0.9] });
        }
        let before = readings(&dataset, &params, Unit::Patient, &fold_of, &answers);
        for image in (0..images).filter(|&image| fold_of[image] == 0) {
            answers.labels[image] = 1 - answers.labels[image];
        }
        let after = readings(&dataset, &params, Unit::Patient, &fold_of, &answers);
        assert_eq!(before[0], after[0]);
        assert_ne!(before[1], after[1]);
    }
}
