//! What a report says, as one value.

use std::collections::{BTreeMap, BTreeSet};

use nephros_core::{
    abstention::Abstention,
    bundle::BundleMeta,
    calibration::Calibration,
    patient::{self, PatientReading},
    preprocessing::Preprocessing,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    curves::{AbstentionPoint, ClassCurves, abstention_curve, class_curves},
    orientations::{OrientationRow, orientations},
};
use crate::{
    evaluate::{Scores, interval::Resampler, metrics::Predictions},
    manifest::Record,
    orientation::Plane,
    split::{Assignment, Split, Subset, Unit},
    train::history::Epoch,
};

/// What the model is for, and what it is not for.
const INTENDED_USE: &str = "For research, teaching and method comparison, at most as a second opinion beside a \
                            radiologist's own reading. It is not a medical device and not a diagnosis, and no \
                            result of it should decide about a patient. It knows only images like those it was \
                            trained on.";

/// Images among the worst errors.
const MOST_ERRORS: usize = 12;

/// `report.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What the model is for, and what it is not for.
    pub intended_use: String,
    /// `scores.json`, with the verdict of the gate.
    pub scores: Scores,
    /// What was trained on and what tested on.
    pub split: SplitSummary,
    /// Of the positive class, of each class when there are more than two; none where all test
    /// images are of one class.
    pub curves: Vec<ClassCurves>,
    /// Error against share answered, from the surest image on.
    pub abstention_curve: Vec<AbstentionPoint>,
    /// Test patients, the worst first; empty when patients are unknown.
    pub patients: Vec<PatientRow>,
    /// Test images by the plane of the slice.
    pub orientations: Vec<OrientationRow>,
    /// Wrong test images.
    pub n_wrong: usize,
    /// At most twelve of them, the surest first.
    pub worst_errors: Vec<WrongImage>,
    /// What each epoch of the training brought; empty when that is not known.
    pub history: Vec<Epoch>,
    /// The model.
    pub model: ModelCard,
}

/// What was trained on and what tested on, and what the two have in common.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SplitSummary {
    /// What was kept on one side.
    pub unit: Unit,
    /// Training, validation and test, in this order.
    pub subsets: Vec<SubsetSummary>,
    /// Images whose patient is not known.
    pub unknown_patients: usize,
    /// Test patients that are also in training or validation.
    pub shared_patients: usize,
    /// Groups that the audit found, in the test set and also in training or validation; `None` where
    /// it was not asked for groups.
    pub shared_groups: Option<usize>,
    /// Test images that are also in training or validation.
    pub shared_images: usize,
    /// Share of test images that would find images of their own patient (or found group) in training,
    /// were the same images put on sides of the same sizes one by one; `None` where neither is known.
    pub random_split_leaks: Option<f64>,
}

/// One side of the split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubsetSummary {
    /// Which.
    pub subset: Subset,
    /// Images.
    pub images: usize,
    /// Known patients.
    pub patients: usize,
    /// Images of each class, in label order.
    pub images_of_label: Vec<usize>,
}

/// One test patient; one with images of two classes has two rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PatientRow {
    /// As the user's CSV names it.
    pub patient: String,
    /// True class.
    pub class: String,
    /// Images.
    pub images: usize,
    /// Images called rightly.
    pub images_right: usize,
    /// Class that the answer from all of its images names.
    pub named: String,
    /// Probability of the true class in that answer.
    pub probability: f32,
}

impl PatientRow {
    /// Whether the answer from all of its images names the true class.
    pub fn is_right(&self) -> bool {
        self.named == self.class
    }
}

/// One wrong test image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WrongImage {
    /// As in the manifest.
    pub path: String,
    /// As in the manifest; empty when unknown.
    pub patient: String,
    /// True class.
    pub class: String,
    /// Class named.
    pub named: String,
    /// Probability of the class named.
    pub probability: f32,
}

