//! Whether predictions can be recorded, for whoever asks again and again.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use crate::{
    error::{ApiError, chain},
    ledger::{Ledger, LedgerError},
};

/// How long an answer holds: whoever asks for it has no token, and each costs a question to the database.
const HOLDS: Duration = Duration::from_secs(1);

/// What the ledger said last, of a record or of a question.
#[derive(Debug, Default)]
pub(crate) struct Recording {
    last: RwLock<Option<Said>>,
    /// Held while the ledger is asked, so that many who want to know ask once.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone)]
struct Said {
    at: Instant,
    /// Why it records nothing.
    fault: Option<Arc<str>>,
}

impl Recording {
    fn last(&self) -> Option<Said> {
        self.last.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether nothing is known that speaks against it.
    pub(crate) fn seems_well(&self) -> bool {
        self.last().is_none_or(|said| said.fault.is_none())
    }

    /// Notes what came of a record or a question.
    pub(crate) fn note<T>(&self, result: &Result<T, LedgerError>) {
        let fault = match result {
            Err(LedgerError::Unavailable(source)) => Some(chain(source.as_ref()).into()),
            Ok(_) | Err(LedgerError::NoSuchReceipt) => None,
        };
        let said = Some(Said { at: Instant::now(), fault });
        *self.last.write().unwrap_or_else(PoisonError::into_inner) = said;
    }

    /// Asks the ledger, unless it has just said something.
    ///
    /// # Errors
    /// [`ApiError::StoreUnavailable`].
    pub(crate) async fn check(&self, ledger: &dyn Ledger) -> Result<(), ApiError> {
        let _asking = self.asking.lock().await;
        if self.last().is_none_or(|said| said.at.elapsed() >= HOLDS) {
            self.note(&ledger.check().await);
        }
        match self.last().and_then(|said| said.fault) {
            Some(fault) => Err(ApiError::StoreUnavailable(fault.to_string().into())),
            None => Ok(()),
        }
    }
}
