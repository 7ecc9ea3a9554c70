//! Arguments of `verify` and `store`.

use std::{path::PathBuf, str::FromStr};

use clap::{Args, Subcommand};

use super::ModelArgs;

/// Where the receipts are.
#[derive(Debug, Clone, Args)]
pub struct StoreArgs {
    /// Database of the receipts, a file or postgres://…; by default DATABASE_URL, then store.path of
    /// config/config.yaml, then store/receipts.db
    #[arg(long, global = true, value_name = "DATABASE")]
    pub store: Option<String>,
    /// Print the result as JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// How many predictions are repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// The newest so many.
    Newest(usize),
    /// All.
    All,
}

impl FromStr for Replay {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "all" => Ok(Self::All),
            number => number.parse().map(Self::Newest).map_err(|_| "expected a whole number or `all`"),
        }
    }
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Where the receipts are
    #[command(flatten)]
    pub store: StoreArgs,
    /// File of a checkpoint that the log has to continue; by default store.checkpoint_file of
    /// config/config.yaml, where it is
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Option<PathBuf>,
    /// Repeat the newest so many predictions of the model at hand whose images were kept, or all of them
    #[arg(long, value_name = "N|all", default_value = "10", conflicts_with = "receipt")]
    pub replay: Replay,
    /// Repeat the prediction with this receipt
    #[arg(long, value_name = "RECEIPT")]
    pub receipt: Option<String>,
    /// Model to repeat with
    #[command(flatten)]
    pub model: ModelArgs,
}

/// Arguments of `store`.
#[derive(Debug, Args)]
pub struct StoreCommandArgs {
    /// Where the receipts are
    #[command(flatten)]
    pub store: StoreArgs,
    /// What to do
    #[command(subcommand)]
    pub action: StoreAction,
}

/// What can be done with a store.
#[derive(Debug, Subcommand)]
pub enum StoreAction {
    /// Write all that is known of a subject to a zip, kept images decrypted
    Export {
        /// The subject, as it was named with the predictions
        subject: String,
        /// Zip to write
        #[arg(long, value_name = "FILE.zip")]
        out: PathBuf,
    },
    /// Erase a subject or one prediction: details, images and keys; the log keeps its entries
    Erase {
        /// The subject, as it was named with the predictions
        #[arg(long, required_unless_present = "receipt", conflicts_with = "receipt")]
        subject: Option<String>,
        /// One prediction, with what readers said about it
        #[arg(long)]
        receipt: Option<String>,
    },
    /// Erase what is older than the days of config/config.yaml, or of the options
    Prune {
        /// Erase details and images of records older than so many days
        #[arg(long, value_name = "N")]
        days: Option<u32>,
        /// Erase images of records older than so many days
        #[arg(long, value_name = "N")]
        image_days: Option<u32>,
    },
    /// Wrap the keys of all subjects by another master key; start servers again afterwards
    Rotate {
        /// File of the new key, 64 hexadecimal digits that the owner alone may read
        #[arg(long, value_name = "FILE")]
        new_key_file: PathBuf,
    },
    /// Write a copy of the store, also while a server uses it
    Backup {
        /// File to write; it must not be there
        #[arg(value_name = "FILE")]
        target: PathBuf,
    },
    /// Make a store from a copy, where there is none, and verify it
    Restore {
        /// The copy
        #[arg(value_name = "FILE")]
        source: PathBuf,
    },
    /// Print where the log ends, to be kept elsewhere for `nephros verify --checkpoint`
    Checkpoint,
}
