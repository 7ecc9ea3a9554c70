//! The page and the files of a report.

use std::collections::BTreeMap;

use nephros_core::{
    abstention::Scope,
    bundle::{BundleMeta, Finding, FindingCode, Gate},
    input_gate::{FalseAlarms, Reason, ReasonCode, Similar},
};
use scraper::{Html, Selector};
use serde_json::json;

use super::*;
use crate::{
    controls::{Control, ControlKind, Difference, Figures, Gap},
    evaluate::{
        AbstentionScores, Before, CalibrationScores, Scores,
        interval::{Resampler, bootstrap},
        metrics::{Metrics, Predictions},
        patient_scores,
    },
    manifest::Record,
    orientation::Plane,
    split::{Split, Subset, Unit},
    train::history::Epoch,
};

/// A name that would end a tag, an attribute or an entity.
const HOSTILE: &str = "<b>&\"'";

/// Four test images of two patients, two training images of one; `named` patients are in the manifest.
struct Case {
    records: Vec<Record>,
    predictions: Predictions,
    split: Split,
    scores: Scores,
    meta: BundleMeta,
    history: Vec<Epoch>,
}

impl Case {
    fn new(named: bool) -> Self {
        let record = |path: &str, class: &str, patient: &str| Record {
            path: format!("{class}/{path}.png"),
            class: class.into(),
            sha256: path.into(),
            bytes: 1,
            width: 64,
            height: 64,
            patient: if named { patient.into() } else { String::new() },
            group: String::new(),
            orientation: String::new(),
        };
        let records = vec![
            record("<i>1", "Normal", HOSTILE),
            record("2", "Normal", HOSTILE),
            record("3", "Tumor", "P2"),
            record("4", "Tumor", "P2"),
            record("5", "Normal", "P3"),
            record("6", "Tumor", "P3"),
        ];
        let subsets = [[Subset::Test; 4].as_slice(), &[Subset::Train; 2]].concat();
        let split = Split::from_subsets(&records, &subsets, if named { Unit::Patient } else { Unit::Image });
        let rows: [[f32; 2]; 4] = [[0.25, 0.75], [0.875, 0.125], [0.25, 0.75], [0.625, 0.375]];
        let predictions =
            Predictions { labels: vec![0, 0, 1, 1], probabilities: rows.map(|row| row.to_vec()).to_vec() };
        let epoch = |epoch| Epoch {
            epoch,
            learning_rate: 0.1,
            train_loss: 0.5,
            train_accuracy: 0.8,
            train_auroc: None,
            validation_loss: 0.6,
            validation_accuracy: 0.7,
            validation_auroc: Some(0.9),
            seconds: 1.0,
        };
        let scores = scores(&predictions, &records, named);
        Self { records, predictions, split, scores, meta: meta(), history: [1, 2].map(epoch).to_vec() }
    }

    fn report(&self) -> Report {
        let labels = self.predictions.labels.iter().copied();
        let members: Vec<(&Record, usize)> = self.records.iter().zip(labels).collect();
        let Self { scores, meta, split, predictions, history, .. } = self;
        let planes = [Some(Plane::Axial), Some(Plane::Axial), Some(Plane::Coronal), None];
        let (members, planes) = (members.as_slice(), planes.as_slice());
        Report::new(&Evidence { scores, meta, split, members, predictions, planes, history, seed: 1 })
    }

    fn page(&self) -> String {
        let data_uri = "data:image/png;base64,AAAA".to_owned();
        let heat_map = Some(HeatPicture { data_uri: data_uri.clone(), faithful: Some(false) });
        let near = Similar {
            path: HOSTILE.to_owned(),
            class: "Normal".to_owned(),
            patient: Some(3),
            group: None,
            distance: 0.25,
        };
        let thumbnail = Thumbnail { width: 2, height: 1, data_uri, similar: vec![near], heat_map };
        html::page(&self.report(), &vec![thumbnail; self.scores.n])
    }
}

