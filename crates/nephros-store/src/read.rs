//! Reading back: history, single receipts, kept images, all of a subject.

use std::{collections::HashMap, io::Write as _, path::Path};

use serde::Serialize;
use sqlx::{any::AnyArguments, query::Query};
use zip::{ZipWriter, write::SimpleFileOptions};

use crate::{
    error::StoreError,
    record::{Entry, Kind, ReceiptId},
    rows::{DETAILS, DetailsRow, ENTRY, EntryRow, IMAGE, ImageRow},
    store::Store,
    writer,
};

/// Most entries of a page.
pub const MOST: u32 = 1000;
/// Words about one prediction that are listed with it.
pub const WORDS: u32 = 100;

/// Which entries to list; all that is given has to agree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// What they are about.
    pub kind: Option<Kind>,
    /// Whose they are.
    pub subject: Option<String>,
    /// The model's name.
    pub model: Option<String>,
    /// What was answered, or said to be right.
    pub label: Option<String>,
    /// The prediction that feedback is about.
    pub about: Option<ReceiptId>,
    /// At that time or later, in microseconds since 1970, UTC.
    pub since_us: Option<i64>,
    /// Before that time.
    pub until_us: Option<i64>,
}

/// Which part of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Entries before that position; the newest come first.
    pub before: Option<u64>,
    /// So many, at most [`MOST`].
    pub limit: u32,
}

impl Default for Page {
    fn default() -> Self {
        Self { before: None, limit: 100 }
    }
}

/// A value of a condition.
enum Value {
    Text(String),
    Number(i64),
}

fn bind(
    query: Query<'static, sqlx::Any, AnyArguments>,
    value: Value,
) -> Query<'static, sqlx::Any, AnyArguments> {
    match value {
        Value::Text(text) => query.bind(text),
        Value::Number(number) => query.bind(number),
    }
}