/// How the model was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelCard {
    /// Name of the model.
    pub id: String,
    /// Network.
    pub architecture: String,
    /// Width of the hidden layer in the head; 0 for none.
    pub hidden_units: usize,
    /// `WEIGHTS` of the training.
    pub weights: String,
    /// From a decoded image to network input.
    pub preprocessing: Preprocessing,
    /// How probabilities are corrected.
    pub calibration: Option<Calibration>,
    /// When an image is for a radiologist.
    pub abstention: Option<Abstention>,
    /// How all images of a patient are read together.
    pub patient: Option<PatientReading>,
    /// The params.yaml of the training.
    pub params: Value,
    /// Digest of the dataset.
    pub dataset_digest: String,
    /// Digest of the split.
    pub split_digest: String,
    /// SHA-256 of the weights.
    pub weights_sha256: String,
    /// SHA-256 of the recorded answers.
    pub golden_sha256: String,
    /// Version of nephros that trained.
    pub trained_by: String,
    /// Version of nephros that evaluated.
    pub evaluated_by: String,
}

/// What a report is made of.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The scores.
    pub scores: &'a Scores,
    /// The bundle that was scored.
    pub meta: &'a BundleMeta,
    /// Its split.
    pub split: &'a Split,
    /// Test images and their labels.
    pub members: &'a [(&'a Record, usize)],
    /// What the model says of them, calibrated.
    pub predictions: &'a Predictions,
    /// Plane that each suggests.
    pub planes: &'a [Option<Plane>],
    /// Epochs of the training.
    pub history: &'a [Epoch],
    /// Seed of the bootstrap.
    pub seed: u64,
}

impl Report {
    /// Depends on the evidence alone.
    pub fn new(evidence: &Evidence<'_>) -> Self {
        let Evidence { scores, meta, split, members, predictions, planes, history, seed } = *evidence;
        let units: Vec<String> = members.iter().map(|(record, _)| record.unit_name()).collect();
        let known = members.iter().all(|(record, _)| !record.patient.is_empty()) && !members.is_empty();
        let resampler = Resampler::new(predictions, &units, seed);
        let wrong = wrong_images(evidence);
        Self {
            intended_use: INTENDED_USE.to_owned(),
            scores: scores.clone(),
            split: SplitSummary::new(split, &scores.labels),
            curves: curves(scores, predictions, &resampler),
            abstention_curve: abstention_curve(predictions, &weights(&units)),
            patients: if known { patients(evidence) } else { Vec::new() },
            orientations: orientations(members, planes, predictions, scores.labels.len()),
            n_wrong: wrong.len(),
            worst_errors: wrong.into_iter().take(MOST_ERRORS).collect(),
            history: history.to_vec(),
            model: ModelCard::new(meta, &scores.model),
        }
    }
}

/// Of the positive class, or of every class when there are more than two.
fn curves(scores: &Scores, predictions: &Predictions, resampler: &Resampler) -> Vec<ClassCurves> {
    let first = usize::from(scores.labels.len() == 2);
    let of_class = |class: usize| {
        class_curves(predictions, class, &scores.labels[class], |statistic| {
            resampler.interval(|positions| statistic(&predictions.select(positions.iter().copied())))
        })
    };
    (first..scores.labels.len()).filter_map(of_class).collect()
}

/// Weights by which every patient counts equally, as in the promise of abstention.
fn weights(units: &[String]) -> Vec<f64> {
    let mut sizes: BTreeMap<&str, f64> = BTreeMap::new();
    for unit in units {
        *sizes.entry(unit).or_default() += 1.0;
    }
    units.iter().map(|unit| 1.0 / sizes[unit.as_str()]).collect()
}

fn patients(evidence: &Evidence<'_>) -> Vec<PatientRow> {
    let Evidence { scores, meta, members, predictions, .. } = *evidence;
    let mut positions: BTreeMap<(&str, usize), Vec<usize>> = BTreeMap::new();
    for (position, (record, label)) in members.iter().enumerate() {
        positions.entry((&record.patient, *label)).or_default().push(position);
    }
    let named = predictions.predicted();
    let row = |((patient, label), positions): ((&str, usize), Vec<usize>)| {
        let slices = positions.iter().map(|&position| predictions.probabilities[position].as_slice());
        let answer = patient::answer(meta.patient.as_ref(), &scores.labels, slices);
        let prediction = answer.map(|answer| answer.prediction);
        PatientRow {
            patient: patient.to_owned(),
            class: scores.labels[label].clone(),
            images: positions.len(),
            images_right: positions.iter().filter(|&&position| named[position] == label).count(),
            named: prediction.as_ref().map_or(String::new(), |mean| scores.labels[mean.top()].clone()),
            probability: prediction.map_or(0.0, |mean| mean.probabilities[label]),
        }
    };
    let mut rows: Vec<PatientRow> = positions.into_iter().map(row).collect();
    rows.sort_by(|a, b| a.is_right().cmp(&b.is_right()).then(a.probability.total_cmp(&b.probability)));
    rows
}