fn scores(predictions: &Predictions, records: &[Record], named: bool) -> Scores {
    let units: Vec<String> = records.iter().take(4).map(Record::unit_name).collect();
    let resampler = Resampler::new(predictions, &units, 1);
    let text = format!("4 images of {HOSTILE}");
    let labels = ["Normal", "Tumor"].map(String::from).to_vec();
    let by_patient = named.then(|| patient_scores(&[None; 4], predictions, &units, &labels, 1));
    let blur = Reason { code: ReasonCode::Blurred, sentence: HOSTILE.into() };
    let findings = vec![Finding { code: FindingCode::OneClass, text, figures: BTreeMap::new() }];
    Scores {
        metrics: predictions.metrics(2),
        n: 4,
        n_patients: named.then_some(2),
        majority_accuracy: 0.5,
        interval_95: bootstrap(predictions, &resampler, 2),
        confusion_matrix: predictions.confusion(2),
        labels,
        positive_class: Some("Tumor".into()),
        split_by: if named { Unit::Patient } else { Unit::Image },
        model: "compact-0".into(),
        warning: Some(HOSTILE.into()),
        calibration: CalibrationScores {
            temperature: Some(1.5),
            ece: 0.1,
            ece_bins: 15,
            brier: 0.2,
            brier_interval_95: None,
            before: Before { loss: 0.7, ece: 0.3, brier: 0.4 },
            reliability: predictions.reliability(),
        },
        abstention: named.then(abstention),
        by_patient,
        input_gate: named.then(|| FalseAlarms::count(&[vec![], vec![blur]], 1, "patient".into())),
        gate: Gate::new(if named { Vec::new() } else { findings }),
        gap: named.then(|| gap(predictions, &resampler)),
        controls: vec![control(predictions, &resampler, named)],
    }
}

fn figures(predictions: &Predictions, resampler: &Resampler) -> Figures {
    let Metrics { accuracy, auroc, sensitivity, specificity, .. } = predictions.metrics(2);
    let interval_95 = bootstrap(predictions, resampler, 2);
    let majority_accuracy = predictions.majority_accuracy(2);
    Figures { n: 4, accuracy, auroc, sensitivity, specificity, majority_accuracy, interval_95 }
}

fn gap(predictions: &Predictions, resampler: &Resampler) -> Gap {
    let figures = figures(predictions, resampler);
    let difference = Difference { accuracy: 0.25, auroc: Some(0.375), sensitivity: 0.0, specificity: -0.125 };
    Gap { split_by: Unit::Patient, by_split: figures.clone(), random_split: figures, difference }
}

/// The nearest pixels, or with `trained` another that scores too well.
fn control(predictions: &Predictions, resampler: &Resampler, trained: bool) -> Control {
    Control {
        control: if trained { ControlKind::BorderOnly } else { ControlKind::NearestPixels },
        figures: figures(predictions, resampler),
        chance_auroc_95: Some([0.25, 0.75]),
        random_split: None,
        warning: trained.then(|| format!("a border {HOSTILE}")),
    }
}

fn abstention() -> AbstentionScores {
    AbstentionScores {
        error_rate: 0.1,
        scope: Scope::Pooled,
        coverage: 0.75,
        coverage_interval_95: Some([0.5, 1.0]),
        coverage_of_label: BTreeMap::from([("Tumor".to_owned(), 0.5)]),
        abstention_rate: 0.25,
        abstention_rate_interval_95: None,
        error_rate_answered: Some(0.25),
        error_rate_answered_interval_95: None,
        shortage: None,
    }
}

fn meta() -> BundleMeta {
    serde_json::from_value(json!({
        "format_version": 1, "id": "compact-0", "architecture": "compact", "hidden_units": 0,
        "labels": ["Normal", "Tumor"], "weights_sha256": "aa", "golden_sha256": "bb",
        "preprocessing": {"image_size": [64, 64, 3], "resample": "bilinear", "normalization": "unit"},
        "params": {"WEIGHTS": "none", "CLASS_NAMES": [HOSTILE], "EPOCHS": 2},
        "dataset_digest": "cc", "split_digest": "dd", "metrics": null, "crate_version": "0.0.9",
    }))
    .unwrap()
}

/// Texts of all elements that a selector finds.
fn texts(page: &str, selector: &str) -> Vec<String> {
    let selector = Selector::parse(selector).unwrap();
    Html::parse_document(page).select(&selector).map(|element| element.text().collect()).collect()
}

