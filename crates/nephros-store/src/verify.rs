//! Whether the log is what it was: each entry follows from the one before, and what stands beside it is
//! what its entry says.

use std::{collections::HashMap, fmt};

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;

use crate::{
    chain::{self, Checkpoint, Hash},
    error::StoreError,
    keys::MasterKey,
    ranges::Ranges,
    record::Kind,
    rows::{DETAILS, DetailsRow, ENTRY, EntryRow, IMAGE, ImageRow},
    store::Store,
    transaction::Tx,
    writer,
};

/// Entries in memory at a time.
const PAGE: usize = 500;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// Entries that are right, from the first on.
    pub entries: u64,
    /// Predictions among them.
    pub predictions: u64,
    /// Entries among them whose details were erased in good order.
    pub erased: u64,
    /// Kept images among them that are as they were encrypted.
    pub images: u64,
    /// Kept images that were decrypted and are what was predicted on; 0 without the master key.
    pub decrypted: u64,
    /// The first thing that is wrong.
    pub broken: Option<Broken>,
}

/// The first broken record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// Its place in the log, from 1; of a record that is not there, the place it should have.
    pub position: i64,
    /// Its receipt, where there is one.
    pub id: Option<String>,
    /// What is wrong.
    pub fault: Fault,
}

/// What can be wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Fault {
    /// It is not what was hashed.
    Changed,
    /// It was written anew with its own hash: the next one, or the head, does not follow from it.
    Rewritten,
    /// Another record is in its place, which it has left.
    Reordered,
    /// It is not there.
    Missing,
    /// It was not appended by a store.
    Inserted,
    /// It and all after it are not there.
    Truncated,
    /// Its details are not what was recorded.
    DetailsChanged,
    /// Its details are not there, and no erasure says so.
    DetailsMissing,
    /// It has details that it never had or that were erased.
    DetailsInserted,
    /// Its image is not what was kept.
    ImageChanged,
    /// Its image is not there, and no erasure says so.
    ImageMissing,
    /// It has an image that it never had or that was erased.
    ImageInserted,
    /// The key of its image is not there, or is another subject's.
    KeyMissing,
    /// Its image cannot be decrypted, or is another one than was predicted on.
    ImageUnreadable,
    /// There is a key that belongs to no image.
    KeyInserted,
    /// The head of the log names another master key than the log.
    HeadChanged,
    /// The log is not the one of the checkpoint, or was changed since.
    Checkpoint,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Changed => "it was changed",
            Self::Rewritten => "it was written anew: what comes after does not follow from it",
            Self::Reordered => "another record is in its place",
            Self::Missing => "it is missing",
            Self::Inserted => "it was inserted",
            Self::Truncated => "it and all after it are missing",
            Self::DetailsChanged => "its details were changed",
            Self::DetailsMissing => "its details are missing, and no erasure says so",
            Self::DetailsInserted => "it has details that it never had or that were erased",
            Self::ImageChanged => "its image was changed",
            Self::ImageMissing => "its image is missing, and no erasure says so",
            Self::ImageInserted => "it has an image that it never had or that was erased",
            Self::KeyMissing => "the key of its image is missing or belongs to another subject",
            Self::ImageUnreadable => "its image cannot be decrypted, or is not the one that was predicted on",
            Self::KeyInserted => "a key belongs to no image",
            Self::HeadChanged => "the head names another master key than the log",
            Self::Checkpoint => "it is not what the checkpoint says",
        })
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {}", self.position)?;
        self.id.iter().try_for_each(|id| write!(f, " ({id})"))?;
        write!(f, ": {}", self.fault)
    }
}

/// A fault, or that the database cannot be read.
enum Stop {
    Broken(Broken),
    Error(StoreError),
}

impl<E: Into<StoreError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

fn broken(position: i64, id: Option<&str>, fault: Fault) -> Stop {
    Stop::Broken(Broken { position, id: id.map(str::to_owned), fault })
}

