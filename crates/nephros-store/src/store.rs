//! The store as its callers see it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use sha2::{Digest as _, Sha256};
use sqlx::{AnyPool, Row as _};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::{
    append::Draft,
    chain::{self, Checkpoint},
    database::Database,
    erase::{Erase, Erased},
    error::StoreError,
    keys::{self, MasterKey},
    record::{Kind, NewPrediction, Opinion, Receipt, ReceiptId, Verdict, check},
    rows::DetailsRow,
    writer::{Job, SharedKey, Writer},
};

/// Records that wait for the writer; more wait for a place.
const QUEUE: usize = 1024;

/// How to open a store.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Where it is.
    pub database: Database,
    /// Whether it is made where there is none.
    pub create: bool,
    /// Whether the images of predictions are kept, encrypted; needs `master_key`.
    pub keep_images: bool,
    /// The key of the images.
    pub master_key: Option<MasterKey>,
    /// File that gets the [`Checkpoint`], at most a second late.
    pub checkpoint: Option<PathBuf>,
    /// How long a connection and a lock are waited for; a whole batch has twice that.
    pub patience: Duration,
}

impl StoreConfig {
    /// A database that is made if there is none, without images.
    pub fn new(database: Database) -> Self {
        Self {
            database,
            create: true,
            keep_images: false,
            master_key: None,
            checkpoint: None,
            patience: Duration::from_secs(5),
        }
    }
}

/// Receipts in a database. Cheap to clone; all clones share one writing task.
#[derive(Clone)]
pub struct Store {
    pub(crate) pool: AnyPool,
    pub(crate) database: Database,
    pub(crate) log: String,
    pub(crate) master: SharedKey,
    keep_images: bool,
    jobs: mpsc::Sender<Job>,
    writer: Arc<std::sync::Mutex<Option<JoinHandle<()>>>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("database", &self.database)
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Connects, brings the tables to this version, and starts the task that writes. Needs a tokio
    /// runtime.
    ///
    /// # Errors
    /// See [`StoreError`]; [`StoreError::NoMasterKey`] where images are to be kept without a key.
    pub async fn open(config: StoreConfig) -> Result<Self, StoreError> {
        let StoreConfig { database, create, keep_images, master_key, checkpoint, patience } = config;
        if keep_images && master_key.is_none() {
            return Err(StoreError::NoMasterKey);
        }
        let pool = database.connect(create, patience).await?;
        let head = sqlx::query("SELECT log, master FROM receipt_head").fetch_one(&pool).await?;
        let used: Option<String> = head.try_get("master")?;
        if let (Some(expected), Some(key)) = (used, &master_key)
            && expected != key.fingerprint()
        {
            return Err(StoreError::OtherMasterKey { expected, got: key.fingerprint() });
        }
        let log = chain::hex(head.try_get("log")?);
        let master: SharedKey = Arc::new(std::sync::RwLock::new(master_key));
        let (jobs, received) = mpsc::channel(QUEUE);
        let writer = Writer {
            database: database.clone(),
            pool: pool.clone(),
            log: log.clone(),
            master: Arc::clone(&master),
            patience,
            checkpoint,
        };
        let writer = Arc::new(std::sync::Mutex::new(Some(tokio::spawn(writer.run(received)))));
        Ok(Self { pool, database, log, master, keep_images, jobs, writer })
    }

    /// Finishes what was asked for and closes the database; for the last clone.
    pub async fn close(self) {
        let writer = self.writer.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        drop(self.jobs);
        if let Some(writer) = writer {
            // It ends without a panic, or its panic was reported when it happened.
            drop(writer.await);
        }
    }

