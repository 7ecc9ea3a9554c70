//! When a model should not answer alone: prediction sets at a stated error rate.

use serde::{Deserialize, Serialize};

/// What a training measured on its validation patients, so that the true label of a slice of a new
/// patient is in the model's set at a rate of at least `1 - error_rate`.
///
/// A label is in the set when its probability reaches the label's threshold. One label is an
/// answer; none or several are for a radiologist.
///
/// Source: Lee, Barber and Willett, Distribution-free Inference with Hierarchical Data, 2023
/// (<https://arxiv.org/abs/2306.06342>), section 3.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Abstention {
    /// The only one there is.
    pub method: AbstentionMethod,
    /// Share of new patients' slices whose true label may be outside the set, 0 to 1.
    pub error_rate: f64,
    /// What the rate holds for.
    pub scope: Scope,
    /// Least probability at which each label is in the set, in label order. With 0 a label is in
    /// every set, because too few were measured to leave it out.
    pub thresholds: Vec<f32>,
    /// Groups measured.
    pub groups: usize,
    /// Groups measured of each label, in label order.
    pub groups_of_label: Vec<usize>,
    /// Groups without which every set holds every label: of each label, or pooled, of all.
    pub needed: usize,
    /// What a group is: `patient`, `run` or `image`.
    pub unit: String,
    /// Whether the same images chose the epoch (`EARLY_STOPPING_PATIENCE`), which makes them look a
    /// little better than new ones: the rate is then a goal, not a guarantee.
    pub chosen_by_validation: bool,
}

/// How thresholds are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AbstentionMethod {
    /// Split-conformal prediction over patients, each of weight 1 however many slices it has.
    HierarchicalConformal,
}

/// What the error rate holds for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// The slices of each label on their own.
    Label,
    /// All slices together: one label may err more than another.
    Pooled,
}

/// What a model answers for an image, or that it does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Labels in the set, in label order.
    pub set: Vec<String>,
    /// Why a radiologist has to look; `None` where the set is one label.
    pub reason: Option<String>,
}

impl Answer {
    /// Whether the image is for a radiologist.
    pub fn refer(&self) -> bool {
        self.reason.is_some()
    }
}

impl Abstention {
    /// Whether the values can be used for `labels` labels.
    pub fn is_usable(&self, labels: usize) -> bool {
        let rate = self.error_rate > 0.0 && self.error_rate < 1.0;
        rate && self.thresholds.len() == labels
            && self.groups_of_label.len() == labels
            && self.thresholds.iter().all(|threshold| (0.0..=1.0).contains(threshold))
    }

    /// Labels in the set of an image, by index.
    pub fn set(&self, probabilities: &[f32]) -> Vec<usize> {
        let pairs = probabilities.iter().zip(&self.thresholds).enumerate();
        pairs
            .filter(|(_, (probability, threshold))| probability >= threshold)
            .map(|(index, _)| index)
            .collect()
    }

    /// Whether too few groups were measured, so that every image is for a radiologist.
    pub fn always_refers(&self) -> bool {
        self.thresholds.iter().filter(|&&threshold| threshold <= 0.0).count() >= 2
    }

    /// Why every image is for a radiologist, if it is so.
    pub fn shortage(&self) -> Option<String> {
        let Self { unit, needed, groups, .. } = self;
        let percent = percent(self.error_rate);
        self.always_refers().then(|| {
            format!(
                "an error rate of {percent} % needs at least {needed} validation {unit}s, there were {groups}"
            )
        })
    }

    /// The answer for an image with these probabilities of `labels`.
    pub fn answer(&self, labels: &[String], probabilities: &[f32]) -> Answer {
        let set: Vec<String> =
            self.set(probabilities).into_iter().map(|index| labels[index].clone()).collect();
        let percent = percent(self.error_rate);
        let reason = match (set.as_slice(), self.shortage()) {
            ([_], _) => None,
            ([], _) => Some(format!("no label is probable enough at an error rate of {percent} %")),
            (_, Some(shortage)) => Some(shortage),
            ([first @ .., last], None) => {
                let first = first.join(", ");
                Some(format!("{first} and {last} are possible at an error rate of {percent} %"))
            }
        };
        Answer { set, reason }
    }
}

/// A rate in percent, without the digits that are rounding alone.
fn percent(rate: f64) -> f64 {
    (rate * 1e8).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn abstention(thresholds: &[f32]) -> Abstention {
        Abstention {
            method: AbstentionMethod::HierarchicalConformal,
            error_rate: 0.1,
            scope: Scope::Label,
            thresholds: thresholds.to_vec(),
            groups: 8,
            groups_of_label: vec![4; thresholds.len()],
            needed: 9,
            unit: "patient".into(),
            chosen_by_validation: false,
        }
    }

    fn answer(thresholds: &[f32], probabilities: &[f32]) -> Answer {
        let labels: Vec<String> =
            ["Cyst", "Normal", "Tumor"].map(String::from)[3 - thresholds.len()..].to_vec();
        abstention(thresholds).answer(&labels, probabilities)
    }

    #[test]
    fn one_label_is_an_answer() {
        let sure = answer(&[0.3, 0.4], &[0.9, 0.1]);
        assert_eq!((sure.set.as_slice(), sure.refer()), (&["Normal".to_owned()][..], false));
        // A probability equal to the threshold is in: the quantile itself is covered.
        assert_eq!(answer(&[0.3, 0.4], &[0.3, 0.7]).set, ["Normal", "Tumor"]);
    }

    #[test]
    fn several_labels_or_none_are_for_a_radiologist() {
        let torn = answer(&[0.3, 0.4], &[0.5, 0.5]).reason.unwrap();
        assert_eq!(torn, "Normal and Tumor are possible at an error rate of 10 %");
        let three = answer(&[0.1, 0.1, 0.1], &[0.3, 0.3, 0.4]).reason.unwrap();
        assert_eq!(three, "Cyst, Normal and Tumor are possible at an error rate of 10 %");
        let none = answer(&[0.8, 0.9], &[0.5, 0.5]);
        assert_eq!(none.set, [""; 0]);
        assert_eq!(none.reason.unwrap(), "no label is probable enough at an error rate of 10 %");
    }

    #[test]
    fn too_few_patients_are_the_reason_that_is_given() {
        let refer = answer(&[0.0, 0.0], &[0.999, 0.001]);
        assert_eq!(refer.set, ["Normal", "Tumor"]);
        let expected = "an error rate of 10 % needs at least 9 validation patients, there were 8";
        assert_eq!(refer.reason.unwrap(), expected);
    }
}
