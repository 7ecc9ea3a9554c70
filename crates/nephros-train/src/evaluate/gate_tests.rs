//! The gate, condition by condition.

use nephros_core::bundle::FindingCode::{ImpossibleFigures, MajorityClass, OneClass, SharedPatients};

use super::*;
use crate::evaluate::{
    Before, CalibrationScores,
    interval::Intervals,
    metrics::{Metrics, Predictions},
};

const CLEAN: SplitFacts = SplitFacts { shared_patients: 0, blind: false, test_groups: None };

/// Scores with this confusion matrix, a loss, and an interval of the accuracy.
fn scores(matrix: [[usize; 2]; 2], loss: f64, accuracy: [f64; 2]) -> Scores {
    let n: usize = matrix.iter().flatten().sum();
    let larger = matrix.iter().map(|row| row.iter().sum::<usize>()).max().unwrap();
    let any = [0.0, 1.0];
    let predictions = Predictions { labels: vec![0], probabilities: vec![vec![1.0, 0.0]] };
    let right = (matrix[0][0] + matrix[1][1]) as f64 / n as f64;
    Scores {
        metrics: Metrics { loss, accuracy: right, ..predictions.metrics(2) },
        n,
        n_patients: Some(20),
        majority_accuracy: larger as f64 / n as f64,
        interval_95: Intervals { accuracy, auroc: None, sensitivity: any, specificity: any },
        confusion_matrix: matrix.iter().map(|row| row.to_vec()).collect(),
        labels: ["Normal", "Tumor"].map(String::from).to_vec(),
        positive_class: Some("Tumor".into()),
        split_by: Unit::Patient,
        model: "compact-test".into(),
        warning: None,
        calibration: CalibrationScores {
            temperature: None,
            ece: 0.0,
            ece_bins: 15,
            brier: 0.0,
            brier_interval_95: None,
            before: Before { loss, ece: 0.0, brier: 0.0 },
            reliability: Vec::new(),
        },
        abstention: None,
        by_patient: None,
        input_gate: None,
        gate: Gate::default(),
        gap: None,
        controls: Vec::new(),
    }
}

fn good() -> Scores {
    scores([[45, 5], [6, 44]], 0.3, [0.8, 0.95])
}

/// Right, of how many, lower end.
const EXACT: [(usize, usize, f64); 5] = [
    (3, 4, 0.194_120_449_683),
    (5, 5, 0.478_176_249_895),
    (42, 48, 0.747_539_491_358),
    (72, 139, 0.431_722_799_269),
    (1_800, 2_000, 0.886_010_025_705),
];

fn codes(gate: &Gate) -> Vec<FindingCode> {
    gate.findings.iter().map(|finding| finding.code).collect()
}

#[test]
fn a_sound_result_passes() {
    let gate = gate(&good(), CLEAN);
    assert!(gate.passed && !gate.refuses(), "{gate}");
    assert_eq!(gate.to_string(), "passed");
}

#[test]
fn the_published_score_of_the_reference_is_refused_three_times() {
    // 72 of 139 images, all called Normal, at a loss of 24.9; 0.518 of 20 patients are 10.
    let gate = gate(&scores([[72, 0], [67, 0]], 24.9, [0.43, 0.6]), CLEAN);
    assert_eq!(codes(&gate), [MajorityClass, OneClass, ImpossibleFigures]);
    let texts: Vec<&str> = gate.findings.iter().map(|finding| finding.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "the accuracy of 0.518 on 20 test patients may be that of always naming the larger class, 0.518: the \
             95 % interval (exact) is 0.272 to 0.600",
            "all 139 test images were called `Normal`: the confusion matrix is one column",
            // 67 ln 2 / 139; (72 ln 2 + 67 * 34.539) / 139
            "a loss of 24.9000 and an accuracy of 0.5180 cannot both be true: 67 wrong of 139 images cost 0.3341 \
             to 17.0072 nats an image",
        ]
    );
    assert_eq!(gate.findings[2].figures["loss"].to_bits(), 24.9f64.to_bits());
}

#[test]
fn an_interval_that_reaches_the_larger_class_is_refused() {
    for (low, high, refused) in
        [(0.51, 0.95, false), (0.5, 0.95, true), (0.2, 0.4, true), (f64::NAN, 0.9, true)]
    {
        let gate = gate(&scores([[45, 5], [6, 44]], 0.3, [low, high]), CLEAN);
        assert_eq!(codes(&gate) == [MajorityClass], refused, "{low} to {high}: {gate}");
    }
}

#[test]
fn few_patients_leave_more_open_than_a_bootstrap_of_them() {
    let judged = |matrix, interval, patients| {
        gate(&Scores { n_patients: Some(patients), ..scores(matrix, 0.3, interval) }, CLEAN)
    };
    let all_right = |patients| judged([[50, 0], [0, 50]], [1.0, 1.0], patients);
    // 0.025^(1/5) = 0.478 and 0.025^(1/6) = 0.541, beside 0.5.
    assert_eq!(codes(&all_right(5)), [MajorityClass]);
    assert!(all_right(5).to_string().ends_with("(exact) is 0.478 to 1.000"), "{}", all_right(5));
    assert!(all_right(6).passed, "{}", all_right(6));
    // 7 of 8 images of 4 patients are 3 of 4 patients: 0.194.
    let four = judged([[4, 0], [1, 3]], [0.75, 1.0], 4);
    assert!(four.to_string().ends_with("(exact) is 0.194 to 1.000"), "{four}");
}