    /// Records a prediction; when this returns a receipt, it is on the disk of the database.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn record(&self, prediction: NewPrediction) -> Result<Receipt, StoreError> {
        let draft = draft(prediction, self.keep_images)?;
        self.ask(|reply| Job::Append(Box::new(draft), reply)).await
    }

    /// Records what a reader says about the prediction with that receipt.
    ///
    /// # Errors
    /// See [`StoreError`]; [`StoreError::UnknownReceipt`] and [`StoreError::Erased`] where there is none.
    pub async fn feedback(&self, about: &ReceiptId, verdict: Verdict) -> Result<Receipt, StoreError> {
        let Verdict { opinion, label, reader, comment } = verdict;
        if (opinion == Opinion::Corrects) != label.is_some() {
            let expected = "the right class, for a correction and only there";
            return Err(StoreError::Invalid { field: "label", expected });
        }
        let fields = [("label", &label), ("reader", &reader), ("comment", &comment)];
        fields.iter().try_for_each(|(field, text)| check(field, text.as_deref().unwrap_or_default()))?;
        let details = DetailsRow {
            salt: keys::random::<32>()?.to_vec(),
            label,
            verdict: Some(opinion.as_str().to_owned()),
            reader,
            comment,
            ..DetailsRow::default()
        };
        let mut draft = Draft::new(Kind::Feedback, Some(details))?;
        draft.row.about = Some(about.to_string());
        self.ask(|reply| Job::Append(Box::new(draft), reply)).await
    }

    /// Deletes details and images. The log keeps its entries and gets one that says what was erased, so
    /// that it still verifies.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn erase(&self, what: Erase) -> Result<Erased, StoreError> {
        self.ask(|reply| Job::Erase(what, reply)).await
    }

    /// Wraps the keys of all subjects by another master key; gives their number. Images stay as they are.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn rotate_master_key(&self, new: MasterKey) -> Result<u64, StoreError> {
        self.ask(|reply| Job::Rotate(new, reply)).await
    }

    /// Where the log ends now.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn checkpoint(&self) -> Result<Checkpoint, StoreError> {
        let row = sqlx::query("SELECT position, hash FROM receipt_head").fetch_one(&self.pool).await?;
        let position: i64 = row.try_get("position")?;
        let hash: Vec<u8> = row.try_get("hash")?;
        let unreadable = |column| StoreError::Unreadable { position, column };
        Ok(Checkpoint {
            log: self.log.clone(),
            position: u64::try_from(position).map_err(|_| unreadable("head position"))?,
            hash: hash.try_into().map_err(|_| unreadable("head hash"))?,
        })
    }

    /// Whether a record could be written now, found out by writing what changes nothing. Where records are few
    /// this costs more than one.
    ///
    /// # Errors
    /// What a record would get; see [`StoreError`].
    pub async fn probe(&self) -> Result<(), StoreError> {
        self.ask(Job::Probe).await
    }

    async fn ask<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Job,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(job(reply)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

/// Checked and hashed, by the caller's task and not by the one that writes.
fn draft(prediction: NewPrediction, keep_image: bool) -> Result<Draft, StoreError> {
    let NewPrediction { subject, image, model, probabilities, label, refer, reasons } = prediction;
    let invalid = |field, expected| StoreError::Invalid { field, expected };
    if subject.as_deref() == Some("") {
        return Err(invalid("subject", "a name, or none"));
    }
    if probabilities.len() != model.labels.len() {
        return Err(invalid("probabilities", "one for each label"));
    }
    let (labels, reasons) = (json(&model.labels)?, json(&reasons)?);
    let texts = [
        ("subject", subject.as_deref()),
        ("label", Some(label.as_str())),
        ("refer", refer.as_deref()),
        ("reasons", Some(&reasons)),
        ("model", Some(&model.id)),
        ("bundle", Some(&model.bundle_sha256)),
        ("preprocessing", Some(&model.preprocessing)),
        ("engine", Some(&model.engine)),
        ("labels", Some(&labels)),
    ];
    texts.iter().try_for_each(|(field, text)| check(field, text.unwrap_or_default()))?;
    let details = DetailsRow {
        salt: keys::random::<32>()?.to_vec(),
        subject,
        image_sha256: Some(Sha256::digest(&image).to_vec()),
        label: Some(label),
        probabilities: Some(probabilities.iter().flat_map(|value| value.to_le_bytes()).collect()),
        refer,
        reasons: Some(reasons),
        ..DetailsRow::default()
    };
    let mut draft = Draft::new(Kind::Prediction, Some(details))?;
    draft.row.model = Some(model.id);
    draft.row.bundle = Some(model.bundle_sha256);
    draft.row.preprocessing = Some(model.preprocessing);
    draft.row.engine = Some(model.engine);
    draft.row.labels = Some(labels);
    draft.image = keep_image.then_some(image);
    Ok(draft)
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|_| StoreError::Invalid { field: "reasons", expected: "texts" })
}
