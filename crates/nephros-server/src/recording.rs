//! Whether predictions can be recorded, for whoever asks again and again.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use crate::{
    error::{ApiError, chain},
    ledger::{Ledger, LedgerError},
};

/// How long an answer holds: whoever asks for it has no token, and each costs a question to the database.
const HOLDS: Duration = Duration::from_secs(1);
/// How long the task that asks again waits for an answer. Ledgers have limits of their own, but nothing else
/// ends an outage.
const PATIENCE: Duration = Duration::from_mins(1);

/// What the ledger said last, of a record or of a question.
///
/// A dead database is waited for by whoever finds it dead, and by nobody after: while a fault is known, a task asks
/// again and again, and all others are refused at once.
#[derive(Debug, Default)]
pub(crate) struct Recording {
    known: Mutex<Known>,
    /// Held while the ledger is asked, so that many who want to know ask once.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    last: Option<Said>,
    /// A task asks until the fault is over.
    watched: bool,
}

#[derive(Debug)]
struct Said {
    at: Instant,
    well: bool,
}

impl Known {
    fn is_well(&self) -> bool {
        self.last.as_ref().is_none_or(|said| said.well)
    }
}

impl Recording {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing is known that speaks against it.
    pub(crate) fn seems_well(&self) -> bool {
        self.known().is_well()
    }

    /// Refuses where a fault is known.
    ///
    /// # Errors
    /// [`ApiError::StoreUnavailable`].
    pub(crate) fn check_known(&self) -> Result<(), ApiError> {
        if self.seems_well() { Ok(()) } else { Err(ApiError::StoreUnavailable(None)) }
    }

    /// Notes what came of a record or a question that was begun then; a fault is told to the log and watched from
    /// then on. What was begun before the last answer came knows less than that.
    pub(crate) fn note<T>(
        self: &Arc<Self>,
        ledger: &Arc<dyn Ledger>,
        begun: Instant,
        result: &Result<T, LedgerError>,
    ) {
        let fault = match result {
            Err(LedgerError::Unavailable(source)) => Some(source),
            Ok(_) | Err(LedgerError::NoSuchReceipt) => None,
        };
        let mut known = self.known();
        if known.last.as_ref().is_some_and(|said| begun < said.at) {
            return;
        }
        let was_well = known.is_well();
        let unwatched = fault.is_some() && !known.watched;
        known.watched |= unwatched;
        known.last = Some(Said { at: Instant::now(), well: fault.is_none() });
        drop(known);
        match fault {
            Some(source) if was_well => {
                tracing::error!("predictions cannot be recorded: {}", chain(source.as_ref()));
            }
            None if !was_well => tracing::info!("predictions are recorded again"),
            _ => {}
        }
        if unwatched {
            tokio::spawn(watch(Arc::downgrade(self), Arc::downgrade(ledger)));
        }
    }

    /// Asks the ledger, unless it has just said something or a fault is known.
    ///
    /// # Errors
    /// [`ApiError::StoreUnavailable`].
    pub(crate) async fn check(self: &Arc<Self>, ledger: &Arc<dyn Ledger>) -> Result<(), ApiError> {
        self.check_known()?;
        let _asking = self.asking.lock().await;
        let holds = self.known().last.as_ref().is_some_and(|said| !said.well || said.at.elapsed() < HOLDS);
        if !holds {
            let begun = Instant::now();
            self.note(ledger, begun, &ledger.check().await);
        }
        self.check_known()
    }
}

/// Asks until nothing speaks against recording, or the server is gone. A single failure is so found to be over in
/// milliseconds.
async fn watch(recording: Weak<Recording>, ledger: Weak<dyn Ledger>) {
    let watch = Watch(recording);
    loop {
        let (Some(recording), Some(ledger)) = (watch.0.upgrade(), ledger.upgrade()) else { return };
        let begun = Instant::now();
        let answer = tokio::time::timeout(PATIENCE, ledger.check()).await;
        let answer = answer.unwrap_or_else(|_| Err(LedgerError::Unavailable("it does not answer".into())));
        recording.note(&ledger, begun, &answer);
        {
            let mut known = recording.known();
            known.watched = !known.is_well();
            if !known.watched {
                return;
            }
        }
        drop((recording, ledger));
        tokio::time::sleep(HOLDS).await;
    }
}

/// A watch that ends before the fault does leaves nothing known: the next record finds out.
struct Watch(Weak<Recording>);

impl Drop for Watch {
    fn drop(&mut self) {
        let Some(recording) = self.0.upgrade() else { return };
        let mut known = recording.known();
        if known.watched {
            *known = Known::default();
        }
    }
}
