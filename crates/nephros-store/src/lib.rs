//! Receipts: every prediction accounted for.
//!
//! A [`Store`] records predictions, what readers say about them, and erasures in a hash-chained log, in
//! SQLite or PostgreSQL. What is about a person stands beside the log and can be erased; the log keeps a
//! salted commitment to it and still verifies. Images are kept if asked for, encrypted by a key for each
//! subject. docs/adr/0018-store-and-receipts.md has the reasons.

mod append;
mod backup;
mod chain;
mod database;
mod erase;
mod error;
mod files;
mod keys;
mod ranges;
mod read;
mod record;
mod rows;
mod store;
mod transaction;
mod verify;
mod writer;

pub use backup::{backup, restore};
pub use chain::{Checkpoint, Hash};
pub use database::Database;
pub use erase::{Erase, Erased};
pub use error::StoreError;
pub use keys::{KeyError, MasterKey};
pub use read::{Export, Filter, MOST, Page, WORDS};
pub use record::{Details, Entry, Kind, Model, NewPrediction, Opinion, Reason, Receipt, ReceiptId, Verdict};
pub use store::{Store, StoreConfig};
pub use verify::{Broken, Fault, Verification};