impl Filter {
    fn conditions(self, page: Page) -> Vec<(&'static str, Value)> {
        let text = |column, value: Option<String>| value.map(|value| (column, Value::Text(value)));
        let number = |column, value: Option<i64>| value.map(|value| (column, Value::Number(value)));
        let before = page.before.map(|before| i64::try_from(before).unwrap_or(i64::MAX));
        [
            text("e.kind =", self.kind.map(|kind| kind.as_str().to_owned())),
            text("d.subject =", self.subject),
            text("e.model =", self.model),
            text("d.label =", self.label),
            text("e.about =", self.about.map(|id| id.to_string())),
            number("e.time_us >=", self.since_us),
            number("e.time_us <", self.until_us),
            number("e.position <", before),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// All that a store knows of a subject.
#[derive(Debug, Clone, PartialEq)]
pub struct Export {
    /// In the order of the log.
    pub entries: Vec<Entry>,
    /// The kept images, with their receipts.
    pub images: Vec<(ReceiptId, Vec<u8>)>,
}

impl Store {
    /// Entries of the log, the newest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn history(&self, filter: Filter, page: Page) -> Result<Vec<Entry>, StoreError> {
        let limit = page.limit.clamp(1, MOST);
        let conditions = filter.conditions(page);
        let texts = conditions.iter().enumerate().map(|(index, (text, _))| format!("{text} ${}", index + 1));
        let texts: Vec<String> = std::iter::once("1 = 1".to_owned()).chain(texts).collect();
        // Only texts of this file are put together: values are bound.
        let sql = format!(
            "SELECT {ENTRY}, {DETAILS} FROM receipt_entries e LEFT JOIN receipt_details d ON d.position = e.position \
             WHERE {} ORDER BY e.position DESC LIMIT {limit}",
            texts.join(" AND ")
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(sql));
        let query = conditions.into_iter().fold(query, |query, (_, value)| bind(query, value));
        query.fetch_all(&self.pool).await?.iter().map(entry).collect()
    }

    /// Predictions, the newest first, each with what was said about it, the first first; at most
    /// [`WORDS`] of those, the latest. They come by the same few queries however many there are.
    ///
    /// # Errors
    /// See [`StoreError`]; [`StoreError::UnknownReceipt`] where `before` is none.
    pub async fn predictions(
        &self,
        before: Option<&ReceiptId>,
        limit: u32,
    ) -> Result<Vec<(Entry, Vec<Entry>)>, StoreError> {
        let before = match before {
            Some(receipt) => Some(self.entry(receipt).await?.receipt.position),
            None => None,
        };
        let filter = Filter { kind: Some(Kind::Prediction), ..Filter::default() };
        let predictions = self.history(filter, Page { before, limit }).await?;
        let mut said: HashMap<ReceiptId, Vec<Entry>> = HashMap::new();
        for word in self.said_about(&predictions).await? {
            if let Some(about) = word.about.clone() {
                said.entry(about).or_default().push(word);
            }
        }
        let with_words = |prediction: Entry| {
            let words = said.remove(&prediction.receipt.id).unwrap_or_default();
            (prediction, words)
        };
        Ok(predictions.into_iter().map(with_words).collect())
    }

    /// Feedback about the predictions from the last of these to the first, in the order of the log.
    async fn said_about(&self, predictions: &[Entry]) -> Result<Vec<Entry>, StoreError> {
        let (Some(newest), Some(oldest)) = (predictions.first(), predictions.last()) else {
            return Ok(Vec::new());
        };
        let [oldest, newest] =
            [oldest, newest].map(|entry| i64::try_from(entry.receipt.position).unwrap_or(i64::MAX));
        let sql = format!(
            "SELECT {ENTRY}, {DETAILS} FROM (\
               SELECT f.*, ROW_NUMBER() OVER (PARTITION BY f.about ORDER BY f.position DESC) AS age \
               FROM receipt_entries p JOIN receipt_entries f ON f.about = p.id AND f.kind = 'feedback' \
               WHERE p.kind = 'prediction' AND p.position BETWEEN $1 AND $2) e \
             LEFT JOIN receipt_details d ON d.position = e.position \
             WHERE e.age <= {WORDS} ORDER BY e.position"
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(oldest).bind(newest);
        query.fetch_all(&self.pool).await?.iter().map(entry).collect()
    }

    /// The entry with that receipt.
    ///
    /// # Errors
    /// See [`StoreError`]; [`StoreError::UnknownReceipt`] where there is none.
    pub async fn entry(&self, id: &ReceiptId) -> Result<Entry, StoreError> {
        let sql = format!(
            "SELECT {ENTRY}, {DETAILS} FROM receipt_entries e LEFT JOIN receipt_details d ON d.position = e.position \
             WHERE e.id = $1"
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id.to_string());
        let row = query.fetch_optional(&self.pool).await?;
        entry(&row.ok_or_else(|| StoreError::UnknownReceipt { id: id.to_string() })?)
    }

    /// The kept image of a prediction, decrypted; `None` where none was kept or it is erased.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn image(&self, id: &ReceiptId) -> Result<Option<Vec<u8>>, StoreError> {
        let position = self.entry(id).await?.receipt.position;
        let position = i64::try_from(position).unwrap_or(i64::MAX);
        let row = sqlx::query(IMAGE).bind(position).fetch_optional(&self.pool).await?;
        let Some(row) = row.as_ref().map(ImageRow::read).transpose()? else { return Ok(None) };
        let Some(wrapped) = &row.wrapped else { return Ok(None) };
        let master = writer::current(&self.master).ok_or(StoreError::NoMasterKey)?;
        let key = master.unwrap(wrapped, &row.key_id)?;
        Ok(Some(key.open_image(&row.sealed, id.as_str(), &row.key_id)?))
    }

    /// All entries of a subject with its kept images.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn export(&self, subject: &str) -> Result<Export, StoreError> {
        let mut entries = Vec::new();
        let mut page = Page { before: None, limit: MOST };
        loop {
            let filter = Filter { subject: Some(subject.to_owned()), ..Filter::default() };
            let found = self.history(filter, page).await?;
            page.before = found.last().map(|entry| entry.receipt.position);
            let last = found.len() < MOST as usize;
            entries.extend(found);
            if last {
                break;
            }
        }
        entries.reverse();
        let mut images = Vec::new();
        for entry in
            entries.iter().filter(|entry| entry.details.as_ref().is_some_and(|details| details.image_kept))
        {
            if let Some(image) = self.image(&entry.receipt.id).await? {
                images.push((entry.receipt.id.clone(), image));
            }
        }
        Ok(Export { entries, images })
    }
}

fn entry(row: &sqlx::any::AnyRow) -> Result<Entry, StoreError> {
    Entry::from_rows(EntryRow::read(row)?, DetailsRow::read(row)?)
}

/// `entries.json` of an export.
#[derive(Serialize)]
struct Listing<'a> {
    entries: &'a [Entry],
}

impl Export {
    /// Writes a zip of `entries.json` and `images/RECEIPT.EXTENSION`; the file is whole or absent, and its
    /// owner alone may read it.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn write_zip(&self, path: &Path) -> Result<(), StoreError> {
        let listing = serde_json::to_vec_pretty(&Listing { entries: &self.entries });
        let listing = listing.map_err(std::io::Error::from)?;
        let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let mut add = |name: String, bytes: &[u8]| {
            zip.start_file(name, SimpleFileOptions::default().large_file(true))
                .map_err(std::io::Error::from)?;
            zip.write_all(bytes)
        };
        add("entries.json".to_owned(), &listing)?;
        for (id, image) in &self.images {
            add(format!("images/{id}.{}", extension(image)), image)?;
        }
        let bytes = zip.finish().map_err(std::io::Error::from)?.into_inner();
        crate::files::write_whole(path, &bytes)?;
        Ok(())
    }
}

/// By the first bytes of an image.
fn extension(image: &[u8]) -> &'static str {
    match image {
        [0x89, b'P', b'N', b'G', ..] => "png",
        [0xff, 0xd8, ..] => "jpg",
        [b'B', b'M', ..] => "bmp",
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => "tif",
        [b'R', b'I', b'F', b'F', ..] => "webp",
        _ => "bin",
    }
}
