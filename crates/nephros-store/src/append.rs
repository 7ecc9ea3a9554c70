//! Writing entries, inside a transaction that holds the head of the log.

use sqlx::Row as _;

use crate::{
    chain,
    error::StoreError,
    keys::{DataKey, MasterKey, Sealed, random},
    record::{Kind, Receipt, ReceiptId},
    rows::{DetailsRow, EntryRow},
    transaction::Tx,
};

/// Where the log ends. Whoever holds it is the only writer, whatever process the others are in.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub position: i64,
    pub hash: Vec<u8>,
    pub master: Option<String>,
}

impl Head {
    /// An update, even of nothing, takes the lock in PostgreSQL, too, and reads the latest row.
    pub(crate) async fn lock(tx: &mut Tx) -> Result<Self, StoreError> {
        let row = sqlx::query(
            "UPDATE receipt_head SET position = position WHERE one = 1 RETURNING position, hash, master",
        )
        .fetch_one(&mut **tx)
        .await?;
        Ok(Self {
            position: row.try_get("position")?,
            hash: row.try_get("hash")?,
            master: row.try_get("master")?,
        })
    }

    pub(crate) async fn store(&self, tx: &mut Tx) -> Result<(), StoreError> {
        sqlx::query("UPDATE receipt_head SET position = $1, hash = $2, master = $3 WHERE one = 1")
            .bind(self.position)
            .bind(self.hash.clone())
            .bind(self.master.clone())
            .execute(&mut **tx)
            .await?;
        Ok(())
    }

    /// That `master` is the key in use, or that there is none yet.
    pub(crate) fn check_master(&self, master: &MasterKey) -> Result<(), StoreError> {
        let got = master.fingerprint();
        match &self.master {
            Some(expected) if *expected != got => {
                Err(StoreError::OtherMasterKey { expected: expected.clone(), got })
            }
            _ => Ok(()),
        }
    }
}

/// An entry that has no place in the log yet.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub kind: Kind,
    pub row: EntryRow,
    pub details: Option<DetailsRow>,
    pub image: Option<Vec<u8>>,
}

impl Draft {
    pub(crate) fn new(kind: Kind, details: Option<DetailsRow>) -> Result<Self, StoreError> {
        let id = ReceiptId::random()?.to_string();
        let row = EntryRow { id, kind: kind.as_str().to_owned(), time_us: now_us(), ..EntryRow::default() };
        Ok(Self { kind, row, details, image: None })
    }

    /// An entry that says what was done to others.
    pub(crate) fn note(kind: Kind, note: &serde_json::Value) -> Result<Self, StoreError> {
        let mut draft = Self::new(kind, None)?;
        draft.row.note = Some(note.to_string());
        Ok(draft)
    }
}

/// Microseconds since 1970; a clock before that counts as then.
pub(crate) fn now_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Appends an entry. An error that [`StoreError::is_refusal`] tells has written nothing.
pub(crate) async fn append(
    tx: &mut Tx,
    head: &mut Head,
    draft: Draft,
    master: Option<&MasterKey>,
) -> Result<Receipt, StoreError> {
    let Draft { kind, mut row, mut details, image } = draft;
    if kind == Kind::Feedback {
        let about = row.about.clone().unwrap_or_default();
        let subject = subject_of(tx, about).await?;
        if let Some(details) = &mut details {
            details.subject = subject;
        }
    }
    if let (Some(image), Some(details)) = (image, &mut details) {
        let master = master.ok_or(StoreError::NoMasterKey)?;
        head.check_master(master)?;
        if head.master.is_none() {
            adopt(tx, head, master).await?;
        }
        let (key_id, sealed) = seal(tx, master, details.subject.as_deref(), &image, &row.id).await?;
        details.image_seal = Some(sealed.digest().to_vec());
        insert_image(tx, head.position + 1, key_id, sealed).await?;
    }
    row.position = head.position + 1;
    row.commitment = details.as_ref().map(|details| chain::commitment(details).to_vec());
    row.previous.clone_from(&head.hash);
    row.hash = chain::entry(&row).to_vec();
    if let Some(details) = details {
        insert_details(tx, row.position, details).await?;
    }
    let receipt = Receipt {
        id: row.id.parse()?,
        position: row.position.unsigned_abs(),
        time_us: row.time_us,
        hash: row.hash.clone().try_into().unwrap_or_default(),
    };
    (head.position, head.hash) = (row.position, row.hash.clone());
    insert_entry(tx, row).await?;
    Ok(receipt)
}

