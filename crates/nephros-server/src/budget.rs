//! What the bodies of all requests under way may take together.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::state::Limits;

/// A body up to here is a small one: a slice as JPEG has some 40 KB, and as DICOM some 500.
const SMALL: usize = 1 << 20;

/// Bytes that are held for bodies. A part of them is for small ones alone, so that a few large bodies that arrive
/// slowly keep nobody else out.
#[derive(Debug)]
pub(crate) struct Budget {
    all: usize,
    large: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    /// Of bodies that are no small ones.
    large: usize,
}

impl Budget {
    /// The largest body always fits where nothing else is held.
    pub(crate) fn new(limits: &Limits) -> Self {
        let for_small = limits.held_bytes / 4;
        let large = (limits.held_bytes - for_small).max(limits.body_bytes);
        Self { all: large + for_small, large, held: Mutex::default() }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Nothing that can panic happens under the lock.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that are held now.
    pub(crate) fn bytes(&self) -> usize {
        self.held().all
    }

    /// Room for a body of which nothing is there yet.
    pub(crate) fn share(self: &Arc<Self>) -> Share {
        Share { budget: Arc::clone(self), bytes: 0 }
    }
}

/// How much of such a body counts as large.
fn large(bytes: usize) -> usize {
    if bytes > SMALL { bytes } else { 0 }
}

/// Room for one body; given back when dropped, however its request ends.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Share {
    /// Makes room for so many more bytes; whether there was any.
    pub(crate) fn grow(&mut self, more: usize) -> bool {
        let bytes = self.bytes + more;
        let mut held = self.budget.held();
        let all = held.all + more;
        let of_large = held.large - large(self.bytes) + large(bytes);
        if all > self.budget.all || (bytes > SMALL && of_large > self.budget.large) {
            return false;
        }
        *held = Held { all, large: of_large };
        drop(held);
        self.bytes = bytes;
        true
    }

    /// Gives the room back before its request has ended.
    pub(crate) fn give_back(&mut self) {
        let mut held = self.budget.held();
        held.all -= self.bytes;
        held.large -= large(self.bytes);
        drop(held);
        self.bytes = 0;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(held_bytes: usize, body_bytes: usize) -> Arc<Budget> {
        Arc::new(Budget::new(&Limits { body_bytes, held_bytes, ..Limits::default() }))
    }

    #[test]
    fn large_bodies_leave_a_quarter_to_small_ones() {
        // 12 MiB, of which 3 are for small bodies.
        let budget = budget(12 << 20, 4 << 20);
        let mut first = budget.share();
        // The step from small to large counts all that is there.
        assert!(first.grow(1 << 20) && first.grow(3 << 20));
        let (mut second, mut third) = (budget.share(), budget.share());
        assert!(second.grow(4 << 20) && third.grow(1 << 20));
        // 4 + 4 + 2 of 9
        assert!(!third.grow(1 << 20));
        let mut small: Vec<Share> = (0..3).map(|_| budget.share()).collect();
        // 4 + 4 + 1 + 3 of 12
        assert!(small.iter_mut().all(|share| share.grow(1 << 20)));
        assert!(!budget.share().grow(1) && budget.bytes() == 12 << 20);
        drop(second);
        assert!(third.grow(1 << 20) && budget.bytes() == 9 << 20);
        third.give_back();
        drop((first, third, small));
        assert_eq!(budget.bytes(), 0);
        assert!(budget.held().large == 0);
    }

    #[test]
    fn the_largest_body_fits_where_nothing_is_held() {
        let budget = budget(10, 3 << 20);
        let mut share = budget.share();
        assert!(share.grow(3 << 20) && !share.grow(1 << 20));
    }
}
