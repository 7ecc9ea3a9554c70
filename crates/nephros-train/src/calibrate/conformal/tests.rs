//! Thresholds by hand, and coverage on simulated patients.

#![allow(clippy::float_cmp, reason = "a threshold is one of the scores, unchanged")]

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::*;

/// Images of one patient each, with these probabilities of the true label 0.
fn singles(scores: &[f32]) -> Predictions {
    let mut predictions = Predictions::default();
    for &score in scores {
        predictions.push(0, vec![score, 1.0 - score]);
    }
    predictions
}

fn pooled(scores: &[f32], groups: &[usize], error_rate: f64) -> f32 {
    fit_abstention(&singles(scores), groups, 2, error_rate).thresholds[0]
}

#[test]
fn single_slices_give_the_usual_split_conformal_quantile() {
    // 4 patients, error rate 0.4: the ceil(5 * 0.6) = 3rd highest score.
    assert_eq!(pooled(&[0.9, 0.2, 0.8, 0.6], &[0, 1, 2, 3], 0.4), 0.6);
    // Error rate 0.2: the ceil(5 * 0.8) = 4th; 4 patients are just enough.
    assert_eq!(pooled(&[0.9, 0.2, 0.8, 0.6], &[0, 1, 2, 3], 0.2), 0.2);
    // Error rate 0.19 needs the 5th of 4: nothing can be left out.
    assert_eq!(pooled(&[0.9, 0.2, 0.8, 0.6], &[0, 1, 2, 3], 0.19), 0.0);
}

#[test]
fn the_slices_of_a_patient_share_its_weight() {
    // Patients 0 (0.9), 1 (0.1, 0.7, 0.8, 0.6) and 2 (0.5): weights 1/4, 1/16 each, 1/4. From
    // above 0.9 covers 4/16, then 0.8, 0.7, 0.6 5, 6, 7/16, and 0.5 11/16 >= 0.6.
    let scores = [0.9, 0.1, 0.7, 0.8, 0.6, 0.5];
    assert_eq!(pooled(&scores, &[0, 1, 1, 1, 1, 2], 0.4), 0.5);
    // As 6 patients of 1/7 each: 5/7 = 0.714 >= 0.6 is reached at the fifth, 4/7 = 0.571 is not.
    assert_eq!(pooled(&scores, &[0, 1, 2, 3, 4, 5], 0.4), 0.5);
    // 7/16 = 0.4375 reaches 1 - 0.6 = 0.4 at 0.6; as 6 patients 3/7 = 0.429 does at 0.7.
    assert_eq!(pooled(&scores, &[0, 1, 1, 1, 1, 2], 0.6), 0.6);
    assert_eq!(pooled(&scores, &[0, 1, 2, 3, 4, 5], 0.6), 0.7);
}

#[test]
fn the_number_of_patients_needed_is_stated() {
    // 1 / rate - 1, rounded up.
    for (rate, expected) in [(0.1, 9), (0.05, 19), (0.2, 4), (0.15, 6), (0.01, 99), (0.5, 1), (0.9, 1)] {
        assert_eq!(needed(rate), expected, "{rate}");
        let scores: Vec<f32> = (1..=expected).map(|rank| rank as f32 / 200.0).collect();
        let groups: Vec<usize> = (0..expected).collect();
        assert!(pooled(&scores, &groups, rate) > 0.0, "{rate} with {expected}");
        let fewer = expected - 1;
        assert_eq!(pooled(&scores[..fewer], &groups[..fewer], rate), 0.0, "{rate} with {fewer}");
    }
}

#[test]
fn labels_share_a_threshold_until_each_has_enough_patients() {
    let cohort = |of_each: usize| {
        let mut predictions = Predictions::default();
        for patient in 0..2 * of_each {
            let score = 0.5 + 0.4 * patient as f32 / (2 * of_each) as f32;
            predictions.push(
                patient % 2,
                if patient % 2 == 0 { vec![score, 1.0 - score] } else { vec![1.0 - score, score] },
            );
        }
        let groups: Vec<usize> = (0..2 * of_each).collect();
        fit_abstention(&predictions, &groups, 2, 0.1)
    };
    // 2 patients of each label are 4 of 9 needed.
    let few = cohort(2);
    assert!(few.always_refers() && few.scope == Scope::Pooled && few.needed == 9, "{few:?}");
    let some = cohort(5);
    assert!(!some.always_refers() && some.scope == Scope::Pooled, "{some:?}");
    assert_eq!(some.thresholds[0], some.thresholds[1]);
    let enough = cohort(9);
    assert_eq!(
        (enough.scope, enough.groups, enough.groups_of_label.as_slice()),
        (Scope::Label, 18, &[9, 9][..])
    );
    assert_ne!(enough.thresholds[0], enough.thresholds[1]);
}

/// Patients whose slices are alike and whose number of slices goes with how hard they are: those
/// that are easy have been imaged more often. Patients are independent, so exchangeable.
struct Cohort(ChaCha8Rng);

impl Cohort {
    /// Label and the two probabilities of each of a patient's slices.
    fn patient(&mut self) -> (usize, Vec<Vec<f32>>) {
        let rng = &mut self.0;
        let label = usize::from(rng.random_range(0.0..1.0) < 0.4);
        let ease = rng.random_range(-1.0..4.0) - f64::from(u8::from(label == 1));
        let slices = if ease > 1.0 { 12 } else { 2 };
        let slice = |rng: &mut ChaCha8Rng| {
            let margin = ease + rng.random_range(-0.5..0.5);
            let right = (1.0 / (1.0 + (-margin).exp())) as f32;
            if label == 0 { vec![right, 1.0 - right] } else { vec![1.0 - right, right] }
        };
        let slices = (0..slices).map(|_| slice(rng)).collect();
        (label, slices)
    }

