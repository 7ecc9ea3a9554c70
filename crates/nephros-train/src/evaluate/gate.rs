//! Whether the scores of a model let it be registered, or served as current.

use std::collections::BTreeMap;

use nephros_core::bundle::{Finding, FindingCode, Gate};

use super::{Scores, metrics::LEAST_PROBABILITY};
use crate::split::{Split, Subset, Unit};

/// What the gate has to know of the split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitFacts {
    /// Known patients in the test set that are also in the training or validation set.
    pub shared_patients: usize,
    /// Whether images whose patient is not known were put on a side one by one.
    pub blind: bool,
    /// Groups in the test set, where the audit found them and no patient is known.
    pub test_groups: Option<usize>,
}

impl SplitFacts {
    /// The facts of a split.
    pub fn of(split: &Split) -> Self {
        let [train, validation, test] =
            [Subset::Train, Subset::Validation, Subset::Test].map(|subset| split.patients(subset));
        let seen = |patient: &&&str| train.contains(**patient) || validation.contains(**patient);
        let unknown = split.assignments.iter().any(|image| image.patient.is_empty());
        let groups = split.groups_found(Subset::Test);
        Self {
            shared_patients: test.iter().filter(seen).count(),
            blind: split.unit == Unit::Image && unknown,
            test_groups: (split.unit == Unit::Group).then_some(groups.len()),
        }
    }
}

/// Judges scores by four conditions; every one that fails is a finding with its figures.
pub fn gate(scores: &Scores, facts: SplitFacts) -> Gate {
    let findings = [
        majority_class(scores, facts),
        one_class(scores),
        impossible_figures(scores),
        shared_patients(scores, facts),
    ];
    Gate::new(findings.into_iter().flatten().collect())
}

fn finding<const N: usize>(code: FindingCode, text: String, figures: [(&str, f64); N]) -> Finding {
    // Six decimals are read back from JSON as they were written; an infinity could not be written.
    let tidy = |value: f64| if value.is_finite() { (value * 1e6).round() / 1e6 } else { f64::MAX };
    let figures = figures.map(|(name, value)| (name.to_owned(), tidy(value)));
    Finding { code, text, figures: BTreeMap::from(figures) }
}

/// The interval must lie above the accuracy of always naming the larger class: one that lies below
/// it is no better.
///
/// Over few patients a bootstrap is too narrow, and has no width at all where they all score alike.
/// The lower end is therefore also that of patients who are right or wrong as a whole, in the same
/// proportion.
fn majority_class(scores: &Scores, facts: SplitFacts) -> Option<Finding> {
    let [low, high] = scores.interval_95.accuracy;
    let (accuracy, majority) = (scores.metrics.accuracy, scores.majority_accuracy);
    let (units, unit) = match (scores.n_patients, facts.test_groups) {
        (Some(patients), _) => (patients, "patients"),
        (None, Some(groups)) => (groups, "groups"),
        (None, None) => (scores.n, "images"),
    };
    let exact = exact_lower_end((accuracy * units as f64 + ROUNDING) as usize, units);
    let (bound, how) = if exact < low { (exact, "exact") } else { (low, "bootstrap") };
    // Written so that a NaN is a finding.
    let above = bound > majority;
    (!above).then(|| {
        let text = format!(
            "the accuracy of {accuracy:.3} on {units} test {unit} may be that of always naming the larger class, \
             {majority:.3}: the 95 % interval ({how}) is {bound:.3} to {high:.3}"
        );
        let figures = [
            ("accuracy", accuracy),
            ("low", bound),
            ("high", high),
            ("majority_accuracy", majority),
            ("units", units as f64),
        ];
        finding(FindingCode::MajorityClass, text, figures)
    })
}

/// Halvings of 0 to 1.
const HALVINGS: usize = 40;

/// Lower end of the 95 % interval of a rate of which `right` of `n` were seen.
///
/// Source: Clopper and Pearson, The Use of Confidence or Fiducial Limits Illustrated in the Case of
/// the Binomial, 1934.
fn exact_lower_end(right: usize, n: usize) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..HALVINGS {
        let rate = f64::midpoint(low, high);
        if at_least(right, n, rate) < 0.025 { low = rate } else { high = rate }
    }
    low
}

