//! How long work tells where it is, and how it is told to stop.

use crate::{split::Split, stages::Dataset, train::history::Epoch};

/// What the numbers of a task count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Images, files, epochs and the like.
    Items,
    /// Bytes.
    Bytes,
}

/// Receives the progress of a stage; shared between threads.
pub trait Progress: Sync {
    /// Begins a task; it ends when the returned value is dropped. `total` is `None` when unknown.
    fn task(&self, name: &str, total: Option<u64>, unit: Unit) -> Box<dyn Task>;

    /// Whether the user asked to stop; checked between images, batches and blocks.
    fn is_cancelled(&self) -> bool;

    /// A training begins, or goes on after an interruption.
    fn training(&self, _training: &Training<'_>) {}

    /// An epoch is done; after an interruption also those that were done before it.
    fn epoch(&self, _epoch: &Epoch) {}
}

/// A training that begins.
#[derive(Debug, Clone, Copy)]
pub struct Training<'a> {
    /// Digest of everything that it depends on: one with the same digest goes on from its checkpoint.
    pub digest: &'a str,
    /// The images.
    pub dataset: &'a Dataset,
    /// Which of them are for what.
    pub split: &'a Split,
}

/// One running task.
pub trait Task: Send + Sync {
    /// More is done.
    fn advance(&self, amount: u64);

    /// A short remark beside the bar, such as the loss of an epoch.
    fn message(&self, text: &str);
}

/// The work was stopped by its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stopped on request")]
pub struct Cancelled;

/// Shows nothing and never cancels.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn task(&self, _name: &str, _total: Option<u64>, _unit: Unit) -> Box<dyn Task> {
        Box::new(Self)
    }

    fn is_cancelled(&self) -> bool {
        false
    }
}

impl Task for Silent {
    fn advance(&self, _amount: u64) {}

    fn message(&self, _text: &str) {}
}

/// `Err(Cancelled)` once the user asked to stop.
///
/// # Errors
/// [`Cancelled`].
pub fn check(progress: &dyn Progress) -> Result<(), Cancelled> {
    if progress.is_cancelled() { Err(Cancelled) } else { Ok(()) }
}
