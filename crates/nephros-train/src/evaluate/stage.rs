//! Stage `evaluate`: the trained bundle on the test images of its own split.

use std::{fmt, io, path::PathBuf};

use nephros_core::{
    bundle::{Bundle, BundleError, BundleMeta, Gate, record_evaluation},
    digest::sha256,
    explain::{ExplainError, Explainer},
    hint::Hint,
    input_gate::FalseAlarms,
    predictor::{ModelError, PredictError},
};
use serde::{Deserialize, Serialize};

use super::{
    doubt::{AbstentionScores, CalibrationScores, Doubt, abstention_scores, calibration_scores},
    gate::{SplitFacts, gate},
    interval::{Intervals, Resampler, bootstrap},
    look::{Looked, look},
    metrics::{Metrics, Predictions},
    patients::{PatientScores, patient_scores},
};
use crate::{
    config::{Params, SplitBy},
    controls::{self, Case, Checks, Control, Findings, Gap, NoGap},
    files::write_atomic,
    manifest::{ManifestError, Record},
    orientation::Plane,
    progress::{Cancelled, Progress},
    report::{self, Evidence, Report, thumbnails},
    split::{Split, SplitError, Subset, Unit},
    stages::{Dataset, Project},
    train::{TrainError, data::DataError, history},
};

/// `scores.json`. All figures are of the model as it is used, calibrated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// The headline figures.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// Test images.
    pub n: usize,
    /// Test patients; `None` when patients are unknown.
    pub n_patients: Option<usize>,
    /// Accuracy of always naming the larger class.
    pub majority_accuracy: f64,
    /// 95 % intervals by bootstrap over patients, over the groups that were found when patients are
    /// unknown, or over images when there are neither.
    pub interval_95: Intervals,
    /// Rows are true classes, columns predicted ones, in the order of `labels`.
    pub confusion_matrix: Vec<Vec<usize>>,
    /// Class names.
    pub labels: Vec<String>,
    /// Class that precision, recall, sensitivity and AUROC are of; `None` for more than two
    /// classes, where they are means over classes.
    pub positive_class: Option<String>,
    /// What was kept on one side of the split.
    pub split_by: Unit,
    /// Model that was scored.
    pub model: String,
    /// Why the figures are optimistic, if they are.
    pub warning: Option<String>,
    /// Whether probabilities mean what they say.
    pub calibration: CalibrationScores,
    /// How often the model refers to a radiologist, and what that brings; `None` for a bundle
    /// without an error rate.
    pub abstention: Option<AbstentionScores>,
    /// Of patients, each answered for by all of its images; `None` when one is unknown.
    #[serde(default)]
    pub by_patient: Option<PatientScores>,
    /// How many test images, slices all of them, the input gate gives no label; `None` for a bundle without one.
    #[serde(default)]
    pub input_gate: Option<FalseAlarms>,
    /// Whether the model may be registered, or served as current.
    pub gate: Gate,
    /// What a random split of the same images would have claimed, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
    /// The nearest pixels, and the other controls where they were asked for.
    #[serde(default)]
    pub controls: Vec<Control>,
}

