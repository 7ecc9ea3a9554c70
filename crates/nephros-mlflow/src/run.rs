//! A run, and what is logged to it.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

/// Most characters of a parameter's value; MLflow refuses or cuts longer ones.
pub const PARAM_LIMIT: usize = 6000;
/// Most characters of a tag's value: what MLflow 2 takes too.
pub const TAG_LIMIT: usize = 5000;
/// Most characters of a key.
pub const KEY_LIMIT: usize = 250;
/// Most characters of a dataset's digest.
pub const DIGEST_LIMIT: usize = 36;

/// Milliseconds since 1970, the unit of every time in MLflow.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The first `limit` characters; the last of them is `…` where something was cut off.
pub fn shortened(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    text.chars().take(limit - 1).chain(['…']).collect()
}

/// One value of a metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// Name.
    pub key: String,
    /// Value; NaN and the infinities are allowed.
    #[serde(serialize_with = "write_float", deserialize_with = "read_float")]
    pub value: f64,
    /// When, in milliseconds since 1970.
    pub timestamp: i64,
    /// Epoch or other count.
    #[serde(default)]
    pub step: i64,
}

/// A parameter or a tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Name.
    pub key: String,
    /// Value.
    #[serde(default)]
    pub value: String,
}

impl Entry {
    /// A name and its value.
    pub fn new(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { key: key.into(), value: value.into() }
    }
}

/// What is logged at once.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// Metrics.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Metric>,
    /// Parameters; they never change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<Entry>,
    /// Tags; the last value counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Entry>,
}

impl Batch {
    /// Whether there is nothing to log.
    pub fn is_empty(&self) -> bool {
        self.metrics.is_empty() && self.params.is_empty() && self.tags.is_empty()
    }

    /// With keys and values as long as MLflow takes them.
    #[must_use]
    pub fn within_limits(mut self) -> Self {
        for metric in &mut self.metrics {
            metric.key = shortened(&metric.key, KEY_LIMIT);
        }
        for (entries, limit) in [(&mut self.params, PARAM_LIMIT), (&mut self.tags, TAG_LIMIT)] {
            for entry in entries {
                entry.key = shortened(&entry.key, KEY_LIMIT);
                entry.value = shortened(&entry.value, limit);
            }
        }
        self
    }
}

/// Data that a run used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetInput {
    /// Name.
    pub name: String,
    /// Digest, of at most [`DIGEST_LIMIT`] characters.
    pub digest: String,
    /// Kind of `source`, such as `local` or `http`.
    pub source_type: String,
    /// Where it is from, as JSON.
    pub source: String,
    /// What there is in it, as JSON.
    pub profile: String,
    /// What it was used for, such as `training`.
    pub context: String,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum RunStatus {
    /// Not begun.
    Scheduled,
    /// Under way, or ended without saying so.
    Running,
    /// Done.
    Finished,
    /// Ended by an error.
    Failed,
    /// Ended by its user.
    Killed,
}

impl RunStatus {
    /// MLflow's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scheduled => "SCHEDULED",
            Self::Running => "RUNNING",
            Self::Finished => "FINISHED",
            Self::Failed => "FAILED",
            Self::Killed => "KILLED",
        }
    }

    /// The status of MLflow's word.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Scheduled, Self::Running, Self::Finished, Self::Failed, Self::Killed]
            .into_iter()
            .find(|status| status.name() == name)
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A run to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRun {
    /// Name of the experiment; it is made if there is none.
    pub experiment: String,
    /// Name of the run.
    pub name: String,
    /// Who runs it.
    pub user: String,
    /// Program that runs.
    pub source: String,
    /// First tags, beside those of MLflow itself.
    pub tags: Vec<Entry>,
}

impl NewRun {
    /// All tags of the run: those that every MLflow client sets, then the others.
    pub(crate) fn all_tags(&self) -> Vec<Entry> {
        let own = [
            ("mlflow.runName", &*self.name),
            ("mlflow.user", &*self.user),
            ("mlflow.source.name", &*self.source),
            ("mlflow.source.type", "LOCAL"),
        ];
        own.map(|(key, value)| Entry::new(key, value)).into_iter().chain(self.tags.iter().cloned()).collect()
    }
}

/// A run without what was logged to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunInfo {
    /// 32 hexadecimal digits.
    pub id: String,
    /// Name of its experiment.
    pub experiment: String,
    /// Name.
    pub name: String,
    /// Who ran it.
    pub user: String,
    /// How far it is.
    pub status: RunStatus,
    /// Begin, in milliseconds since 1970.
    pub start_ms: i64,
    /// End, in milliseconds since 1970.
    pub end_ms: Option<i64>,
    /// Folder of its artifacts.
    pub artifact_uri: String,
}

/// A run with all that was logged to it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunRecord {
    /// The run.
    #[serde(flatten)]
    pub info: RunInfo,
    /// Parameters, sorted by key.
    pub params: Vec<Entry>,
    /// Latest value of each metric, sorted by key.
    pub metrics: Vec<Metric>,
    /// Tags, sorted by key.
    pub tags: Vec<Entry>,
    /// Data used.
    pub datasets: Vec<DatasetInput>,
    /// Ids of the models that came out.
    pub models: Vec<String>,
}

impl RunRecord {
    /// Value of a tag.
    pub fn tag(&self, key: &str) -> Option<&str> {
        self.tags.iter().find(|tag| tag.key == key).map(|tag| tag.value.as_str())
    }

    /// Latest value of a metric.
    pub fn metric(&self, key: &str) -> Option<f64> {
        self.metrics.iter().find(|metric| metric.key == key).map(|metric| metric.value)
    }
}

/// JSON has no NaN and no infinities; MLflow takes them as texts.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn write_float<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.is_nan() {
        serializer.serialize_str("NaN")
    } else if value.is_infinite() {
        serializer.serialize_str(if *value > 0.0 { "Infinity" } else { "-Infinity" })
    } else {
        serializer.serialize_f64(*value)
    }
}

fn read_float<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let float = match value.as_str() {
        Some("NaN") => Some(f64::NAN),
        Some("Infinity") => Some(f64::INFINITY),
        Some("-Infinity") => Some(f64::NEG_INFINITY),
        _ => value.as_f64(),
    };
    float.ok_or_else(|| de::Error::custom(format!("expected a number, `NaN` or `Infinity`, got `{value}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_json_cannot_say_is_a_text() {
        for (value, text) in
            [(0.5, "0.5"), (f64::INFINITY, "\"Infinity\""), (f64::NEG_INFINITY, "\"-Infinity\"")]
        {
            let metric = Metric { key: "loss".into(), value, timestamp: 7, step: 1 };
            let json = serde_json::to_string(&metric).unwrap();
            assert_eq!(json, format!("{{\"key\":\"loss\",\"value\":{text},\"timestamp\":7,\"step\":1}}"));
            assert_eq!(serde_json::from_str::<Metric>(&json).unwrap(), metric);
        }
        let nan: Metric = serde_json::from_str(r#"{"key":"a","value":"NaN","timestamp":1}"#).unwrap();
        assert!(nan.value.is_nan() && nan.step == 0);
        assert!(serde_json::from_str::<Metric>(r#"{"key":"a","value":"many","timestamp":1}"#).is_err());
    }

    #[test]
    fn long_values_are_cut_at_a_character() {
        assert_eq!(shortened("kidney", 6), "kidney");
        assert_eq!(shortened("Nierenzüge", 9), "Nierenzü…");
    }
}
