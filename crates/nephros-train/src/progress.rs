//! How long work tells where it is, and how it is told to stop.

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
