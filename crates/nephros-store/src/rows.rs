//! Rows as the database holds them.

use sqlx::{Row as _, any::AnyRow};

use crate::keys::Sealed;

/// Columns of [`EntryRow`].
pub(crate) const ENTRY: &str = "e.position, e.id, e.kind, e.time_us, e.model, e.bundle, e.preprocessing, e.engine, \
    e.labels, e.about, e.note, e.commitment, e.previous, e.hash";

/// Columns of [`DetailsRow`], of the join with a table `d`.
pub(crate) const DETAILS: &str = "d.salt, d.subject, d.image_sha256, d.image_seal, d.label, d.probabilities, \
    d.refer, d.reasons, d.verdict, d.reader, d.comment";

/// A row of `receipt_entries`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct EntryRow {
    pub position: i64,
    pub id: String,
    pub kind: String,
    pub time_us: i64,
    pub model: Option<String>,
    pub bundle: Option<String>,
    pub preprocessing: Option<String>,
    pub engine: Option<String>,
    pub labels: Option<String>,
    pub about: Option<String>,
    pub note: Option<String>,
    pub commitment: Option<Vec<u8>>,
    pub previous: Vec<u8>,
    pub hash: Vec<u8>,
}

impl EntryRow {
    pub(crate) fn read(row: &AnyRow) -> sqlx::Result<Self> {
        Ok(Self {
            position: row.try_get("position")?,
            id: row.try_get("id")?,
            kind: row.try_get("kind")?,
            time_us: row.try_get("time_us")?,
            model: row.try_get("model")?,
            bundle: row.try_get("bundle")?,
            preprocessing: row.try_get("preprocessing")?,
            engine: row.try_get("engine")?,
            labels: row.try_get("labels")?,
            about: row.try_get("about")?,
            note: row.try_get("note")?,
            commitment: row.try_get("commitment")?,
            previous: row.try_get("previous")?,
            hash: row.try_get("hash")?,
        })
    }
}

/// A row of `receipt_details`, without its position.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DetailsRow {
    pub salt: Vec<u8>,
    pub subject: Option<String>,
    pub image_sha256: Option<Vec<u8>>,
    pub image_seal: Option<Vec<u8>>,
    pub label: Option<String>,
    pub probabilities: Option<Vec<u8>>,
    pub refer: Option<String>,
    pub reasons: Option<String>,
    pub verdict: Option<String>,
    pub reader: Option<String>,
    pub comment: Option<String>,
}

impl DetailsRow {
    /// `None` where a join found no row.
    pub(crate) fn read(row: &AnyRow) -> sqlx::Result<Option<Self>> {
        let Some(salt) = row.try_get("salt")? else { return Ok(None) };
        Ok(Some(Self {
            salt,
            subject: row.try_get("subject")?,
            image_sha256: row.try_get("image_sha256")?,
            image_seal: row.try_get("image_seal")?,
            label: row.try_get("label")?,
            probabilities: row.try_get("probabilities")?,
            refer: row.try_get("refer")?,
            reasons: row.try_get("reasons")?,
            verdict: row.try_get("verdict")?,
            reader: row.try_get("reader")?,
            comment: row.try_get("comment")?,
        }))
    }
}

/// A row of `receipt_images` with its key, which may be gone.
#[derive(Debug, Clone)]
pub(crate) struct ImageRow {
    pub key_id: Vec<u8>,
    pub sealed: Sealed,
    pub wrapped: Option<Sealed>,
    pub subject: Option<String>,
}

/// Reads the image at a position.
pub(crate) const IMAGE: &str = "SELECT i.key_id, i.nonce, i.sealed, k.nonce AS key_nonce, k.wrapped, k.subject \
    FROM receipt_images i LEFT JOIN receipt_keys k ON k.id = i.key_id WHERE i.position = $1";

impl ImageRow {
    pub(crate) fn read(row: &AnyRow) -> sqlx::Result<Self> {
        let key_nonce: Option<Vec<u8>> = row.try_get("key_nonce")?;
        let wrapped: Option<Vec<u8>> = row.try_get("wrapped")?;
        Ok(Self {
            key_id: row.try_get("key_id")?,
            sealed: Sealed { nonce: row.try_get("nonce")?, bytes: row.try_get("sealed")? },
            wrapped: key_nonce.zip(wrapped).map(|(nonce, bytes)| Sealed { nonce, bytes }),
            subject: row.try_get("subject")?,
        })
    }
}
