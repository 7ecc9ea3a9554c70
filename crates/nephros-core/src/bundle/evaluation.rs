//! What an evaluation found about a bundle, and whether the model may be used as current.
//!
//! Verdict and force have a file each, and `bundle.json` stays as the training wrote it: a tool that
//! hashes what a stage leaves finds the training's files unchanged by the evaluation, and the evaluation's by
//! whoever forces.

use std::{collections::BTreeMap, fmt, io, path::Path};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{BundleError, BundleMeta, json_bytes, read_meta};
use crate::weights::replace_file;

/// The verdict of the last evaluation.
pub(super) const EVALUATION_FILE: &str = "evaluation.json";
/// That the model was used in spite of it.
pub(super) const FORCED_FILE: &str = "forced.json";

/// `evaluation.json`: the verdict of the last evaluation, kept with the model that it is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// SHA-256 of the f32 weights that were judged. A verdict on others counts as none.
    pub weights_sha256: String,
    /// What the gate says.
    pub gate: Gate,
    /// SHA-256 of the `scores.json` that it was judged by.
    pub scores_sha256: String,
    /// Version of nephros that judged.
    pub crate_version: String,
    /// That the model was used in spite of the gate; `None` if it never was. From `forced.json`.
    #[serde(skip)]
    pub forced: Option<Forced>,
}

/// Whether a model may be registered, or served as current.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// Whether there is no finding.
    pub passed: bool,
    /// What speaks against the model.
    pub findings: Vec<Finding>,
}

/// One thing that speaks against a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// Which.
    pub code: FindingCode,
    /// A sentence with the figures.
    pub text: String,
    /// The figures by name.
    pub figures: BTreeMap<String, f64>,
}

/// The conditions of the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingCode {
    /// The accuracy may be that of always naming the larger class.
    MajorityClass,
    /// Every image gets the same label.
    OneClass,
    /// The figures contradict each other.
    ImpossibleFigures,
    /// A patient is, or may be, both in the test set and among the images trained on.
    SharedPatients,
}

/// `forced.json`: a record that somebody passed `--force`. Who and when is not known here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forced {
    /// Version of nephros that was told to.
    pub crate_version: String,
    /// What it was told to overlook.
    pub overlooked: Vec<FindingCode>,
}

/// How a model came past the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It passed.
    Passed,
    /// It failed, and was forced; the bundle says so now.
    Forced,
    /// It was never evaluated.
    NotEvaluated,
}

impl Gate {
    /// The verdict on these findings.
    pub fn new(findings: Vec<Finding>) -> Self {
        Self { passed: findings.is_empty(), findings }
    }

    /// Whether the model is refused; a verdict that contradicts itself refuses.
    pub fn refuses(&self) -> bool {
        !self.passed || !self.findings.is_empty()
    }
}

/// `passed`, or the sentences of all findings in a line.
impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.refuses() {
            return f.write_str("passed");
        }
        let texts: Vec<&str> = self.findings.iter().map(|finding| finding.text.as_str()).collect();
        f.write_str(&texts.join("; "))
    }
}

/// Decides whether the bundle at `dir`, last judged as `evaluation`, may be registered or served as
/// current. With `force` it may in any case, and the bundle records that.
///
/// # Errors
/// [`BundleError::Refused`], and [`BundleError::Io`] when `force` cannot be recorded: then the
/// model is not to be used either.
pub fn admit(dir: &Path, evaluation: Option<&Evaluation>, force: bool) -> Result<Admission, BundleError> {
    match evaluation {
        None => Ok(Admission::NotEvaluated),
        Some(evaluation) if !evaluation.gate.refuses() => Ok(Admission::Passed),
        Some(evaluation) if force => {
            let overlooked = evaluation.gate.findings.iter().map(|finding| finding.code).collect();
            let forced = Forced { crate_version: env!("CARGO_PKG_VERSION").to_owned(), overlooked };
            write(&dir.join(FORCED_FILE), &forced)?;
            Ok(Admission::Forced)
        }
        Some(evaluation) => Err(BundleError::Refused { path: dir.to_owned(), gate: evaluation.gate.clone() }),
    }
}

/// Records the verdict on the bundle at `dir`. That it was once forced stays on record.
///
/// # Errors
/// [`BundleError::Io`] and [`BundleError::Meta`].
pub fn record_evaluation(dir: &Path, gate: Gate, scores_sha256: String) -> Result<(), BundleError> {
    let evaluation = Evaluation {
        weights_sha256: read_meta(dir)?.weights_sha256,
        gate,
        scores_sha256,
        crate_version: env!("CARGO_PKG_VERSION").to_owned(),
        forced: None,
    };
    write(&dir.join(EVALUATION_FILE), &evaluation)
}

/// The verdict on the weights of `meta`, if there is one.
pub(crate) fn read(dir: &Path, meta: &BundleMeta) -> Result<Option<Evaluation>, BundleError> {
    let evaluation: Option<Evaluation> = read_json(&dir.join(EVALUATION_FILE))?;
    match evaluation.filter(|evaluation| evaluation.weights_sha256 == meta.weights_sha256) {
        None => Ok(None),
        Some(evaluation) => Ok(Some(Evaluation { forced: read_json(&dir.join(FORCED_FILE))?, ..evaluation })),
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, BundleError> {
    let bytes = match fs_err::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| BundleError::Verdict { path: path.to_owned(), source })
}

fn write(path: &Path, value: &impl Serialize) -> Result<(), BundleError> {
    Ok(replace_file(path, &json_bytes(path, value)?)?)
}
