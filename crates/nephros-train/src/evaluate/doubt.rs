//! Calibration and abstention of a model on the test images.

use std::{collections::BTreeMap, fmt};

use nephros_core::{
    abstention::{Abstention, Scope},
    calibration::Calibration,
};
use serde::{Deserialize, Serialize};

use super::{
    interval::{Interval, Resampler},
    metrics::Predictions,
    reliability::{BINS, Bin},
};

/// `calibration` of `scores.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CalibrationScores {
    /// What logits are divided by; `None` for a bundle without a calibration, and for answers of several
    /// models, each with a temperature of its own.
    pub temperature: Option<f64>,
    /// Expected calibration error of the most probable label. It has no interval: resampling makes
    /// it larger.
    pub ece: f64,
    /// Bins of equal width that the error is taken over.
    pub ece_bins: usize,
    /// Brier score: for two classes of the positive one, for more summed over the classes.
    pub brier: f64,
    /// Its 95 % interval by bootstrap over patients.
    pub brier_interval_95: Option<Interval>,
    /// The same figures without the temperature.
    pub before: Before,
    /// Confidence and accuracy in each bin that holds an image.
    pub reliability: Vec<Bin>,
}

/// What the network's own probabilities come to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Before {
    /// Mean cross-entropy in nats.
    pub loss: f64,
    /// Expected calibration error.
    pub ece: f64,
    /// Brier score.
    pub brier: f64,
}

/// Figures of `calibrated`, which is `raw` as the calibration corrects it.
pub(crate) fn calibration_scores(
    calibration: Option<&Calibration>,
    raw: &Predictions,
    calibrated: &Predictions,
    resampler: &Resampler,
) -> CalibrationScores {
    CalibrationScores {
        temperature: calibration.map(|calibration| calibration.temperature),
        ece: calibrated.ece(),
        ece_bins: BINS,
        brier: calibrated.brier(),
        brier_interval_95: resampler
            .interval(|positions| Some(calibrated.select(positions.iter().copied()).brier())),
        before: Before { loss: raw.loss(), ece: raw.ece(), brier: raw.brier() },
        reliability: calibrated.reliability(),
    }
}

/// `abstention` of `scores.json`. Every patient counts equally, as in the promise; images do where
/// patients are unknown. Below `by_patient` what is called a slice here is a patient.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AbstentionScores {
    /// Share of slices whose true label may be outside the set.
    pub error_rate: f64,
    /// What that is promised for.
    pub scope: Scope,
    /// Share of slices whose true label is in the set; at least `1 - error_rate` is promised.
    pub coverage: f64,
    /// Its 95 % interval by bootstrap over patients.
    pub coverage_interval_95: Option<Interval>,
    /// The same of each label.
    pub coverage_of_label: BTreeMap<String, f64>,
    /// Share of slices that are for a radiologist.
    pub abstention_rate: f64,
    /// Its 95 % interval.
    pub abstention_rate_interval_95: Option<Interval>,
    /// Share of wrong labels among the slices that are answered; `None` when none is.
    pub error_rate_answered: Option<f64>,
    /// Its 95 % interval; `None` when too few resamples answer any.
    pub error_rate_answered_interval_95: Option<Interval>,
    /// Why every slice is for a radiologist, if it is so.
    pub shortage: Option<String>,
}

/// Calibration and abstention as text, a line each, and what is counted, in the plural.
pub(crate) struct Doubt<'a>(pub &'a CalibrationScores, pub Option<&'a AbstentionScores>, pub &'static str);

impl fmt::Display for Doubt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CalibrationScores { ece, brier, before, .. } = self.0;
        let (ece_before, brier_before) = (before.ece, before.brier);
        write!(
            f,
            "  calibration ECE {ece:.3} (before {ece_before:.3}), Brier {brier:.3} ({brier_before:.3})"
        )?;
        let Some(abstention) = self.1 else { return Ok(()) };
        let AbstentionScores { coverage, abstention_rate, error_rate, .. } = abstention;
        let goal = 1.0 - error_rate;
        write!(f, "\n  abstention  {abstention_rate:.3} of {} referred; true label in the set ", self.2)?;
        write!(f, "{coverage:.3} (goal {goal:.3})")?;
        if let Some(wrong) = abstention.error_rate_answered {
            write!(f, ", {wrong:.3} of answers wrong")?;
        }
        match &abstention.shortage {
            Some(shortage) => write!(f, "\n              {shortage}"),
            None => Ok(()),
        }
    }
}

/// One image: its weight, and what the set says.
#[derive(Clone, Copy)]
struct Image {
    weight: f64,
    label: usize,
    covered: bool,
    answered: bool,
}