/// Every tag that is opened is closed, in order: the parser of `scraper` would repair it in silence.
fn assert_balanced(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    // The style holds `>`, but no `<`.
    for tag in page.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').unwrap();
        let name = tag.split([' ', '/', '\n']).find(|part| !part.is_empty()).unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "{tag}");
        } else if !tag.ends_with('/') && !["!DOCTYPE", "meta", "br", "img"].contains(&name) {
            open.push(name);
        }
    }
    assert_eq!(open, [""; 0]);
}

#[test]
fn the_page_is_well_formed_and_needs_nothing_else() {
    for named in [true, false] {
        let page = Case::new(named).page();
        assert_balanced(&page);
        assert_eq!(texts(&page, "body > header, body > main, body > footer").len(), 3);
        let own = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        for outside in ["http:", "https:", "<script", "<link", "@import", "url(", "//"] {
            // Base64 may hold `//`, but not the one of this test.
            assert!(!own.contains(outside), "{outside}");
        }
        let pictures = Html::parse_document(&page);
        let described = Selector::parse("svg[role=img][aria-label] > title, img[alt]").unwrap();
        // Six plots, and the two wrong images with their maps.
        assert_eq!(pictures.select(&described).count(), 6 + 2 * 2);
        assert_eq!(texts(&page, "table").len(), texts(&page, "table > caption").len());
    }
}

#[test]
fn names_are_shown_as_they_are_and_are_no_markup() {
    let page = Case::new(true).page();
    assert!(texts(&page, "th[scope=row]").contains(&HOSTILE.to_owned()));
    assert!(texts(&page, "figcaption").iter().any(|text| text.contains("Normal/<i>1.png")));
    let near = format!("like Normal {HOSTILE} (distance 0.25)");
    assert!(texts(&page, "figcaption").iter().all(|text| !text.contains("called") || text.contains(&near)));
    let warnings = texts(&page, ".warning");
    assert!(warnings[0].contains(HOSTILE) && warnings[1].contains(&format!("a border {HOSTILE}")));
    assert_eq!((texts(&page, "b").len(), texts(&page, "i").len()), (0, 0));
    assert_eq!((texts(&page, ".passed").len(), texts(&page, ".refused").len()), (1, 0));
    let refused = Case::new(false).page();
    assert_eq!(texts(&refused, ".refused li"), [format!("4 images of {HOSTILE}")]);
}

#[test]
fn the_worst_come_first() {
    let report = Case::new(true).report();
    let rows: Vec<_> = report.patients.iter().map(|row| (row.patient.as_str(), row.probability)).collect();
    // (0.25 + 0.875) / 2 for Normal, (0.75 + 0.375) / 2 for Tumor: equal, so in the order of names.
    assert_eq!(rows, [(HOSTILE, 0.5625), ("P2", 0.5625)]);
    assert!(report.patients.iter().all(|row| row.is_right() && (row.images_right, row.images) == (1, 2)));
    let errors: Vec<_> = report.worst_errors.iter().map(|image| image.path.as_str()).collect();
    // 0.75 for Tumor, then 0.625 for Normal.
    assert_eq!((errors, report.n_wrong), (vec!["Normal/<i>1.png", "Tumor/4.png"], 2));
    let patients = report.scores.by_patient.unwrap();
    assert_eq!((patients.n, patients.metrics.accuracy.to_bits()), (2, 1.0_f64.to_bits()));
}

#[test]
fn leakage_controls_and_planes_have_their_tables() {
    let case = Case::new(true);
    let cells: Vec<String> = texts(&case.page(), "section[aria-labelledby=gap] tbody td");
    // AUROC of (0.75 and 0.125 against 0.75 and 0.375): 0.5 for the tie, 0, 1 and 1 of four pairs.
    assert_eq!(cells[..3], ["0.625", "0.625", "+0.375"]);
    let cells = texts(&case.page(), "section[aria-labelledby=controls] tbody td");
    assert_eq!(cells[..3], ["0.625", "0.250 to 0.750", "above chance"]);
    let rows: Vec<_> = case
        .report()
        .orientations
        .into_iter()
        .map(|row| (row.orientation, row.told, row.images, row.patients, row.sensitivity, row.specificity))
        .collect();
    let row = |name: &str, images, sensitivity, specificity| {
        (name.to_owned(), false, images, 1, sensitivity, specificity)
    };
    // Axial are the two normal slices, one of them called rightly; the tumour called rightly is coronal.
    let expected = [
        row("axial", 2, None, Some(0.5)),
        row("coronal", 1, Some(1.0), None),
        row("unknown", 1, Some(0.0), None),
    ];
    assert_eq!(rows, expected);
    let mut told = Case::new(true);
    told.records[0].orientation = "sagittal".into();
    assert_eq!(
        (told.report().orientations[0].orientation.as_str(), told.report().orientations[0].told),
        ("sagittal", true)
    );
}

