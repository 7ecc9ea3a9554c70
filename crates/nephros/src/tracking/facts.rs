//! What is logged, in MLflow's terms.

use std::{collections::BTreeMap, path::Path, process::Command};

use nephros_mlflow::run::{Batch, DIGEST_LIMIT, DatasetInput, Entry, Metric, now_ms};
use nephros_train::{
    evaluate::Scores,
    progress::Training,
    split::Subset,
    stages::Project,
    train::{TrainSummary, history::Epoch},
};
use serde_json::{Value, json};

/// Where a run comes from: the program and the commit of the project.
pub fn origin(root: &Path) -> Vec<Entry> {
    let mut tags = vec![Entry::new("nephros.version", env!("CARGO_PKG_VERSION"))];
    let git = Command::new("git").arg("-C").arg(root).args(["rev-parse", "HEAD"]).output();
    if let Some(commit) = git.ok().filter(|git| git.status.success()) {
        let commit = String::from_utf8_lossy(&commit.stdout).trim().to_owned();
        tags.push(Entry::new("mlflow.source.git.commit", commit));
    }
    tags
}

/// All of `params.yaml`, and digests of what is trained on.
pub fn training(project: &Project, training: &Training<'_>) -> Batch {
    let params = serde_json::to_value(&project.params).unwrap_or_default();
    let params = params.as_object().cloned().unwrap_or_default();
    Batch {
        params: params.iter().map(|(key, value)| Entry::new(key, param(value))).collect(),
        tags: vec![
            Entry::new("nephros.dataset_sha256", &training.dataset.digest),
            Entry::new("nephros.split_sha256", training.split.digest()),
        ],
        ..Batch::default()
    }
}

/// As a Python program would log it: `True`, `[224, 224, 3]`.
fn param(value: &Value) -> String {
    match value {
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::Null => "None".into(),
        Value::String(text) => text.clone(),
        Value::Array(values) => format!("[{}]", values.iter().map(param).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

/// The images of each side of the split.
pub fn inputs(project: &Project, training: &Training<'_>) -> Vec<DatasetInput> {
    let source = &project.config.data_ingestion.source_url;
    let (source_type, key) = if source.contains("://") { ("http", "url") } else { ("local", "uri") };
    let sides = [(Subset::Train, "training"), (Subset::Validation, "validation"), (Subset::Test, "testing")];
    sides
        .map(|(subset, context)| {
            let mut classes = BTreeMap::new();
            for (record, _) in training.dataset.subset(training.split, subset) {
                *classes.entry(record.class.as_str()).or_insert(0) += 1;
            }
            let profile = json!({
                "images": classes.values().sum::<usize>(),
                "classes": classes,
                "patients": training.split.patients(subset).len(),
                "dataset_sha256": training.dataset.digest,
                "split_sha256": training.split.digest(),
            });
            DatasetInput {
                name: format!("kidney-ct-scan-image-{context}"),
                digest: training.dataset.digest.chars().take(DIGEST_LIMIT).collect(),
                source_type: source_type.to_owned(),
                source: json!({ key: source }).to_string(),
                profile: profile.to_string(),
                context: context.to_owned(),
            }
        })
        .into()
}

/// The figures of an epoch, at its step.
pub fn epoch(epoch: &Epoch) -> Batch {
    let figures = [
        ("train_loss", Some(epoch.train_loss)),
        ("train_accuracy", Some(epoch.train_accuracy)),
        ("train_auroc", epoch.train_auroc),
        ("validation_loss", Some(epoch.validation_loss)),
        ("validation_accuracy", Some(epoch.validation_accuracy)),
        ("validation_auroc", epoch.validation_auroc),
        ("learning_rate", Some(epoch.learning_rate)),
        ("epoch_seconds", Some(epoch.seconds)),
    ];
    metrics(figures, epoch.epoch as i64)
}

fn metrics<'a>(figures: impl IntoIterator<Item = (&'a str, Option<f64>)>, step: i64) -> Batch {
    let timestamp = now_ms();
    let metric = |(key, value): (&str, Option<f64>)| {
        value.map(|value| Metric { key: key.to_owned(), value, timestamp, step })
    };
    Batch { metrics: figures.into_iter().filter_map(metric).collect(), ..Batch::default() }
}

/// What a training came to.
pub fn trained(summary: &TrainSummary) -> Batch {
    let figures = [("best_epoch", Some(summary.best_epoch as f64))];
    Batch { tags: vec![Entry::new("nephros.model", &summary.model)], ..metrics(figures, 0) }
}

/// What an evaluation found.
pub fn scores(scores: &Scores) -> Batch {
    let found = &scores.metrics;
    let patients = scores.by_patient.as_ref();
    let figures = [
        ("test_loss", Some(found.loss)),
        ("test_accuracy", Some(found.accuracy)),
        ("test_precision", Some(found.precision)),
        ("test_recall", Some(found.recall)),
        ("test_f1", Some(found.f1)),
        ("test_sensitivity", Some(found.sensitivity)),
        ("test_specificity", Some(found.specificity)),
        ("test_sensitivity_at_90_specificity", found.sensitivity_at_90_specificity),
        ("test_auroc", found.auroc),
        ("test_majority_accuracy", Some(scores.majority_accuracy)),
        ("test_ece", Some(scores.calibration.ece)),
        ("test_brier", Some(scores.calibration.brier)),
        ("test_abstention_rate", scores.abstention.as_ref().map(|abstention| abstention.abstention_rate)),
        ("test_coverage", scores.abstention.as_ref().map(|abstention| abstention.coverage)),
        ("test_patient_accuracy", patients.map(|patients| patients.metrics.accuracy)),
        ("test_patient_auroc", patients.and_then(|patients| patients.metrics.auroc)),
        ("test_patient_ece", patients.map(|patients| patients.calibration.ece)),
    ];
    Batch { tags: gate(&scores.gate.to_string(), false), ..metrics(figures, 0) }
}

/// Tags of a version: what it is and what the gate says.
pub fn version(scores: &Scores, forced: bool) -> Vec<Entry> {
    let mut tags = gate(&scores.gate.to_string(), forced);
    tags.push(Entry::new("nephros.model", &scores.model));
    tags.push(Entry::new("nephros.test_accuracy", scores.metrics.accuracy.to_string()));
    tags
}

/// What the gate says, and whether that was overlooked.
pub fn gate(verdict: &str, forced: bool) -> Vec<Entry> {
    let mut tags = vec![Entry::new("nephros.gate", verdict)];
    if forced {
        tags.push(Entry::new("nephros.forced", "True"));
    }
    tags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn params_read_as_python_logs_them() {
        for (value, text) in [
            (json!(true), "True"),
            (json!([224, 224, 3]), "[224, 224, 3]"),
            (json!(0.01), "0.01"),
            (json!("imagenet"), "imagenet"),
            (json!(null), "None"),
        ] {
            assert_eq!(param(&value), text);
        }
    }
}