impl fmt::Display for Scores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |[low, high]: [f64; 2]| format!("{low:.3} to {high:.3}");
        let Metrics { accuracy, auroc, sensitivity, specificity, sensitivity_at_90_specificity, .. } =
            self.metrics;
        let patients = self.n_patients.map_or(String::new(), |patients| format!(" of {patients} patients"));
        writeln!(f, "{} on {} test images{patients} that training never saw:", self.model, self.n)?;
        let interval = &self.interval_95;
        writeln!(f, "  accuracy    {accuracy:.3} (95 % interval {})", percent(interval.accuracy))?;
        writeln!(f, "              {:.3} by always naming the larger class", self.majority_accuracy)?;
        if let (Some(auroc), Some(range)) = (auroc, interval.auroc) {
            writeln!(f, "  AUROC       {auroc:.3} ({})", percent(range))?;
        }
        writeln!(f, "  sensitivity {sensitivity:.3} ({})", percent(interval.sensitivity))?;
        writeln!(f, "  specificity {specificity:.3} ({})", percent(interval.specificity))?;
        if let Some(sensitivity) = sensitivity_at_90_specificity {
            writeln!(f, "              sensitivity {sensitivity:.3} at a specificity of 0.9")?;
        }
        write!(f, "{}", Doubt(&self.calibration, self.abstention.as_ref(), "slices"))?;
        if let Some(alarms @ FalseAlarms { images, refused, share, .. }) = &self.input_gate {
            let codes = alarms.codes();
            write!(f, "\n  input gate  {refused} of {images} test images get no label ({share:.3})")?;
            write!(f, "{}", if codes.is_empty() { String::new() } else { format!(": {codes}") })?;
        }
        if let Some(patients) = &self.by_patient {
            write!(f, "\n{patients}")?;
        }
        write!(f, "{}", controls::Text(self.gap.as_ref(), &self.controls))?;
        if let Some(warning) = &self.warning {
            write!(f, "\nwarning: {warning}")?;
        }
        if !self.gate.refuses() {
            return write!(f, "\ngate: passed");
        }
        let findings = self.gate.findings.iter();
        findings.map(|finding| &finding.text).try_for_each(|text| write!(f, "\ngate: refused: {text}"))
    }
}

