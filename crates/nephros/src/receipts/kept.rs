//! The store of receipts behind the server's trait.

use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use nephros_core::digest::hex;
use nephros_server::{
    Feedback, HistoryEntry, HistoryPage, Ledger, LedgerError, LedgerFuture, PredictionRecord, Provenance,
    Verdict,
};
use nephros_store::{
    self as store, Entry, Model, NewPrediction, Opinion, Reason, ReceiptId, Store, StoreError,
};

/// Predictions that are answered once they are on the disk of the database.
pub struct Kept {
    store: Store,
    images: bool,
    /// Whether the last record or question failed.
    failing: AtomicBool,
}

impl Ledger for Kept {
    fn keeps_images(&self) -> bool {
        self.images
    }

    /// A store that failed has to write before it counts as well again: one whose disk is full reads on.
    fn check(&self) -> LedgerFuture<'_, ()> {
        Box::pin(async {
            let checked = if self.failing.load(Ordering::Acquire) {
                self.store.probe().await
            } else {
                self.store.checkpoint().await.map(drop)
            };
            self.failing.store(checked.is_err(), Ordering::Release);
            checked.map_err(refused)
        })
    }

    fn record<'a>(&'a self, record: &'a PredictionRecord) -> LedgerFuture<'a, String> {
        Box::pin(async {
            let recorded = self.store.record(prediction(record)).await;
            self.failing.store(recorded.is_err(), Ordering::Release);
            Ok(recorded.map_err(refused)?.id.to_string())
        })
    }

    fn history<'a>(&'a self, page: &'a HistoryPage) -> LedgerFuture<'a, Vec<HistoryEntry>> {
        Box::pin(async { self.page(page).await.map_err(refused) })
    }

    fn feedback<'a>(&'a self, receipt: &'a str, feedback: &'a Feedback) -> LedgerFuture<'a, ()> {
        Box::pin(async {
            let about: ReceiptId = receipt.parse().map_err(refused)?;
            let Feedback { verdict, label, comment, reader } = feedback.clone();
            let verdict = store::Verdict { opinion: opinion(verdict), label, reader, comment };
            let told = self.store.feedback(&about, verdict).await.map(drop).map_err(refused);
            if matches!(told, Err(LedgerError::Unavailable(_))) {
                self.failing.store(true, Ordering::Release);
            }
            told
        })
    }
}

impl Kept {
    /// Predictions in `store`, which keeps their images or not.
    pub fn new(store: Store, images: bool) -> Self {
        Self { store, images, failing: AtomicBool::new(false) }
    }

    /// The newest predictions that are not erased, with what was said about them.
    async fn page(&self, page: &HistoryPage) -> Result<Vec<HistoryEntry>, StoreError> {
        let before = page.before.as_deref().map(str::parse).transpose()?;
        let limit = u32::try_from(page.limit).unwrap_or(u32::MAX);
        let predictions = self.store.predictions(before.as_ref(), limit).await?;
        Ok(predictions
            .into_iter()
            .filter_map(|(entry, words)| listed(entry, words.into_iter().filter_map(told).collect()))
            .collect())
    }
}

/// What a receipt says about a model.
pub fn model(id: &str, provenance: Provenance, labels: &[String]) -> Model {
    let Provenance { bundle_sha256, preprocessing, engine } = provenance;
    Model { id: id.to_owned(), bundle_sha256, preprocessing, engine, labels: labels.to_vec() }
}

fn prediction(record: &PredictionRecord) -> NewPrediction {
    let reason = |reason: &nephros_core::input_gate::Reason| Reason {
        code: reason.code.name().to_owned(),
        sentence: reason.to_string(),
    };
    NewPrediction {
        subject: record.subject.clone(),
        image: record.image.to_vec(),
        model: model(&record.model, record.provenance.clone(), &record.labels),
        probabilities: record.probabilities.clone(),
        label: record.labels.get(record.top).cloned().unwrap_or_default(),
        refer: record.refer.clone(),
        reasons: record.reasons.iter().map(reason).collect(),
    }
}

/// A prediction of the log; `None` where what it said is erased.
fn listed(entry: Entry, feedback: Vec<Feedback>) -> Option<HistoryEntry> {
    let (model, details) = (entry.model?, entry.details?);
    let label = details.label?;
    let top = model.labels.iter().position(|name| *name == label)?;
    Some(HistoryEntry {
        receipt: entry.receipt.id.to_string(),
        time: Timestamp::from_microsecond(entry.receipt.time_us).ok()?.to_string(),
        model: model.id,
        probability: *details.probabilities.get(top)?,
        label,
        refer: details.refer,
        image_sha256: hex(&details.image_sha256?),
        feedback,
    })
}

/// What a reader said; `None` where it is erased.
fn told(entry: Entry) -> Option<Feedback> {
    let details = entry.details?;
    let verdict = match details.opinion? {
        Opinion::Agrees => Verdict::Agrees,
        Opinion::Disagrees => Verdict::Disagrees,
        Opinion::Corrects => Verdict::Corrects,
    };
    Some(Feedback { verdict, label: details.label, comment: details.comment, reader: details.reader })
}

fn opinion(verdict: Verdict) -> Opinion {
    match verdict {
        Verdict::Agrees => Opinion::Agrees,
        Verdict::Disagrees => Opinion::Disagrees,
        Verdict::Corrects => Opinion::Corrects,
    }
}

/// What a client may read of a failure. Values are checked before they come here.
fn refused(error: StoreError) -> LedgerError {
    match error {
        StoreError::UnknownReceipt { .. }
        | StoreError::Erased { .. }
        | StoreError::Invalid { field: "receipt", .. } => LedgerError::NoSuchReceipt,
        error => LedgerError::Unavailable(error.into()),
    }
}