#[test]
fn the_exact_interval_is_clopper_and_pearsons() {
    // scipy.stats.beta.ppf(0.025, right, n - right + 1)
    for (right, n, expected) in EXACT {
        let got = exact_lower_end(right, n);
        assert!((got - expected).abs() < 1e-9, "{right} of {n}: {got}, expected {expected}");
    }
    assert!(exact_lower_end(0, 10) < 1e-9);
}

#[test]
fn figures_that_contradict_each_other_are_refused() {
    let sound = good();
    let accuracy = Scores { metrics: Metrics { accuracy: 0.9, ..sound.metrics }, ..good() };
    let images = Scores { n: 101, ..good() };
    // 11 wrong of 100: 11 ln 2 / 100 = 0.0762, and (89 ln 2 + 11 * 34.539) / 100 = 4.4162.
    let loss = |loss| Scores { metrics: Metrics { loss, ..sound.metrics }, ..good() };
    for (scores, expected) in [
        (accuracy, "an accuracy of 0.900000 is not 89 right of 100, as the confusion matrix has it"),
        (images, "the confusion matrix counts 100 images of 101"),
        (
            loss(0.07),
            "a loss of 0.0700 and an accuracy of 0.8900 cannot both be true: 11 wrong of 100 images cost 0.0762 to \
             4.4162 nats an image",
        ),
    ] {
        let gate = gate(&scores, CLEAN);
        assert_eq!(codes(&gate), [ImpossibleFigures], "{gate}");
        assert_eq!(gate.to_string(), expected);
    }
    for (value, refused) in [(0.0762, true), (0.0763, false), (4.416, false), (4.417, true), (f64::NAN, true)]
    {
        assert_eq!(codes(&gate(&loss(value), CLEAN)) == [ImpossibleFigures], refused, "{value}");
    }
}

#[test]
fn shared_and_unknown_patients_are_refused() {
    let shared = gate(&good(), SplitFacts { shared_patients: 7, ..CLEAN });
    assert_eq!(codes(&shared), [SharedPatients]);
    assert_eq!(shared.to_string(), "7 of 20 test patients are among those trained on or chosen by");
    assert_eq!(shared.findings[0].figures["shared_patients"].to_bits(), 7f64.to_bits());
    assert_eq!(codes(&gate(&good(), SplitFacts { blind: true, ..CLEAN })), [SharedPatients]);
}

#[test]
fn groups_that_were_found_count_as_one_trial_each() {
    let scores = Scores { n_patients: None, ..good() };
    assert_eq!(codes(&gate(&scores, SplitFacts { test_groups: Some(20), ..CLEAN })), []);
    // 0.89 of four groups are three: 0.194 is the lower end.
    let few = gate(&scores, SplitFacts { test_groups: Some(4), ..CLEAN });
    assert_eq!(codes(&few), [MajorityClass]);
    assert!(few.to_string().contains("on 4 test groups"), "{few}");
}

#[test]
fn the_split_says_who_is_on_both_sides() {
    use crate::{
        config::{Params, SplitBy},
        manifest::Record,
    };
    let record = |number: usize, patient: String| Record {
        path: format!("{number:03}.png"),
        class: ["Normal", "Tumor"][number / 5 % 2].into(),
        sha256: number.to_string(),
        bytes: 1,
        width: 1,
        height: 1,
        patient,
        group: String::new(),
        orientation: String::new(),
    };
    let split = |split_by, patient: &dyn Fn(usize) -> String| {
        let records: Vec<Record> = (0..100).map(|number| record(number, patient(number))).collect();
        let params = Params { split_by, ..crate::testing::params() };
        SplitFacts::of(&Split::new(&records, &params).unwrap())
    };
    let known = |number: usize| format!("P{}", number / 5);
    assert_eq!(split(SplitBy::Patient, &known), CLEAN);
    let random = split(SplitBy::Random, &known);
    assert!(random.shared_patients > 5 && !random.blind, "{random:?}");
    let blind = SplitFacts { blind: true, ..CLEAN };
    assert_eq!(split(SplitBy::Keras, &|_| String::new()), blind);
    assert_eq!(split(SplitBy::Patient, &|_| String::new()), CLEAN, "runs of neighbours were kept together");
}

proptest::proptest! {
    /// The bounds are of any model: no predictions whatever contradict themselves.
    #[test]
    fn real_predictions_never_contradict_themselves(
        rows in proptest::collection::vec((0_usize..3, proptest::collection::vec(0.0_f32..1.0, 3)), 1..40),
    ) {
        let mut predictions = Predictions::default();
        for (label, row) in rows {
            let sum: f32 = row.iter().sum::<f32>().max(f32::MIN_POSITIVE);
            let rest: f32 = row[1..].iter().map(|p| p / sum).sum();
            predictions.push(label, vec![1.0 - rest, row[1] / sum, row[2] / sum]);
        }
        let scores = Scores {
            metrics: predictions.metrics(3),
            n: predictions.len(),
            confusion_matrix: predictions.confusion(3),
            labels: ["A", "B", "C"].map(String::from).to_vec(),
            ..good()
        };
        proptest::prop_assert_eq!(impossible_figures(&scores), None);
    }
}
