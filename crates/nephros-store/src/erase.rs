//! Erasure of a subject, retention by age, and another master key.

use serde_json::json;
use sqlx::Row as _;

use crate::{
    append::{Draft, Head, append},
    error::StoreError,
    keys::{MasterKey, Sealed},
    ranges::Ranges,
    record::{Kind, Receipt, ReceiptId},
    transaction::Tx,
};

/// What to erase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Erase {
    /// All that is known of a subject, with its key.
    Subject(String),
    /// One prediction, its image, and what readers said about it.
    Receipt(ReceiptId),
    /// Details and images of records before a time, in microseconds since 1970, UTC.
    Before(i64),
    /// Images alone, of records before a time.
    ImagesBefore(i64),
}

/// What was erased.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Erased {
    /// Records that lost details or an image.
    pub records: u64,
    /// Images deleted.
    pub images: u64,
    /// Keys destroyed.
    pub keys: u64,
    /// The entry that says so; none where there was nothing to erase.
    pub receipt: Option<Receipt>,
    /// Whether the bytes are out of the database's files, too. If not, a reader was in the way, and the
    /// next erasure does it.
    pub scrubbed: bool,
}

impl Erase {
    /// Positions of the records, on `tables`.
    fn positions(&self) -> &'static str {
        match self {
            Self::Subject(_) => "SELECT position FROM receipt_details WHERE subject = $1",
            Self::Receipt(_) => {
                "SELECT d.position FROM receipt_details d JOIN receipt_entries e ON e.position = d.position \
                 WHERE e.id = $1 OR e.about = $1"
            }
            Self::Before(_) => {
                "SELECT d.position FROM receipt_details d JOIN receipt_entries e ON e.position = d.position \
                 WHERE e.time_us < $1"
            }
            Self::ImagesBefore(_) => {
                "SELECT i.position FROM receipt_images i JOIN receipt_entries e ON e.position = i.position \
                 WHERE e.time_us < $1"
            }
        }
    }

    fn because(&self) -> &'static str {
        match self {
            Self::Subject(_) => "subject",
            Self::Receipt(_) => "receipt",
            Self::Before(_) | Self::ImagesBefore(_) => "age",
        }
    }

    fn statement(&self, sql: String) -> sqlx::query::Query<'static, sqlx::Any, sqlx::any::AnyArguments> {
        let query = sqlx::query(sqlx::AssertSqlSafe(sql));
        match self {
            Self::Subject(subject) => query.bind(subject.clone()),
            Self::Receipt(id) => query.bind(id.to_string()),
            Self::Before(time_us) | Self::ImagesBefore(time_us) => query.bind(*time_us),
        }
    }

    /// Deletes what it says and appends an entry about it. The entry names positions, no subject.
    pub(crate) async fn run(&self, tx: &mut Tx, head: &mut Head) -> Result<Erased, StoreError> {
        let positions = self.positions();
        let rows = self.statement(positions.to_owned()).fetch_all(&mut **tx).await?;
        let found = rows.iter().map(|row| row.try_get(0)).collect::<sqlx::Result<Vec<i64>>>()?;
        let records = found.len() as u64;
        let delete = |table: &str| format!("DELETE FROM {table} WHERE position IN ({positions})");
        // Images first: the positions of some are found by the details.
        let images = self.statement(delete("receipt_images")).execute(&mut **tx).await?.rows_affected();
        let what = if matches!(self, Self::ImagesBefore(_)) {
            "images"
        } else {
            self.statement(delete("receipt_details")).execute(&mut **tx).await?;
            "details"
        };
        let orphans = "DELETE FROM receipt_keys WHERE id NOT IN (SELECT key_id FROM receipt_images)";
        let keys = sqlx::query(orphans).execute(&mut **tx).await?.rows_affected();
        let receipt = if found.is_empty() {
            None
        } else {
            let positions = Ranges::of(found).to_string();
            let note = json!({ "erased": what, "because": self.because(), "positions": positions });
            Some(append(tx, head, Draft::note(Kind::Erasure, &note)?, None).await?)
        };
        Ok(Erased { records, images, keys, receipt, scrubbed: false })
    }
}

/// Wraps all keys by `new` instead of `old`; images stay as they are. Gives their number.
pub(crate) async fn rotate(
    tx: &mut Tx,
    head: &mut Head,
    old: &MasterKey,
    new: &MasterKey,
) -> Result<u64, StoreError> {
    head.check_master(old)?;
    let rows = sqlx::query("SELECT id, nonce, wrapped FROM receipt_keys").fetch_all(&mut **tx).await?;
    for row in &rows {
        let id: Vec<u8> = row.try_get("id")?;
        let wrapped = Sealed { nonce: row.try_get("nonce")?, bytes: row.try_get("wrapped")? };
        let again = new.wrap(&old.unwrap(&wrapped, &id)?, &id)?;
        sqlx::query("UPDATE receipt_keys SET nonce = $1, wrapped = $2 WHERE id = $3")
            .bind(again.nonce)
            .bind(again.bytes)
            .bind(id)
            .execute(&mut **tx)
            .await?;
    }
    let note = json!({ "master": new.fingerprint(), "instead_of": old.fingerprint() });
    append(tx, head, Draft::note(Kind::Key, &note)?, None).await?;
    head.master = Some(new.fingerprint());
    Ok(rows.len() as u64)
}
