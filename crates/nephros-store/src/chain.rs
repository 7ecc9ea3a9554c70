//! What is hashed: each entry with the hash before it, and details by a salted commitment.
//!
//! Fields are written one after another, each with its length before it, so that no two records have the
//! same bytes. A text is hashed as the database holds it: nothing is parsed and written anew.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};

use crate::{
    error::StoreError,
    rows::{DetailsRow, EntryRow},
};

/// A SHA-256.
pub type Hash = [u8; 32];

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

/// Hashes fields with their lengths.
struct Fields(Sha256);

impl Fields {
    fn new(domain: &[u8]) -> Self {
        Self(Sha256::new()).bytes(Some(domain))
    }

    /// A field that is not there differs from an empty one.
    fn bytes(self, field: Option<&[u8]>) -> Self {
        let length = field.map_or(u64::MAX, |field| field.len() as u64);
        Self(self.0.chain_update(length.to_le_bytes()).chain_update(field.unwrap_or_default()))
    }

    fn text(self, field: Option<&str>) -> Self {
        self.bytes(field.map(str::as_bytes))
    }

    fn number(self, field: i64) -> Self {
        self.bytes(Some(&field.to_le_bytes()))
    }

    fn finish(self) -> Hash {
        self.0.finalize().into()
    }
}

/// What stands before the first entry of the log with that id.
pub(crate) fn beginning(log: &[u8]) -> Hash {
    Fields::new(b"nephros-log-v1").bytes(Some(log)).finish()
}

/// The hash of an entry, over all columns but itself.
pub(crate) fn entry(row: &EntryRow) -> Hash {
    Fields::new(b"nephros-entry-v1")
        .bytes(Some(&row.previous))
        .number(row.position)
        .text(Some(&row.id))
        .text(Some(&row.kind))
        .number(row.time_us)
        .text(row.model.as_deref())
        .text(row.bundle.as_deref())
        .text(row.preprocessing.as_deref())
        .text(row.engine.as_deref())
        .text(row.labels.as_deref())
        .text(row.about.as_deref())
        .text(row.note.as_deref())
        .bytes(row.commitment.as_deref())
        .finish()
}

/// What an entry says about its details. The salt is random and goes with the details: who has the entry
/// alone cannot find out by trying what was in them.
pub(crate) fn commitment(row: &DetailsRow) -> Hash {
    Fields::new(b"nephros-details-v1")
        .bytes(Some(&row.salt))
        .text(row.subject.as_deref())
        .bytes(row.image_sha256.as_deref())
        .bytes(row.image_seal.as_deref())
        .text(row.label.as_deref())
        .bytes(row.probabilities.as_deref())
        .text(row.refer.as_deref())
        .text(row.reasons.as_deref())
        .text(row.verdict.as_deref())
        .text(row.reader.as_deref())
        .text(row.comment.as_deref())
        .finish()
}

/// Where a log ends, small enough to be kept elsewhere; a log that is shorter or other than its checkpoint
/// was changed.
///
/// The text form is that of a transparency log's checkpoint without a signature: the origin, the number
/// of entries, and the hash in base64, a line each.
/// Source: <https://c2sp.org/tlog-checkpoint>.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Names the log: 32 hexadecimal digits.
    pub log: String,
    /// Number of entries.
    pub position: u64,
    /// Hash of the last one.
    pub hash: Hash,
}

const ORIGIN: &str = "nephros-receipts ";

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{ORIGIN}{}\n{}\n{}", self.log, self.position, STANDARD.encode(self.hash))
    }
}

impl std::str::FromStr for Checkpoint {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let parse = || {
            let mut lines = text.lines();
            let log = lines.next()?.strip_prefix(ORIGIN)?.to_owned();
            let position = lines.next()?.parse().ok()?;
            let hash = STANDARD.decode(lines.next()?).ok()?.try_into().ok()?;
            lines.all(str::is_empty).then_some(Self { log, position, hash })
        };
        parse().ok_or(StoreError::Checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_told_apart() {
        let hash = |fields: &[Option<&[u8]>]| {
            fields.iter().fold(Fields::new(b"test"), |hash, field| hash.bytes(*field)).finish()
        };
        assert_ne!(hash(&[Some(b"ab"), Some(b"c")]), hash(&[Some(b"a"), Some(b"bc")]));
        assert_ne!(hash(&[Some(b"")]), hash(&[None]));
        assert_ne!(hash(&[Some(b"")]), hash(&[]));
    }

    #[test]
    fn the_beginning_is_what_the_documents_say() {
        // printf '\x0e\0\0\0\0\0\0\0nephros-log-v1\x02\0\0\0\0\0\0\0ab' | sha256sum
        let bytes = b"\x0e\0\0\0\0\0\0\0nephros-log-v1\x02\0\0\0\0\0\0\0ab";
        assert_eq!(beginning(b"ab"), <Hash>::from(Sha256::digest(bytes)));
    }

    #[test]
    fn a_checkpoint_is_read_as_it_was_written() {
        let checkpoint = Checkpoint { log: "0a".repeat(16), position: 7, hash: [9; 32] };
        assert_eq!(checkpoint.to_string().parse::<Checkpoint>().unwrap(), checkpoint);
        for text in ["", "nephros-receipts a\n7\n", "nephros-receipts a\nx\nCQ==\n", "other a\n1\nCQ==\n"] {
            assert!(text.parse::<Checkpoint>().is_err(), "{text}");
        }
    }

    #[test]
    fn hexadecimal_is_lower_case() {
        assert_eq!(hex(&[0, 0xab, 0x10]), "00ab10");
    }
}
