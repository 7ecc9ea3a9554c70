//! The lines of `predict`: aligned columns or JSON.

use std::path::Path;

use nephros_core::{
    abstention::Answer,
    input_gate::{Reason, Similar, refusal},
    patient::PatientAnswer,
    predictor::{Prediction, Predictor},
};
use serde::{Serialize, Serializer};

use super::patients::Patient;
use crate::{
    errors::{self, Status},
    output,
};

/// Widest path column; a longer path pushes its own line only.
const MAX_PATH_COLUMN: usize = 80;

/// Why one path gives no prediction.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What is wrong, with its causes.
    pub error: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { error: errors::causes(&error).join(": "), hint: errors::hint(&error) }
    }
}

/// What is known about an image.
#[derive(Debug, Clone)]
pub struct Predicted {
    /// What the network says, whether it counts or not.
    pub prediction: Prediction,
    /// What the input gate says.
    pub reasons: Vec<Reason>,
    /// The nearest training slices, where they were asked for.
    pub similar: Option<Vec<Similar>>,
    /// What it took.
    pub milliseconds: f64,
}

/// What is known about an image, or why nothing is.
pub type Outcome = Result<Predicted, Failure>;

/// Writes outcomes as they come and counts them.
#[derive(Debug)]
pub struct Report<'a> {
    json: bool,
    predictor: &'a Predictor,
    path_column: usize,
    label_column: usize,
    labels_seen: Vec<usize>,
    referred: usize,
    refused: usize,
    failed: usize,
}

impl<'a> Report<'a> {
    /// `widest_path` is the number of characters of the longest path to come.
    pub fn new(json: bool, predictor: &'a Predictor, widest_path: usize) -> Self {
        let labels = predictor.labels();
        Self {
            json,
            predictor,
            path_column: widest_path.min(MAX_PATH_COLUMN),
            label_column: labels.iter().map(|label| label.chars().count()).max().unwrap_or_default(),
            labels_seen: vec![0; labels.len()],
            referred: 0,
            refused: 0,
            failed: 0,
        }
    }

    /// Writes the outcome of one path.
    pub fn add(&mut self, path: &Path, outcome: Outcome) -> anyhow::Result<()> {
        let path = path.to_string_lossy();
        match outcome {
            Ok(predicted) => self.add_prediction(&path, &predicted),
            Err(failure) => {
                self.failed += 1;
                write_failure(self.json, &path, &failure)
            }
        }
    }

    fn add_prediction(&mut self, path: &str, predicted: &Predicted) -> anyhow::Result<()> {
        let Predicted { prediction, reasons, similar, milliseconds } = predicted;
        let labels = self.predictor.labels();
        let probabilities = &prediction.probabilities;
        let top = prediction.top();
        let (label, probability) = (labels[top].as_str(), probabilities[top]);
        let refusal = refusal(reasons);
        let answer = self.predictor.answer(prediction);
        let refer = refusal.is_none() && answer.as_ref().is_some_and(Answer::refer);
        self.count(top, refer, refusal.is_some());
        if self.json {
            let line = PredictionLine {
                path,
                label,
                probability,
                probabilities: Named { labels, probabilities },
                model: self.predictor.id(),
                milliseconds: (milliseconds * 1e3).round() / 1e3,
                answer: AnswerKeys::of(answer.as_ref(), refusal),
                reasons: self.predictor.input_gate().map(|_| reasons.as_slice()),
                similar: similar.as_deref(),
            };
            return output::line(&serde_json::to_string(&line)?);
        }
        let (path_column, label_column) = (self.path_column, self.label_column);
        let percent = 100.0 * probability;
        if let Some(reason) = refusal {
            return output::line(&format!("{path:<path_column$}  no label: {reason} ({})", codes(reasons)));
        }
        let advice = if refer { "  refer to a radiologist" } else { "" };
        let copy = reasons.first().map(|reason| format!("  {reason}")).unwrap_or_default();
        output::line(&format!(
            "{path:<path_column$}  {label:<label_column$}  {percent:>5.1} %{advice}{copy}"
        ))?;
        similar.iter().flatten().try_for_each(|slice| output::line(&similar_line(slice)))
    }