impl Store {
    /// Checks the whole log, on one state of the database, while others go on writing. With the master
    /// key, kept images are decrypted and compared with what was predicted on; with a checkpoint, the log
    /// has to continue it.
    ///
    /// # Errors
    /// See [`StoreError`]; what is wrong with the log is no error but [`Verification::broken`].
    pub async fn verify(&self, checkpoint: Option<&Checkpoint>) -> Result<Verification, StoreError> {
        let mut tx = self.database.snapshot(&self.pool).await?;
        let mut walk = Walk {
            master: writer::current(&self.master),
            checkpoint,
            erasures: Erasures::read(&mut tx).await?,
            hash: [0; 32],
            found: Verification {
                entries: 0,
                predictions: 0,
                erased: 0,
                images: 0,
                decrypted: 0,
                broken: None,
            },
            named_master: None,
            last_id: None,
        };
        let result = walk.run(&mut tx, &self.log).await;
        tx.commit().await?;
        match result {
            Ok(()) => Ok(walk.found),
            Err(Stop::Broken(broken)) => Ok(Verification { broken: Some(broken), ..walk.found }),
            Err(Stop::Error(error)) => Err(error),
        }
    }
}

/// What entries of erasures excuse.
struct Erasures {
    details: Ranges,
    images: Ranges,
}

impl Erasures {
    async fn read(tx: &mut Tx) -> Result<Self, StoreError> {
        let query = "SELECT position, note FROM receipt_entries WHERE kind = 'erasure' ORDER BY position";
        let rows = sqlx::query(query).fetch_all(&mut **tx).await?;
        let mut erasures = Self { details: Ranges::default(), images: Ranges::default() };
        for row in &rows {
            let (position, note): (i64, Option<String>) = (row.try_get("position")?, row.try_get("note")?);
            // A note that cannot be read excuses nothing.
            let note: HashMap<String, String> =
                note.and_then(|note| serde_json::from_str(&note).ok()).unwrap_or_default();
            let Some(erased) = note.get("positions").and_then(|text| Ranges::parse(text)) else { continue };
            let erased = erased.before(position);
            if note.get("erased").is_some_and(|what| what == "details") {
                erasures.details.join(erased.clone());
            }
            erasures.images.join(erased);
        }
        Ok(erasures)
    }
}

struct Walk<'a> {
    master: Option<MasterKey>,
    checkpoint: Option<&'a Checkpoint>,
    erasures: Erasures,
    /// Of the last entry that is right.
    hash: Hash,
    found: Verification,
    /// By the last entry about it.
    named_master: Option<String>,
    last_id: Option<String>,
}

