//! Whether predictions can be recorded, for whoever asks again and again.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    error::{ApiError, chain},
    ledger::{Ledger, LedgerError},
};

/// How long an answer holds: whoever asks for it has no token, and each costs a question to the database.
const HOLDS: Duration = Duration::from_secs(1);

/// What the ledger said last, of a record or of a question.
///
/// A dead database is waited for by whoever finds it dead, and by nobody after: while a fault is known, a task asks
/// again and again, and all others are refused with it at once.
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

#[derive(Debug, Clone)]
struct Said {
    at: Instant,
    /// Why it records nothing.
    fault: Option<Arc<str>>,
}

impl Recording {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault(&self) -> Option<Arc<str>> {
        self.known().last.as_ref().and_then(|said| said.fault.clone())
    }

    /// Whether nothing is known that speaks against it.
    pub(crate) fn seems_well(&self) -> bool {
        self.fault().is_none()
    }

    /// Refuses where a fault is known.
    ///
    /// # Errors
    /// [`ApiError::StoreUnavailable`].
    pub(crate) fn check_known(&self) -> Result<(), ApiError> {
        self.fault().map_or(Ok(()), |fault| Err(ApiError::StoreUnavailable(fault.to_string().into())))
    }

    /// Notes what came of a record or a question; a fault is watched from then on.
    pub(crate) fn note<T>(self: &Arc<Self>, ledger: &Arc<dyn Ledger>, result: &Result<T, LedgerError>) {
        let fault = match result {
            Err(LedgerError::Unavailable(source)) => Some(chain(source.as_ref()).into()),
            Ok(_) | Err(LedgerError::NoSuchReceipt) => None,
        };
        let mut known = self.known();
        let unwatched = fault.is_some() && !known.watched;
        known.watched |= unwatched;
        known.last = Some(Said { at: Instant::now(), fault });
        drop(known);
        if unwatched {
            tokio::spawn(Arc::clone(self).watch(Arc::clone(ledger)));
        }
    }

    /// Asks until nothing speaks against recording. A single failure is so found to be over in milliseconds.
    async fn watch(self: Arc<Self>, ledger: Arc<dyn Ledger>) {
        loop {
            self.note(&ledger, &ledger.check().await);
            {
                let mut known = self.known();
                known.watched = known.last.as_ref().is_some_and(|said| said.fault.is_some());
                if !known.watched {
                    return;
                }
            }
            tokio::time::sleep(HOLDS).await;
        }
    }

    /// Asks the ledger, unless it has just said something or a fault is known.
    ///
    /// # Errors
    /// [`ApiError::StoreUnavailable`].
    pub(crate) async fn check(self: &Arc<Self>, ledger: &Arc<dyn Ledger>) -> Result<(), ApiError> {
        self.check_known()?;
        let _asking = self.asking.lock().await;
        let is_old = self.known().last.as_ref().is_none_or(|said| said.at.elapsed() >= HOLDS);
        if is_old && self.seems_well() {
            self.note(ledger, &ledger.check().await);
        }
        self.check_known()
    }
}