/// The subject of a prediction whose details are there.
async fn subject_of(tx: &mut Tx, id: String) -> Result<Option<String>, StoreError> {
    let found = sqlx::query(
        "SELECT d.position AS details, d.subject FROM receipt_entries e \
         LEFT JOIN receipt_details d ON d.position = e.position WHERE e.id = $1 AND e.kind = 'prediction'",
    )
    .bind(id.clone())
    .fetch_optional(&mut **tx)
    .await?;
    let row = found.ok_or_else(|| StoreError::UnknownReceipt { id: id.clone() })?;
    let details: Option<i64> = row.try_get("details")?;
    details.ok_or(StoreError::Erased { id })?;
    Ok(row.try_get("subject")?)
}

/// Writes down which master key is in use, before its first use.
async fn adopt(tx: &mut Tx, head: &mut Head, master: &MasterKey) -> Result<(), StoreError> {
    let fingerprint = master.fingerprint();
    let note = Draft::note(Kind::Key, &serde_json::json!({ "master": fingerprint }))?;
    Box::pin(append(tx, head, note, None)).await?;
    head.master = Some(fingerprint);
    Ok(())
}

/// Encrypts an image with the key of its subject, which is made if there is none.
async fn seal(
    tx: &mut Tx,
    master: &MasterKey,
    subject: Option<&str>,
    image: &[u8],
    receipt: &str,
) -> Result<(Vec<u8>, Sealed), StoreError> {
    let known = match subject {
        Some(subject) => {
            let query = "SELECT id, nonce, wrapped FROM receipt_keys WHERE subject = $1";
            sqlx::query(query).bind(subject.to_owned()).fetch_optional(&mut **tx).await?
        }
        None => None,
    };
    if let Some(row) = known {
        let id: Vec<u8> = row.try_get("id")?;
        let wrapped = Sealed { nonce: row.try_get("nonce")?, bytes: row.try_get("wrapped")? };
        let sealed = master.unwrap(&wrapped, &id)?.seal_image(image, receipt, &id)?;
        return Ok((id, sealed));
    }
    let (id, key) = (random::<16>()?.to_vec(), DataKey::random()?);
    let wrapped = master.wrap(&key, &id)?;
    let sealed = key.seal_image(image, receipt, &id)?;
    sqlx::query("INSERT INTO receipt_keys (id, subject, nonce, wrapped) VALUES ($1, $2, $3, $4)")
        .bind(id.clone())
        .bind(subject.map(str::to_owned))
        .bind(wrapped.nonce)
        .bind(wrapped.bytes)
        .execute(&mut **tx)
        .await?;
    Ok((id, sealed))
}

async fn insert_image(tx: &mut Tx, position: i64, key_id: Vec<u8>, sealed: Sealed) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO receipt_images (position, key_id, nonce, sealed) VALUES ($1, $2, $3, $4)")
        .bind(position)
        .bind(key_id)
        .bind(sealed.nonce)
        .bind(sealed.bytes)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

async fn insert_details(tx: &mut Tx, position: i64, row: DetailsRow) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO receipt_details (position, salt, subject, image_sha256, image_seal, label, probabilities, \
         refer, reasons, verdict, reader, comment) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(position)
    .bind(row.salt)
    .bind(row.subject)
    .bind(row.image_sha256)
    .bind(row.image_seal)
    .bind(row.label)
    .bind(row.probabilities)
    .bind(row.refer)
    .bind(row.reasons)
    .bind(row.verdict)
    .bind(row.reader)
    .bind(row.comment)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn insert_entry(tx: &mut Tx, row: EntryRow) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO receipt_entries (position, id, kind, time_us, model, bundle, preprocessing, engine, labels, \
         about, note, commitment, previous, hash) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
    )
    .bind(row.position)
    .bind(row.id)
    .bind(row.kind)
    .bind(row.time_us)
    .bind(row.model)
    .bind(row.bundle)
    .bind(row.preprocessing)
    .bind(row.engine)
    .bind(row.labels)
    .bind(row.about)
    .bind(row.note)
    .bind(row.commitment)
    .bind(row.previous)
    .bind(row.hash)
    .execute(&mut **tx)
    .await?;
    Ok(())
}
