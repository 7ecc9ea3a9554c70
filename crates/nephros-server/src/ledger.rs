//! What is kept of predictions, as the service needs it.

use std::{future::Future, pin::Pin, time::SystemTime};

use axum::body::Bytes;
use nephros_core::input_gate::Reason;
use nephros_serving::Provenance;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::BoxError;

/// A future that a trait object gives.
pub type LedgerFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, LedgerError>> + Send + 'a>>;

/// Why a ledger does not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It cannot work now: a full disk, a database that is down. It will again by itself.
    #[error("the store of predictions cannot be used now")]
    Unavailable(#[source] BoxError),
    /// No prediction has this receipt.
    #[error("no prediction has this receipt")]
    NoSuchReceipt,
}

/// Keeps predictions and what readers say about them.
pub trait Ledger: Send + Sync {
    /// Whether the images are kept with the predictions; such a ledger encrypts them.
    fn keeps_images(&self) -> bool;

    /// Whether a prediction could be recorded now, as far as that can be told without one.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    fn check(&self) -> LedgerFuture<'_, ()>;

    /// Stores a prediction for good and gives its receipt. The prediction is sent only after that.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    fn record<'a>(&'a self, record: &'a PredictionRecord) -> LedgerFuture<'a, String>;

    /// The newest predictions first.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    fn history<'a>(&'a self, page: &'a HistoryPage) -> LedgerFuture<'a, Vec<HistoryEntry>>;

    /// Stores what a reader says about a prediction.
    ///
    /// # Errors
    /// See [`LedgerError`].
    fn feedback<'a>(&'a self, receipt: &'a str, feedback: &'a Feedback) -> LedgerFuture<'a, ()>;
}

/// A prediction, with what it takes to repeat it.
#[derive(Debug, Clone)]
pub struct PredictionRecord {
    /// When it was made.
    pub time: SystemTime,
    /// Id of the request.
    pub request: String,
    /// Whose image it is: a pseudonym that the client chose.
    pub subject: Option<String>,
    /// SHA-256 of the encoded image, in hexadecimal.
    pub image_sha256: String,
    /// The encoded image, for a ledger that keeps images.
    pub image: Bytes,
    /// What the model is called.
    pub model: String,
    /// What it takes to repeat the prediction.
    pub provenance: Provenance,
    /// Labels in the model's order.
    pub labels: Vec<String>,
    /// Probability of each label.
    pub probabilities: Vec<f32>,
    /// Index of the most probable label.
    pub top: usize,
    /// Why a radiologist has to look.
    pub refer: Option<String>,
    /// What the input gate says.
    pub reasons: Vec<Reason>,
}

/// Which part of the history is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryPage {
    /// Entries, at most.
    pub limit: usize,
    /// Receipt before which they were made; the newest where there is none.
    pub before: Option<String>,
}

/// A prediction that was recorded.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct HistoryEntry {
    /// Its receipt.
    pub receipt: String,
    /// When it was made, RFC 3339.
    pub time: String,
    /// What the model is called.
    pub model: String,
    /// The most probable label.
    pub label: String,
    /// Its probability.
    pub probability: f32,
    /// Why a radiologist has to look.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub refer: Option<String>,
    /// SHA-256 of the encoded image.
    pub image_sha256: String,
    /// What readers said, the first first.
    pub feedback: Vec<Feedback>,
}

/// What a reader says about a prediction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Feedback {
    /// Whether the reader is of the same opinion.
    pub verdict: Verdict,
    /// The right label, where the reader corrects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, max_length = 200)]
    pub label: Option<String>,
    /// In the reader's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, max_length = 2000)]
    pub comment: Option<String>,
    /// Who says so: a name or a number, not blank and without control characters. An erasure of the prediction
    /// takes it along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1, max_length = 200)]
    pub reader: Option<String>,
}

/// Opinion of a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The label is right.
    Agrees,
    /// The label is wrong.
    Disagrees,
    /// Another label, or this one for sure.
    Corrects,
}