/// Figures on calibrated predictions; `rules` has the thresholds for each image, `units` the name of its
/// patient. `None` without an image.
pub(crate) fn abstention_scores(
    rules: &[&Abstention],
    calibrated: &Predictions,
    units: &[String],
    labels: &[String],
    resampler: &Resampler,
) -> Option<AbstentionScores> {
    let first = rules.first()?;
    let images = images(rules, calibrated, units);
    let all: Vec<usize> = (0..images.len()).collect();
    let covered = |image: Image| image.covered;
    let referred = |image: Image| !image.answered;
    let share = |positions: &[usize], kept: &dyn Fn(Image) -> bool, counted: &dyn Fn(Image) -> bool| {
        let of = |also: &dyn Fn(Image) -> bool| -> f64 {
            let images = positions.iter().map(|&position| images[position]);
            // From 0, because the sum of nothing is -0.
            let chosen = images.filter(|&image| kept(image) && also(image));
            chosen.fold(0.0, |sum, image| sum + image.weight)
        };
        let whole = of(&|_| true);
        (whole > 0.0).then(|| of(counted) / whole)
    };
    let every = |_: Image| true;
    let answered = |image: Image| image.answered;
    let wrong = |image: Image| !image.covered;
    let of_label = |(label, name): (usize, &String)| {
        let own = move |image: Image| image.label == label;
        Some((name.clone(), share(&all, &own, &covered)?))
    };
    let pooled = rules.iter().find(|rule| rule.scope == Scope::Pooled);
    Some(AbstentionScores {
        error_rate: first.error_rate,
        scope: pooled.unwrap_or(first).scope,
        coverage: share(&all, &every, &covered).unwrap_or(0.0),
        coverage_interval_95: resampler.interval(|positions| share(positions, &every, &covered)),
        coverage_of_label: labels.iter().enumerate().filter_map(of_label).collect(),
        abstention_rate: share(&all, &every, &referred).unwrap_or(1.0),
        abstention_rate_interval_95: resampler.interval(|positions| share(positions, &every, &referred)),
        error_rate_answered: share(&all, &answered, &wrong),
        error_rate_answered_interval_95: resampler.interval(|positions| share(positions, &answered, &wrong)),
        shortage: rules.iter().find_map(|rule| rule.shortage()),
    })
}

fn images(rules: &[&Abstention], calibrated: &Predictions, units: &[String]) -> Vec<Image> {
    let mut sizes: BTreeMap<&str, f64> = BTreeMap::new();
    for unit in units {
        *sizes.entry(unit).or_default() += 1.0;
    }
    let rows = calibrated.labels.iter().zip(&calibrated.probabilities).zip(units).zip(rules);
    rows.map(|(((&label, row), unit), rule)| {
        let set = rule.set(row);
        let weight = 1.0 / sizes[unit.as_str()];
        Image { weight, label, covered: set.contains(&label), answered: set.len() == 1 }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use nephros_core::abstention::AbstentionMethod;

    use super::*;

    #[test]
    fn patients_count_equally() {
        // Sets: {0}, {0, 1}, {1} and {} of these rows.
        let rows = [[0.9, 0.1], [0.5, 0.5], [0.2, 0.8], [0.35, 0.35]].map(|row: [f32; 2]| row.to_vec());
        let [zero, both, one, none] = rows;
        let calibrated = Predictions {
            labels: vec![0, 0, 0, 0, 1, 1],
            probabilities: vec![zero, both.clone(), one.clone(), none, one, both],
        };
        let units = ["A", "A", "A", "A", "B", "B"].map(String::from);
        let abstention = Abstention {
            method: AbstentionMethod::HierarchicalConformal,
            error_rate: 0.1,
            scope: Scope::Pooled,
            thresholds: vec![0.4, 0.4],
            groups: 9,
            groups_of_label: vec![5, 4],
            needed: 9,
            unit: "patient".into(),
            chosen_by_validation: false,
        };
        let labels = ["Normal", "Tumor"].map(String::from);
        let resampler = Resampler::new(&calibrated, &units, 1);
        let scores = abstention_scores(&[&abstention; 6], &calibrated, &units, &labels, &resampler).unwrap();
        let close =
            |got: f64, expected: f64| assert!((got - expected).abs() < 1e-12, "{got}, not {expected}");
        // A: 2 of 4 covered, B: 2 of 2; (1/2 + 1) / 2.
        close(scores.coverage, 0.75);
        close(scores.coverage_of_label["Normal"], 0.5);
        close(scores.coverage_of_label["Tumor"], 1.0);
        // A: 2 of 4 (both, none), B: 1 of 2.
        close(scores.abstention_rate, 0.5);
        // Answered: of A one right and one wrong of weight 1/4, of B one right of weight 1/2.
        close(scores.error_rate_answered.unwrap(), 0.25);
        assert_eq!(scores.shortage, None);
    }
}