/// Why there is no score.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluateError {
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The manifest is missing or broken.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The split is missing, leaks or is of other images.
    #[error(transparent)]
    Split(#[from] SplitError),
    /// The bundle is missing or fails its checks.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The bundle was not trained with this split and these labels.
    #[error("the bundle was trained with another {what}: expected {expected}, got {got}")]
    OtherTraining {
        /// `split` or `labels`.
        what: &'static str,
        /// In the project.
        expected: String,
        /// In the bundle.
        got: String,
    },
    /// There is no gap to be told.
    #[error(transparent)]
    NoGap(#[from] NoGap),
    /// The bundle does not say how it was trained, so that its recipe cannot be repeated.
    #[error("the bundle does not say how it was trained")]
    Recipe {
        /// What is wrong with its parameters.
        source: serde_json::Error,
    },
    /// The recipe cannot be trained for the gap or a control.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A test image cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model gave no answer.
    #[error(transparent)]
    Predict(#[from] PredictError),
    /// The model cannot be read again, to explain its errors.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// An error cannot be explained.
    #[error(transparent)]
    Explain(#[from] ExplainError),
    /// The user asked to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Hint for EvaluateError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Manifest(error) => error.hint(),
            Self::Split(SplitError::Io(_)) | Self::OtherTraining { .. } | Self::Recipe { .. } => {
                Some("run `nephros train` first".into())
            }
            Self::NoGap(error) => error.hint(),
            Self::Train(error) => error.hint(),
            Self::Split(error) => error.hint(),
            Self::Bundle(error) => error.hint(),
            Self::Data(error) => error.hint(),
            Self::Predict(error) => error.hint(),
            Self::Model(error) => error.hint(),
            Self::Explain(error) => error.hint(),
            Self::Io(_) | Self::Cancelled(_) => None,
        }
    }
}

/// Scores the bundle of a project, asks what `checks` says beside it, and writes `scores.json`, and below
/// `evaluation` `predictions.csv`, `confusion_matrix.csv`, `gate.json` and the files of the report. The verdict
/// goes into the bundle too, last of all: a bundle that holds one has scores.
///
/// # Errors
/// See [`EvaluateError`].
pub fn evaluate(project: &Project, checks: Checks, progress: &dyn Progress) -> Result<Scores, EvaluateError> {
    let dataset = Dataset::load(project)?;
    let split = Split::read(&project.split_file())?;
    split.check_matches(&dataset.records)?;
    split.check_disjoint()?;
    checks.fit(split.unit)?;
    let Bundle { meta, predictor, .. } = Bundle::load(&project.bundle_dir())?;
    check_training("split", &split.digest(), &meta.split_digest)?;
    check_training("labels", &dataset.labels.join(", "), &meta.labels.join(", "))?;
    let members = dataset.subset(&split, Subset::Test);
    let predictor = predictor.uncalibrated();
    let Looked { answers: raw, input_gate, planes, pictures } = look(&predictor, &dataset, &split, progress)?;
    let predictions = match &meta.calibration {
        Some(calibration) => raw.with_temperature(calibration.temperature),
        None => raw.clone(),
    };
    let Findings { gap, controls } =
        findings(project, &dataset, &meta, &split, (&raw, &pictures), checks, progress)?;
    let scores = score(project, &meta, predictor.id(), &split, &members, &raw, &predictions);
    let scores = Scores { input_gate, gap, controls, ..scores };
    let report = report_files(project, &dataset, &meta, &split, &members, (&predictions, &planes), &scores)?;
    write_predictions(project, &dataset.labels, &members, &predictions)?;
    for (file, bytes) in report {
        write_atomic(&evaluation_dir(project).join(file), &bytes)?;
    }
    write_atomic(&evaluation_dir(project).join("gate.json"), &json(&scores.gate)?)?;
    let written = json(&scores)?;
    write_atomic(&project.root.join("scores.json"), &written)?;
    record_evaluation(&project.bundle_dir(), scores.gate.clone(), sha256(&written))?;
    Ok(scores)
}

fn evaluation_dir(project: &Project) -> PathBuf {
    project.path(&project.config.artifacts_root).join("evaluation")
}

fn check_training(what: &'static str, expected: &str, got: &str) -> Result<(), EvaluateError> {
    if expected == got {
        return Ok(());
    }
    Err(EvaluateError::OtherTraining { what, expected: expected.into(), got: got.into() })
}

/// What is asked beside the score, of the recipe that the bundle was trained by.
fn findings(
    project: &Project,
    dataset: &Dataset,
    meta: &BundleMeta,
    split: &Split,
    (answers, pictures): (&Predictions, &[Vec<u8>]),
    checks: Checks,
    progress: &dyn Progress,
) -> Result<Findings, EvaluateError> {
    let params: Params = if checks == Checks::default() {
        project.params.clone()
    } else {
        serde_json::from_value(meta.params.clone()).map_err(|source| EvaluateError::Recipe { source })?
    };
    let random: Vec<Split> =
        checks.gap.then(|| split.at_random(&dataset.records, params.seed)).into_iter().collect();
    let (params, rounds, random) = (&params, std::slice::from_ref(split), random.as_slice());
    let case = Case { project, dataset, params, rounds, random, answers, pictures };
    Ok(case.examine(checks.controls, progress)?)
}

fn score(
    project: &Project,
    meta: &BundleMeta,
    model: &str,
    split: &Split,
    members: &[(&Record, usize)],
    raw: &Predictions,
    predictions: &Predictions,
) -> Scores {
    let labels = meta.labels.clone();
    let classes = labels.len();
    let units: Vec<String> = members.iter().map(|(record, _)| record.unit_name()).collect();
    let resampler = Resampler::new(predictions, &units, project.params.seed);
    let abstention = meta.abstention.as_ref().and_then(|abstention| {
        abstention_scores(&vec![abstention; units.len()], predictions, &units, &labels, &resampler)
    });
    let known = !members.is_empty() && members.iter().all(|(record, _)| !record.patient.is_empty());
    let by_patient = known.then(|| {
        let readings = vec![meta.patient.as_ref(); units.len()];
        patient_scores(&readings, predictions, &units, &labels, project.params.seed)
    });
    let patients = split.patients(Subset::Test).len();
    let scores = Scores {
        metrics: predictions.metrics(classes),
        n: predictions.len(),
        n_patients: (patients > 0).then_some(patients),
        majority_accuracy: predictions.majority_accuracy(classes),
        interval_95: bootstrap(predictions, &resampler, classes),
        confusion_matrix: predictions.confusion(classes),
        positive_class: (classes == 2).then(|| labels[1].clone()),
        labels,
        split_by: split.unit,
        model: model.to_owned(),
        warning: warning(split, project.params.split_by),
        calibration: calibration_scores(meta.calibration.as_ref(), raw, predictions, &resampler),
        abstention,
        by_patient,
        input_gate: None,
        gate: Gate::default(),
        gap: None,
        controls: Vec::new(),
    };
    Scores { gate: gate(&scores, SplitFacts::of(split)), ..scores }
}

/// The report, made before anything of the evaluation is written.
fn report_files(
    project: &Project,
    dataset: &Dataset,
    meta: &BundleMeta,
    split: &Split,
    members: &[(&Record, usize)],
    (predictions, planes): (&Predictions, &[Option<Plane>]),
    scores: &Scores,
) -> Result<Vec<(&'static str, Vec<u8>)>, EvaluateError> {
    let history = match history::read(&project.history_file()) {
        // A bundle from elsewhere has none.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        other => other?,
    };
    let (history, seed) = (history.as_slice(), project.params.seed);
    let report = Report::new(&Evidence { scores, meta, split, members, predictions, planes, history, seed });
    let explainer = match report.worst_errors.as_slice() {
        [] => None,
        _ => Some(Explainer::load(&project.bundle_dir(), None, None)?),
    };
    let thumbnails = thumbnails(&dataset.root, &report.worst_errors, explainer.as_ref())?;
    Ok(report::files(&report, &thumbnails)?)
}

/// What a reader must know before believing the figures.
fn warning(split: &Split, split_by: SplitBy) -> Option<String> {
    let shared: Vec<&str> =
        split.patients(Subset::Train).intersection(&split.patients(Subset::Test)).copied().collect();
    match split.unit {
        Unit::Patient => None,
        Unit::Group => Some(
            "no patient is known, so images that look like one patient's were kept together: these groups are found, \
             not known, slices of one patient may still be on both sides, and the figures may be optimistic; give a \
             patients' CSV to know"
                .into(),
        ),
        Unit::Run => Some(
            "no patient is known, so adjacent file numbers were kept together: slices of one patient may still be on \
             both sides, and the figures may be optimistic; give a patients' CSV to know"
                .into(),
        ),
        Unit::Image if shared.is_empty() => Some(format!(
            "SPLIT_BY: {} puts neighbouring slices of a patient on both sides: these figures say nothing about new \
             patients",
            if split_by == SplitBy::Keras { "keras" } else { "random" }
        )),
        Unit::Image => Some(format!(
            "{} patients are in the training and in the test set: these figures say nothing about new patients",
            shared.len()
        )),
    }
}

/// Each image with its label and its probabilities as CSV; with the fold that scored it, counted from 1, where
/// there are folds.
pub(crate) fn table(
    labels: &[String],
    members: &[(&Record, usize)],
    predictions: &Predictions,
    fold_of: Option<&[usize]>,
) -> io::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut header = vec!["path", "patient", "class"];
    header.extend(fold_of.map(|_| "fold"));
    header.push("predicted");
    writer.write_record(header.into_iter().chain(labels.iter().map(String::as_str)))?;
    let rows = members.iter().zip(predictions.predicted()).zip(&predictions.probabilities);
    for (image, (((record, label), predicted), probabilities)) in rows.enumerate() {
        let mut row = vec![record.path.clone(), record.patient.clone(), labels[*label].clone()];
        row.extend(fold_of.map(|fold_of| (fold_of[image] + 1).to_string()));
        row.push(labels[predicted].clone());
        writer.write_record(row.into_iter().chain(probabilities.iter().map(f32::to_string)))?;
    }
    finish(writer)
}

fn write_predictions(
    project: &Project,
    labels: &[String],
    members: &[(&Record, usize)],
    predictions: &Predictions,
) -> io::Result<()> {
    let folder = evaluation_dir(project);
    write_atomic(&folder.join("predictions.csv"), &table(labels, members, predictions, None)?)?;
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(std::iter::once(&"class".to_owned()).chain(labels))?;
    for (label, row) in labels.iter().zip(predictions.confusion(labels.len())) {
        writer.write_record(std::iter::once(label.clone()).chain(row.iter().map(usize::to_string)))?;
    }
    write_atomic(&folder.join("confusion_matrix.csv"), &finish(writer)?)
}

fn finish(writer: csv::Writer<Vec<u8>>) -> io::Result<Vec<u8>> {
    writer.into_inner().map_err(csv::IntoInnerError::into_error)
}

fn json(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}