    /// Predictions and groups of so many patients.
    fn patients(&mut self, patients: usize) -> (Predictions, Vec<usize>) {
        let (mut predictions, mut groups) = (Predictions::default(), Vec::new());
        for patient in 0..patients {
            let (label, slices) = self.patient();
            for row in slices {
                predictions.push(label, row);
                groups.push(patient);
            }
        }
        (predictions, groups)
    }
}

/// Share of simulated trainings in which a slice of a new patient is covered, for all labels and
/// for each; `fit` makes the thresholds from the validation patients.
fn coverage(
    draws: usize,
    patients: usize,
    fit: impl Fn(&Predictions, &[usize]) -> Abstention,
) -> ([f64; 3], Abstention) {
    let mut cohort = Cohort(ChaCha8Rng::seed_from_u64(7));
    let (mut covered, mut seen) = ([0.0; 3], [0.0; 3]);
    let mut last = None;
    for _ in 0..draws {
        let (predictions, groups) = cohort.patients(patients);
        let abstention = fit(&predictions, &groups);
        let (label, slices) = cohort.patient();
        let hit = abstention.set(&slices[0]).contains(&label);
        for place in [label, 2] {
            seen[place] += 1.0;
            covered[place] += f64::from(u8::from(hit));
        }
        last = Some(abstention);
    }
    ([0, 1, 2].map(|place| covered[place] / seen[place]), last.unwrap())
}

/// Four standard errors of a rate that is measured `draws` times.
fn four_errors(rate: f64, draws: f64) -> f64 {
    4.0 * (rate * (1.0 - rate) / draws).sqrt()
}

const DRAWS: usize = 4_000;

#[test]
fn a_new_patient_is_covered_at_the_stated_rate_and_not_much_more() {
    for (patients, error_rate) in [(19, 0.1), (39, 0.1), (39, 0.2)] {
        // A pooled threshold: labels that lack patients take part in it.
        let fit = |predictions: &Predictions, groups: &[usize]| {
            let all = Predictions { labels: vec![0; predictions.len()], ..predictions.clone() };
            let own = |(row, &label): (&Vec<f32>, &usize)| vec![row[label], 1.0 - row[label]];
            let probabilities = predictions.probabilities.iter().zip(&predictions.labels).map(own).collect();
            fit_abstention(&Predictions { probabilities, ..all }, groups, 2, error_rate)
        };
        let ([.., got], _) = coverage(DRAWS, patients, fit);
        let (goal, margin) = (1.0 - error_rate, four_errors(error_rate, DRAWS as f64));
        // Each patient weighs 1 / (n + 1): the new one at the worst place costs at most one such
        // step, and the step of the quantile another.
        let most = goal + 2.0 / (patients + 1) as f64;
        assert!(got >= goal - margin, "{got} for {goal} with {patients} patients");
        assert!(got <= most + margin, "{got} above {most} with {patients} patients");
    }
}

#[test]
fn each_label_is_covered_at_the_stated_rate() {
    let fit = |predictions: &Predictions, groups: &[usize]| fit_abstention(predictions, groups, 2, 0.2);
    let (by_label, last) = coverage(DRAWS, 60, fit);
    assert_eq!(last.scope, Scope::Label);
    for (label, share) in [(0, 0.6), (1, 0.4)] {
        let (got, margin) = (by_label[label], four_errors(0.2, share * DRAWS as f64));
        assert!(got >= 0.8 - margin, "label {label}: {got}");
        // About 60 * share patients of the label; the fewest in 4,000 draws are above half of that.
        assert!(got <= 0.8 + 2.0 / (30.0 * share) + margin, "label {label}: {got}");
    }
}

#[test]
fn a_temperature_fitted_on_the_same_patients_leaves_the_rate() {
    let fit = |predictions: &Predictions, groups: &[usize]| {
        let temperature = crate::calibrate::fit_temperature(predictions, groups);
        let calibrated = predictions.with_temperature(temperature);
        let plain = fit_abstention(predictions, groups, 2, 0.2);
        let scaled = fit_abstention(&calibrated, groups, 2, 0.2);
        // The same image is the quantile, before and after.
        let place = |p: &Predictions, threshold: f32| {
            p.probabilities.iter().zip(&p.labels).position(|(row, &label)| label == 0 && row[0] == threshold)
        };
        let (before, after) =
            (place(predictions, plain.thresholds[0]), place(&calibrated, scaled.thresholds[0]));
        assert_eq!(before, after, "at temperature {temperature}");
        plain
    };
    coverage(50, 60, fit);
}

/// What must not be done: every slice counts as a patient. The same check has to find it.
#[test]
fn counting_slices_as_patients_undercovers() {
    let fit = |predictions: &Predictions, _: &[usize]| {
        let images: Vec<usize> = (0..predictions.len()).collect();
        fit_abstention(predictions, &images, 2, 0.2)
    };
    let ([.., got], _) = coverage(DRAWS, 60, fit);
    assert!(got < 0.8 - four_errors(0.2, DRAWS as f64), "{got} is not below 0.8");
}