impl Walk<'_> {
    async fn run(&mut self, tx: &mut Tx, log: &str) -> Result<(), Stop> {
        let head =
            sqlx::query("SELECT log, position, hash, master FROM receipt_head").fetch_one(&mut **tx).await?;
        self.hash = chain::beginning(head.try_get("log")?);
        if self.checkpoint.is_some_and(|checkpoint| checkpoint.log != log) {
            return Err(broken(1, None, Fault::Checkpoint));
        }
        self.check_checkpoint(0, None)?;
        let sql = format!(
            "SELECT {ENTRY}, {DETAILS}, i.position AS image FROM receipt_entries e \
             LEFT JOIN receipt_details d ON d.position = e.position \
             LEFT JOIN receipt_images i ON i.position = e.position \
             WHERE e.position > $1 ORDER BY e.position LIMIT {PAGE}"
        );
        let mut last = i64::MIN;
        loop {
            let query = sqlx::query(sqlx::AssertSqlSafe(sql.clone())).bind(last);
            let rows = query.fetch_all(&mut **tx).await?;
            for row in &rows {
                let entry = EntryRow::read(row)?;
                last = entry.position;
                let image: Option<i64> = row.try_get("image")?;
                self.check(tx, entry, DetailsRow::read(row)?, image.is_some()).await?;
            }
            if rows.len() < PAGE {
                break;
            }
        }
        let (hash, master): (Vec<u8>, Option<String>) = (head.try_get("hash")?, head.try_get("master")?);
        self.check_end(head.try_get("position")?, &hash, master.as_deref())?;
        check_strays(tx).await
    }

    fn next(&self) -> i64 {
        i64::try_from(self.found.entries).unwrap_or(i64::MAX).saturating_add(1)
    }

    async fn check(
        &mut self,
        tx: &mut Tx,
        entry: EntryRow,
        details: Option<DetailsRow>,
        has_image: bool,
    ) -> Result<(), Stop> {
        let next = self.next();
        if entry.position < next {
            return Err(broken(entry.position, Some(&entry.id), Fault::Inserted));
        }
        if entry.position > next || entry.previous != self.hash || entry.hash != chain::entry(&entry) {
            return Err(self.name(tx, &entry).await?);
        }
        let fault = |fault| broken(entry.position, Some(&entry.id), fault);
        self.check_details(&entry, details.as_ref()).map_err(fault)?;
        let image = if has_image { read_image(tx, entry.position).await? } else { None };
        let checked = self.check_image(&entry, details.as_ref(), image);
        checked.map_err(|fault| broken(entry.position, Some(&entry.id), fault))?;
        self.hash = chain::entry(&entry);
        self.check_checkpoint(entry.position.unsigned_abs(), Some(&entry.id))?;
        self.found.entries += 1;
        self.found.predictions += u64::from(entry.kind == Kind::Prediction.as_str());
        self.found.erased += u64::from(entry.commitment.is_some() && details.is_none());
        if entry.kind == Kind::Key.as_str() {
            let note: HashMap<String, String> =
                entry.note.and_then(|note| serde_json::from_str(&note).ok()).unwrap_or_default();
            self.named_master = note.get("master").cloned();
        }
        self.last_id = Some(entry.id);
        Ok(())
    }

    /// What happened where `entry` does not follow from the entries that are right.
    async fn name(&self, tx: &mut Tx, entry: &EntryRow) -> Result<Stop, StoreError> {
        let next = self.next();
        let sql = format!("SELECT {ENTRY} FROM receipt_entries e WHERE e.previous = $1 AND e.position <> $2");
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(self.hash.to_vec()).bind(next);
        for row in query.fetch_all(&mut **tx).await? {
            let elsewhere = EntryRow { position: next, ..EntryRow::read(&row)? };
            if chain::entry(&elsewhere) == *elsewhere.hash {
                return Ok(broken(next, Some(&elsewhere.id), Fault::Reordered));
            }
        }
        if entry.position > next {
            return Ok(broken(next, None, Fault::Missing));
        }
        let whole = entry.hash == chain::entry(entry);
        if whole && next > 1 {
            return Ok(broken(next - 1, self.last_id.as_deref(), Fault::Rewritten));
        }
        Ok(broken(next, Some(&entry.id), Fault::Changed))
    }

    fn check_details(&self, entry: &EntryRow, details: Option<&DetailsRow>) -> Result<(), Fault> {
        match (&entry.commitment, details) {
            (None, None) => Ok(()),
            (Some(_), Some(_)) if self.erasures.details.contains(entry.position) => {
                Err(Fault::DetailsInserted)
            }
            (Some(expected), Some(details)) if *expected == chain::commitment(details) => Ok(()),
            (Some(_), Some(_)) => Err(Fault::DetailsChanged),
            (Some(_), None) if self.erasures.details.contains(entry.position) => Ok(()),
            (Some(_), None) => Err(Fault::DetailsMissing),
            (None, Some(_)) => Err(Fault::DetailsInserted),
        }
    }

    fn check_image(
        &mut self,
        entry: &EntryRow,
        details: Option<&DetailsRow>,
        image: Option<ImageRow>,
    ) -> Result<(), Fault> {
        let erased = self.erasures.images.contains(entry.position);
        let seal = details.and_then(|details| details.image_seal.as_ref().map(|seal| (details, seal)));
        match (seal, image) {
            (None, None) => Ok(()),
            (Some(_), None) if erased => Ok(()),
            (Some(_), None) => Err(Fault::ImageMissing),
            (None, Some(_)) => Err(Fault::ImageInserted),
            (Some(_), Some(_)) if erased => Err(Fault::ImageInserted),
            (Some((details, seal)), Some(image)) => self.check_seal(entry, details, seal, &image),
        }
    }

    fn check_seal(
        &mut self,
        entry: &EntryRow,
        details: &DetailsRow,
        seal: &[u8],
        image: &ImageRow,
    ) -> Result<(), Fault> {
        if image.sealed.digest() != seal {
            return Err(Fault::ImageChanged);
        }
        let wrapped = image.wrapped.as_ref().filter(|_| image.subject == details.subject);
        let wrapped = wrapped.ok_or(Fault::KeyMissing)?;
        self.found.images += 1;
        if let Some(master) = &self.master {
            let open = |_| Fault::ImageUnreadable;
            let key = master.unwrap(wrapped, &image.key_id).map_err(open)?;
            let plain = key.open_image(&image.sealed, &entry.id, &image.key_id).map_err(open)?;
            if details.image_sha256.as_deref() != Some(&Sha256::digest(plain)) {
                return Err(Fault::ImageUnreadable);
            }
            self.found.decrypted += 1;
        }
        Ok(())
    }

    /// Whether the log up to `position` is what the checkpoint says, if it is about that position.
    fn check_checkpoint(&self, position: u64, id: Option<&str>) -> Result<(), Stop> {
        match self.checkpoint.filter(|checkpoint| checkpoint.position == position) {
            Some(checkpoint) if checkpoint.hash != self.hash => {
                Err(broken(position.cast_signed(), id, Fault::Checkpoint))
            }
            _ => Ok(()),
        }
    }

    fn check_end(&self, position: i64, hash: &[u8], master: Option<&str>) -> Result<(), Stop> {
        let next = self.next();
        let expected =
            self.checkpoint.map_or(0, |checkpoint| checkpoint.position).max(position.unsigned_abs());
        if expected >= next.unsigned_abs() {
            return Err(broken(next, None, Fault::Truncated));
        }
        if position < next - 1 {
            let id = (position == next - 2).then_some(self.last_id.as_deref()).flatten();
            return Err(broken(position + 1, id, Fault::Inserted));
        }
        if hash != self.hash {
            return Err(broken(next - 1, self.last_id.as_deref(), Fault::Rewritten));
        }
        if master != self.named_master.as_deref() {
            return Err(broken(next - 1, None, Fault::HeadChanged));
        }
        Ok(())
    }
}

async fn read_image(tx: &mut Tx, position: i64) -> Result<Option<ImageRow>, StoreError> {
    let row = sqlx::query(IMAGE).bind(position).fetch_optional(&mut **tx).await?;
    Ok(row.as_ref().map(ImageRow::read).transpose()?)
}

/// Rows that stand beside no entry.
async fn check_strays(tx: &mut Tx) -> Result<(), Stop> {
    let tables = [
        (
            "SELECT MIN(position) AS stray FROM receipt_details \
             WHERE position NOT IN (SELECT position FROM receipt_entries)",
            Fault::DetailsInserted,
        ),
        (
            "SELECT MIN(position) AS stray FROM receipt_images \
             WHERE position NOT IN (SELECT position FROM receipt_entries)",
            Fault::ImageInserted,
        ),
        (
            "SELECT MIN(CAST(0 AS BIGINT)) AS stray FROM receipt_keys WHERE id NOT IN (SELECT key_id FROM receipt_images)",
            Fault::KeyInserted,
        ),
    ];
    for (query, fault) in tables {
        let row = sqlx::query(query).fetch_one(&mut **tx).await?;
        if let Some(position) = row.try_get("stray")? {
            return Err(broken(position, None, fault));
        }
    }
    Ok(())
}
