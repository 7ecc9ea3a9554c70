//! What an evaluation found about a bundle, and whether the model may be used as current.

use std::{collections::BTreeMap, fmt, path::Path};

use serde::{Deserialize, Serialize};

use super::{BundleError, update_meta};

/// The verdict of the last evaluation, kept with the model that it is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// What the gate says.
    pub gate: Gate,
    /// SHA-256 of the `scores.json` that it was judged by.
    pub scores_sha256: String,
    /// Version of nephros that judged.
    pub crate_version: String,
    /// That the model was used in spite of the gate; `None` if it never was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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

/// A record that somebody passed `--force`. Who and when is not known here.
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
        Some(_) if force => {
            update_meta(dir, |meta| {
                if let Some(evaluation) = &mut meta.evaluation {
                    let overlooked = evaluation.gate.findings.iter().map(|finding| finding.code).collect();
                    let crate_version = env!("CARGO_PKG_VERSION").to_owned();
                    evaluation.forced = Some(Forced { crate_version, overlooked });
                }
            })?;
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
    update_meta(dir, |meta| {
        let forced = meta.evaluation.take().and_then(|evaluation| evaluation.forced);
        let crate_version = env!("CARGO_PKG_VERSION").to_owned();
        meta.evaluation = Some(Evaluation { gate, scores_sha256, crate_version, forced });
    })
}