/// All wrong images, those first of which the model was surest.
fn wrong_images(evidence: &Evidence<'_>) -> Vec<WrongImage> {
    let Evidence { scores, members, predictions, .. } = *evidence;
    let rows = members.iter().zip(predictions.predicted()).zip(&predictions.probabilities);
    let mut wrong: Vec<WrongImage> = rows
        .filter(|(((_, label), named), _)| label != named)
        .map(|(((record, label), named), row)| WrongImage {
            path: record.path.clone(),
            patient: record.patient.clone(),
            class: scores.labels[*label].clone(),
            named: scores.labels[named].clone(),
            probability: row[named],
        })
        .collect();
    wrong.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    wrong
}

impl SplitSummary {
    fn new(split: &Split, labels: &[String]) -> Self {
        let of_subset = |subset| {
            let images = || split.assignments.iter().filter(move |image| image.subset == subset);
            let of_label = |label: &String| images().filter(|image| image.class == *label).count();
            SubsetSummary {
                subset,
                images: images().count(),
                patients: split.patients(subset).len(),
                images_of_label: labels.iter().map(of_label).collect(),
            }
        };
        let has_groups = split.assignments.iter().any(|image| !image.group.is_empty());
        Self {
            unit: split.unit,
            subsets: [Subset::Train, Subset::Validation, Subset::Test].map(of_subset).to_vec(),
            unknown_patients: split.assignments.iter().filter(|image| image.patient.is_empty()).count(),
            shared_patients: shared(split, |image| &image.patient),
            shared_groups: has_groups.then(|| shared(split, |image| &image.group)),
            shared_images: shared(split, |image| &image.sha256),
            random_split_leaks: random_split_leaks(split),
        }
    }
}

/// See [`SplitSummary::random_split_leaks`]; exact, but for the classes, whose shares are taken as
/// equal on all sides. Given that an image is tested, the others of its unit are all outside the
/// training set with a hypergeometric chance.
fn random_split_leaks(split: &Split) -> Option<f64> {
    let unit = |image: &Assignment| {
        [&image.patient, &image.group].into_iter().find(|name| !name.is_empty()).cloned()
    };
    let mut sizes: BTreeMap<String, usize> = BTreeMap::new();
    for image in &split.assignments {
        *sizes.entry(unit(image)?).or_default() += 1;
    }
    let others = split.assignments.len() as f64 - 1.0;
    let outside = others - split.indices(Subset::Train).len() as f64;
    let alone = |size: usize| -> f64 {
        (0..size - 1).map(|k| ((outside - k as f64) / (others - k as f64)).max(0.0)).product()
    };
    let leaked: f64 = sizes.values().map(|&size| size as f64 * (1.0 - alone(size))).sum();
    (!sizes.is_empty()).then(|| leaked / split.assignments.len() as f64)
}

/// Names that are in the test set and also in training or validation; empty ones are no names.
fn shared(split: &Split, name: impl Fn(&Assignment) -> &str) -> usize {
    let (tested, seen): (Vec<&Assignment>, Vec<&Assignment>) =
        split.assignments.iter().partition(|image| image.subset == Subset::Test);
    let names = |images: Vec<&Assignment>| -> BTreeSet<String> {
        images.into_iter().map(|image| name(image).to_owned()).filter(|name| !name.is_empty()).collect()
    };
    names(tested).intersection(&names(seen)).count()
}

impl ModelCard {
    fn new(meta: &BundleMeta, model: &str) -> Self {
        Self {
            id: model.to_owned(),
            architecture: meta.architecture.to_string(),
            hidden_units: meta.hidden_units,
            weights: meta.params["WEIGHTS"].as_str().unwrap_or("unknown").to_owned(),
            preprocessing: meta.preprocessing.clone(),
            calibration: meta.calibration.clone(),
            abstention: meta.abstention.clone(),
            patient: meta.patient.clone(),
            params: meta.params.clone(),
            dataset_digest: meta.dataset_digest.clone(),
            split_digest: meta.split_digest.clone(),
            weights_sha256: meta.weights_sha256.clone(),
            golden_sha256: meta.golden_sha256.clone(),
            trained_by: meta.crate_version.clone(),
            evaluated_by: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}
