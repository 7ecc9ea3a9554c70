//! What is recorded, and what is read back.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize, Serializer};

use crate::{
    chain::{self, Hash},
    error::StoreError,
    keys::{self, KeyError},
    rows::{DetailsRow, EntryRow},
};

/// Names a record: 32 hexadecimal digits, random.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct ReceiptId(String);

impl ReceiptId {
    pub(crate) fn random() -> Result<Self, KeyError> {
        Ok(Self(chain::hex(&keys::random::<16>()?)))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ReceiptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ReceiptId {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if text.len() == 32 && digits {
            Ok(Self(text.to_owned()))
        } else {
            Err(StoreError::Invalid { field: "receipt", expected: "32 hexadecimal digits" })
        }
    }
}

/// That something was recorded, and where in the log. Whoever keeps it can show later that the log was
/// changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// Its name.
    pub id: ReceiptId,
    /// Its place in the log, from 1.
    pub position: u64,
    /// Microseconds since 1970, UTC.
    pub time_us: i64,
    /// The hash of the log up to it.
    #[serde(serialize_with = "as_hex")]
    pub hash: Hash,
}

fn as_hex<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&chain::hex(bytes))
}

#[expect(clippy::ref_option, reason = "serde hands a field over like this")]
fn as_hex_if<S: Serializer>(bytes: &Option<Hash>, serializer: S) -> Result<S::Ok, S::Error> {
    bytes.as_ref().map(|bytes| chain::hex(bytes)).serialize(serializer)
}

/// The model of a prediction, as far as it takes to repeat it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Model {
    /// Its name, such as `compact-1a2b3c4d-int8`.
    pub id: String,
    /// SHA-256 of its `bundle.json`, which holds the hashes of all else, or of the Keras file;
    /// hexadecimal.
    pub bundle_sha256: String,
    /// What happens to an image before the network, as JSON.
    pub preprocessing: String,
    /// What computed it: version and instruction set, on which the last bits may depend.
    pub engine: String,
    /// Names of the classes, in the order of the probabilities.
    pub labels: Vec<String>,
}

/// What speaks against giving an image a label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Such as `not_ct`.
    pub code: String,
    /// For a reader.
    pub sentence: String,
}

/// A prediction to record.
#[derive(Debug, Clone, PartialEq)]
pub struct NewPrediction {
    /// Whose image it is: a pseudonym or number that the caller chose. Without one the image has a key of
    /// its own, and is erased by its receipt.
    pub subject: Option<String>,
    /// The encoded image as it came in. Its hash is recorded; itself only if the store keeps images.
    pub image: Vec<u8>,
    /// What predicted.
    pub model: Model,
    /// Exactly as they came out of the model, in the order of the labels.
    pub probabilities: Vec<f32>,
    /// What was answered.
    pub label: String,
    /// Why a radiologist has to look, where one has to.
    pub refer: Option<String>,
    /// What the input gate said.
    pub reasons: Vec<Reason>,
}

/// What a reader says about a prediction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the reader agrees.
    pub opinion: Opinion,
    /// The right class, for [`Opinion::Corrects`].
    pub label: Option<String>,
    /// Who says so.
    pub reader: Option<String>,
    /// In the reader's words.
    pub comment: Option<String>,
}

/// Whether a reader agrees with a prediction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Opinion {
    /// The label is right.
    Agrees,
    /// The label is wrong.
    Disagrees,
    /// Another label is right.
    Corrects,
}

impl Opinion {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Agrees => "agrees",
            Self::Disagrees => "disagrees",
            Self::Corrects => "corrects",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Agrees, Self::Disagrees, Self::Corrects].into_iter().find(|opinion| opinion.as_str() == text)
    }
}