/// Probability of `right` or more of `n` at a rate strictly between 0 and 1.
fn at_least(right: usize, n: usize, rate: f64) -> f64 {
    // In logarithms: (1 - rate)^n is below the smallest f64 for a few thousand images.
    let mut term = n as f64 * (-rate).ln_1p();
    let mut total = 0.0;
    for seen in 0..=n {
        if seen >= right {
            total += term.exp();
        }
        term += ((n - seen) as f64).ln() - ((seen + 1) as f64).ln() + rate.ln() - (-rate).ln_1p();
    }
    total
}

fn one_class(scores: &Scores) -> Option<Finding> {
    let matrix = &scores.confusion_matrix;
    let column = |class: usize| matrix.iter().filter_map(|row| row.get(class)).sum::<usize>();
    let named: Vec<usize> = (0..scores.labels.len()).filter(|&class| column(class) > 0).collect();
    let [only] = named[..] else { return None };
    let (n, label) = (scores.n, &scores.labels[only]);
    let text = format!("all {n} test images were called `{label}`: the confusion matrix is one column");
    Some(finding(FindingCode::OneClass, text, [("images", n as f64)]))
}

/// Rounding of f32 probabilities, by which a bound may be missed.
const ROUNDING: f64 = 1e-6;

/// What accuracy, loss and confusion matrix say of each other, whatever the model is.
///
/// An image that is called wrongly gave its true class at most 1/2, since another got as much: it
/// costs at least ln 2 nats, and at most -ln of the least probability that is counted. One that is
/// called rightly gave its true class the most of all, at least 1 / classes: it costs at most
/// ln(classes).
fn impossible_figures(scores: &Scores) -> Option<Finding> {
    let (n, classes) = (scores.n as f64, scores.labels.len() as f64);
    let matrix = &scores.confusion_matrix;
    let counted: usize = matrix.iter().flatten().sum();
    let right: usize = matrix.iter().enumerate().filter_map(|(class, row)| row.get(class)).sum();
    let (accuracy, loss) = (scores.metrics.accuracy, scores.metrics.loss);
    let wrong = counted.saturating_sub(right);
    let least = wrong as f64 * 2.0_f64.ln() / n;
    let most = (right as f64 * classes.ln() - wrong as f64 * LEAST_PROBABILITY.ln()) / n;
    let text = if counted != scores.n {
        format!("the confusion matrix counts {counted} images of {}", scores.n)
    } else if (accuracy - right as f64 / n).abs() >= ROUNDING || !accuracy.is_finite() {
        format!(
            "an accuracy of {accuracy:.6} is not {right} right of {counted}, as the confusion matrix has it"
        )
    } else if (least - ROUNDING..=most + ROUNDING).contains(&loss) {
        return None;
    } else {
        format!(
            "a loss of {loss:.4} and an accuracy of {accuracy:.4} cannot both be true: {wrong} wrong of {counted} \
             images cost {least:.4} to {most:.4} nats an image"
        )
    };
    let figures = [
        ("accuracy", accuracy),
        ("loss", loss),
        ("least_loss", least),
        ("most_loss", most),
        ("images", n),
        ("wrong", wrong as f64),
    ];
    Some(finding(FindingCode::ImpossibleFigures, text, figures))
}

/// Names of patients stay out: the bundle goes further than the data.
fn shared_patients(scores: &Scores, facts: SplitFacts) -> Option<Finding> {
    let SplitFacts { shared_patients, blind, .. } = facts;
    let text = match (shared_patients, blind) {
        (0, false) => return None,
        (0, true) => {
            "the patient of some images is not known and each image was put on a side of its own: test and \
             training may share patients"
                .to_owned()
        }
        _ => {
            let of = scores.n_patients.map_or(String::new(), |patients| format!(" of {patients}"));
            format!("{shared_patients}{of} test patients are among those trained on or chosen by")
        }
    };
    let figures = [("shared_patients", shared_patients as f64), ("images", scores.n as f64)];
    Some(finding(FindingCode::SharedPatients, text, figures))
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
