use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::Lane;

/// Which lane is current, and which was before it.
///
/// Whoever took a lane keeps it: what it still waits for is answered by the model it began with. A lane goes
/// with its model when it is neither of the two and the last of its images has been answered.
#[derive(Debug, Default)]
pub struct Slot(RwLock<Lanes>);

#[derive(Debug, Default)]
struct Lanes {
    current: Option<Arc<Lane>>,
    previous: Option<Arc<Lane>>,
}

impl Slot {
    /// A slot that begins with `lane`.
    pub fn new(lane: Option<Arc<Lane>>) -> Self {
        Self(RwLock::new(Lanes { current: lane, previous: None }))
    }

    // Whoever panicked held the lock for a clone or an assignment: the value is whole.
    fn read(&self) -> RwLockReadGuard<'_, Lanes> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Lanes> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The current lane.
    pub fn current(&self) -> Option<Arc<Lane>> {
        self.read().current.clone()
    }

    /// The lane before the current one.
    pub fn previous(&self) -> Option<Arc<Lane>> {
        self.read().previous.clone()
    }

    /// Makes `lane` the current one, and what was current the one before.
    pub fn replace(&self, lane: Arc<Lane>) {
        let mut lanes = self.write();
        let before = lanes.current.replace(lane);
        let gone = std::mem::replace(&mut lanes.previous, before);
        drop(lanes);
        // A model is large; nobody waits for the lock while it goes.
        drop(gone);
    }

    /// Changes the current lane and the one before, and gives the one that is current now; `None`, and
    /// nothing changed, where there is none before.
    pub fn roll_back(&self) -> Option<Arc<Lane>> {
        let mut lanes = self.write();
        let lane = lanes.previous.take()?;
        lanes.previous = lanes.current.replace(Arc::clone(&lane));
        Some(lane)
    }
}