/// What an entry of the log is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An image was classified.
    Prediction,
    /// A reader said something about a prediction.
    Feedback,
    /// Details or images of earlier entries were erased.
    Erasure,
    /// The master key is another one.
    Key,
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Prediction => "prediction",
            Self::Feedback => "feedback",
            Self::Erasure => "erasure",
            Self::Key => "key",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Prediction, Self::Feedback, Self::Erasure, Self::Key]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// Its place in the log, its time and its hash.
    #[serde(flatten)]
    pub receipt: Receipt,
    /// What it is about.
    pub kind: Kind,
    /// What predicted, of a prediction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<Model>,
    /// The prediction that feedback is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub about: Option<ReceiptId>,
    /// What was erased or changed, as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// What is about a person; `None` after an erasure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
}

/// What an erasure deletes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Details {
    /// Whose image it is.
    pub subject: Option<String>,
    /// SHA-256 of the encoded image.
    #[serde(serialize_with = "as_hex_if", skip_serializing_if = "Option::is_none")]
    pub image_sha256: Option<Hash>,
    /// Whether the image was kept when it came; it may have been pruned since.
    pub image_kept: bool,
    /// What was answered, or the class that a reader says is right.
    pub label: Option<String>,
    /// As they came out of the model, in the order of its labels; empty for feedback.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub probabilities: Vec<f32>,
    /// Why a radiologist has to look.
    pub refer: Option<String>,
    /// What the input gate said.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
    /// Whether the reader agrees, of feedback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opinion: Option<Opinion>,
    /// Who says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reader: Option<String>,
    /// In the reader's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

impl Entry {
    pub(crate) fn from_rows(row: EntryRow, details: Option<DetailsRow>) -> Result<Self, StoreError> {
        let position = row.position;
        let bad = |column| StoreError::Unreadable { position, column };
        let labels =
            row.labels.as_deref().map(serde_json::from_str).transpose().map_err(|_| bad("labels"))?;
        let parts = (row.model, row.bundle, row.preprocessing, row.engine, labels);
        let model = match parts {
            (Some(id), Some(bundle_sha256), Some(preprocessing), Some(engine), Some(labels)) => {
                Some(Model { id, bundle_sha256, preprocessing, engine, labels })
            }
            _ => None,
        };
        Ok(Self {
            receipt: Receipt {
                id: row.id.parse().map_err(|_| bad("id"))?,
                position: u64::try_from(position).map_err(|_| bad("position"))?,
                time_us: row.time_us,
                hash: row.hash.try_into().map_err(|_| bad("hash"))?,
            },
            kind: Kind::parse(&row.kind).ok_or_else(|| bad("kind"))?,
            model,
            about: row.about.map(|id| id.parse()).transpose().map_err(|_| bad("about"))?,
            note: row.note,
            details: details.map(|details| Details::from_row(details, &bad)).transpose()?,
        })
    }
}

impl Details {
    fn from_row(row: DetailsRow, bad: &dyn Fn(&'static str) -> StoreError) -> Result<Self, StoreError> {
        let image_sha256 =
            row.image_sha256.map(Hash::try_from).transpose().map_err(|_| bad("image_sha256"))?;
        let bits = row.probabilities.unwrap_or_default();
        let (floats, rest) = bits.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(bad("probabilities"));
        }
        let reasons = row.reasons.as_deref().map(serde_json::from_str).transpose();
        let opinion = row.verdict.map(|text| Opinion::parse(&text).ok_or_else(|| bad("verdict")));
        Ok(Self {
            subject: row.subject,
            image_sha256,
            image_kept: row.image_seal.is_some(),
            label: row.label,
            probabilities: floats.iter().map(|bits| f32::from_le_bytes(*bits)).collect(),
            refer: row.refer,
            reasons: reasons.map_err(|_| bad("reasons"))?.unwrap_or_default(),
            opinion: opinion.transpose()?,
            reader: row.reader,
            comment: row.comment,
        })
    }
}

/// Longest text that is stored, in bytes.
const TEXT: usize = 64 << 10;

/// Refuses what PostgreSQL cannot hold, on SQLite too.
pub(crate) fn check(field: &'static str, text: &str) -> Result<(), StoreError> {
    if text.len() > TEXT {
        return Err(StoreError::Invalid { field, expected: "at most 65536 bytes" });
    }
    if text.contains('\0') {
        return Err(StoreError::Invalid { field, expected: "a text without zero bytes" });
    }
    Ok(())
}