    /// Writes the answer for all images of a folder as one patient.
    pub fn add_patient(&self, patient: &Patient) -> anyhow::Result<()> {
        let Patient { folder, slices, left_out, .. } = patient;
        let path = folder.to_string_lossy();
        let all = slices.len() + left_out;
        let probabilities = slices.iter().map(|slice| slice.probabilities.as_slice());
        let Some(PatientAnswer { prediction, answer }) = self.predictor.patient(probabilities) else {
            let error = format!("none of the {all} {} gets a label", images(all));
            if self.json {
                let hint = "the lines of its images say why";
                let line = NoPatientLine { patient: &path, error: &error, hint };
                return output::line(&serde_json::to_string(&line)?);
            }
            return output::line(&format!("patient {path}  no label: {error}"));
        };
        let labels = self.predictor.labels();
        let top = prediction.top();
        let (label, probability) = (labels[top].as_str(), prediction.probabilities[top]);
        if self.json {
            let line = PatientLine {
                patient: &path,
                label,
                probability,
                probabilities: Named { labels, probabilities: &prediction.probabilities },
                model: self.predictor.id(),
                images: slices.len(),
                left_out: *left_out,
                answer: AnswerKeys::of(answer.as_ref(), None),
            };
            return output::line(&serde_json::to_string(&line)?);
        }
        let (percent, seen) = (100.0 * probability, slices.len());
        let of = if *left_out == 0 { String::new() } else { format!(" of {all}") };
        let advice = if answer.as_ref().is_some_and(Answer::refer) { "  refer to a radiologist" } else { "" };
        output::line(&format!(
            "patient {path}  {label}  {percent:.1} % from {seen}{of} {}{advice}",
            images(all)
        ))
    }

    fn count(&mut self, top: usize, refer: bool, refused: bool) {
        self.labels_seen[top] += usize::from(!refused);
        self.referred += usize::from(refer);
        self.refused += usize::from(refused);
    }

    /// Writes the summary, unless `quiet`, and gives the status of the command.
    pub fn finish(&self, quiet: bool) -> Status {
        if !quiet {
            output::note(&self.summary());
        }
        if self.failed == 0 { Status::Done } else { Status::Failed }
    }

    fn summary(&self) -> String {
        let images = self.labels_seen.iter().sum::<usize>() + self.refused;
        let mut parts = vec![format!("{images} {}", self::images(images))];
        let labels = self.predictor.labels().iter().zip(&self.labels_seen);
        parts.extend(labels.map(|(label, seen)| format!("{seen} {label}")));
        if self.referred > 0 {
            parts.push(format!("{} to be referred to a radiologist", self.referred));
        }
        if self.refused > 0 {
            parts.push(format!("{} without a label", self.refused));
        }
        let summary = parts.join(", ");
        match self.failed {
            0 => summary,
            failed => format!("{summary}; {failed} could not be read"),
        }
    }
}

fn images(count: usize) -> &'static str {
    if count == 1 { "image" } else { "images" }
}

/// A training slice below the line of the image that it resembles.
pub fn similar_line(slice: &Similar) -> String {
    let Similar { path, class, patient, group, distance } = slice;
    let whose = match (patient, group) {
        (Some(patient), _) => format!(", patient {patient}"),
        (None, Some(group)) => format!(", group {group}"),
        (None, None) => String::new(),
    };
    format!("  similar: {path}  {class}{whose}  distance {distance:.2}")
}

/// Writes why a path failed: as a JSON line, or on stderr.
pub fn write_failure(json: bool, path: &str, failure: &Failure) -> anyhow::Result<()> {
    let Failure { error, hint } = failure;
    if json {
        let line = FailureLine { path, error, hint: hint.as_deref() };
        return output::line(&serde_json::to_string(&line)?);
    }
    output::note(&format!("error: `{path}`: {error}"));
    if let Some(hint) = hint {
        output::note(&format!("hint: {hint}"));
    }
    Ok(())
}

#[derive(Serialize)]
struct PredictionLine<'a> {
    path: &'a str,
    label: &'a str,
    probability: f32,
    probabilities: Named<'a>,
    model: &'a str,
    milliseconds: f64,
    #[serde(flatten)]
    answer: Option<AnswerKeys<'a>>,
    /// Only there for a model with an input gate.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasons: Option<&'a [Reason]>,
    /// Only there where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    similar: Option<&'a [Similar]>,
}