#[test]
fn the_leak_of_a_random_split_is_exact() {
    // Two of six images are trained on, three patients have two each: the other of a tested one is
    // among those two of five with 2/5.
    let leaks = Case::new(true).report().split.random_split_leaks.unwrap();
    assert!((leaks - 0.4).abs() < 1e-12, "{leaks}");
    assert_eq!(Case::new(false).report().split.random_split_leaks, None);
}

#[test]
fn what_the_input_gate_refuses_is_a_false_alarm() {
    let told = texts(&Case::new(true).page(), "section[aria-labelledby=abstention] p").concat();
    let expected =
        "gives 1 of the 2 test images no label (0.500). They are slices, so each of them is a false alarm";
    assert!(told.contains(expected) && told.contains("Reasons given: blurred 1."), "{told}");
    let unknown = texts(&Case::new(false).page(), "section[aria-labelledby=abstention] p").concat();
    assert!(!unknown.contains("input gate"), "{unknown}");
}

#[test]
fn what_is_not_known_is_said() {
    let case = Case { history: Vec::new(), ..Case::new(false) };
    let page = case.page();
    for expected in [
        "Patients are unknown, or not all known, so there is no table of them.",
        "The bundle has no error rate at which it abstains",
        "The history of the training is not there.",
        "The patient of 6 images is not known",
        "nephros evaluate --gap does",
        "were not run: nephros evaluate --controls does",
        "Planes marked outline are estimated",
        "it cannot be said what a random split would have leaked",
    ] {
        assert!(page.contains(expected), "{expected}");
    }
}

#[test]
fn a_split_that_shares_is_counted() {
    let mut case = Case::new(true);
    case.records[4].patient = "P2".into();
    case.records[5].sha256 = "4".into();
    let subsets = [[Subset::Test; 4].as_slice(), &[Subset::Train, Subset::Validation]].concat();
    case.split = Split::from_subsets(&case.records, &subsets, Unit::Image);
    let split = case.report().split;
    assert_eq!((split.shared_patients, split.shared_images, split.shared_groups), (1, 1, None));
    case.split.assignments[0].group = "G1".into();
    case.split.assignments[5].group = "G1".into();
    assert_eq!(case.report().split.shared_groups, Some(1));
    let counts: Vec<_> =
        split.subsets.iter().map(|s| (s.images, s.patients, s.images_of_label.clone())).collect();
    assert_eq!(counts, [(1, 1, vec![1, 0]), (1, 1, vec![0, 1]), (4, 2, vec![2, 2])]);
}

#[test]
fn the_files_say_the_same() {
    let report = Case::new(true).report();
    let files = files(&report, &[]).unwrap();
    let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        names,
        [
            "report.json",
            "plots/roc.csv",
            "plots/pr.csv",
            "plots/reliability.csv",
            "plots/abstention.csv",
            "plots/roc.svg",
            "plots/pr.svg",
            "plots/confusion_matrix.svg",
            "plots/reliability.svg",
            "plots/abstention.svg",
            "plots/training.svg",
            "report.html",
        ]
    );
    let read: Report = serde_json::from_slice(&files[0].1).unwrap();
    // Not all of it: the last digit of an f64 is not always read back as it was written.
    assert_eq!((read.patients, read.worst_errors), (report.patients, report.worst_errors));
    assert_eq!((read.split, read.model), (report.split, report.model));
    let roc = String::from_utf8(files[1].1.clone()).unwrap();
    // Tumor at 0.75: one right and one wrong of two each; at 0.375 all Tumor; at 0.125 all.
    let expected = "class,threshold,false_positive_rate,true_positive_rate\nTumor,,0,0\nTumor,0.75,0.5,0.5\n\
                    Tumor,0.375,0.5,1\nTumor,0.125,1,1\n";
    assert_eq!(roc, expected);
}