#[derive(Serialize)]
struct PatientLine<'a> {
    patient: &'a str,
    label: &'a str,
    probability: f32,
    probabilities: Named<'a>,
    model: &'a str,
    /// That the answer is from.
    images: usize,
    /// That have no label, or cannot be read.
    left_out: usize,
    #[serde(flatten)]
    answer: Option<AnswerKeys<'a>>,
}

/// A patient without an answer.
#[derive(Serialize)]
struct NoPatientLine<'a> {
    patient: &'a str,
    error: &'a str,
    hint: &'a str,
}

/// The codes, comma-separated.
fn codes(reasons: &[Reason]) -> String {
    let names: Vec<&str> = reasons.iter().map(|reason| reason.code.name()).collect();
    names.join(", ")
}

/// Only there for a model that knows its error rate, or an image that gets no label.
#[derive(Serialize)]
struct AnswerKeys<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    set: Option<&'a [String]>,
    refer: bool,
    reason: Option<&'a str>,
}

impl<'a> AnswerKeys<'a> {
    /// A refusal is the reason that is told.
    fn of(answer: Option<&'a Answer>, refusal: Option<&'a Reason>) -> Option<Self> {
        let refusal = refusal.map(|reason| reason.sentence.as_str());
        let reason = refusal.or_else(|| answer?.reason.as_deref());
        let told = answer.is_some() || reason.is_some();
        told.then(|| Self {
            set: answer.map(|answer| answer.set.as_slice()),
            refer: reason.is_some(),
            reason,
        })
    }
}

#[derive(Serialize)]
struct FailureLine<'a> {
    path: &'a str,
    error: &'a str,
    hint: Option<&'a str>,
}

/// `{"Normal": 0.07, "Tumor": 0.93}`, in label order.
struct Named<'a> {
    labels: &'a [String],
    probabilities: &'a [f32],
}

impl Serialize for Named<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.labels.iter().zip(self.probabilities))
    }
}

#[cfg(test)]
mod tests {
    use nephros_core::input_gate::ReasonCode;

    use super::*;

    #[test]
    fn keys_stand_in_the_order_of_the_contract() {
        let labels = ["Normal".to_owned(), "Tumor".to_owned()];
        let line = PredictionLine {
            path: "a.png",
            label: "Tumor",
            probability: 0.75,
            probabilities: Named { labels: &labels, probabilities: &[0.25, 0.75] },
            model: "m",
            milliseconds: 1.5,
            answer: None,
            reasons: None,
            similar: None,
        };
        let contract = r#"{"path":"a.png","label":"Tumor","probability":0.75,"probabilities":{"Normal":0.25,"Tumor":0.75},"model":"m","milliseconds":1.5}"#;
        assert_eq!(serde_json::to_string(&line).unwrap(), contract);
        let answer = Answer { set: labels.to_vec(), reason: Some("r".into()) };
        let line = PredictionLine { answer: AnswerKeys::of(Some(&answer), None), ..line };
        let after = r#","set":["Normal","Tumor"],"refer":true,"reason":"r"}"#;
        assert_eq!(
            serde_json::to_string(&line).unwrap(),
            format!("{}{after}", contract.strip_suffix('}').unwrap())
        );
        let similar = [Similar {
            path: "Tumor/b.png".into(),
            class: "Tumor".into(),
            patient: Some(3),
            group: None,
            distance: 0.5,
        }];
        let reasons = [Reason { code: ReasonCode::NotCt, sentence: "s".into() }];
        let line = PredictionLine {
            answer: AnswerKeys::of(Some(&answer), Some(&reasons[0])),
            reasons: Some(&reasons),
            similar: Some(&similar),
            ..line
        };
        let after = r#","set":["Normal","Tumor"],"refer":true,"reason":"s","reasons":[{"code":"not_ct","sentence":"s"}],"similar":[{"path":"Tumor/b.png","class":"Tumor","patient":3,"distance":0.5}]}"#;
        assert_eq!(
            serde_json::to_string(&line).unwrap(),
            format!("{}{after}", contract.strip_suffix('}').unwrap())
        );
        let line = FailureLine { path: "a.png", error: "e", hint: None };
        assert_eq!(serde_json::to_string(&line).unwrap(), r#"{"path":"a.png","error":"e","hint":null}"#);
    }
}
