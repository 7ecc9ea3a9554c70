//! How long an image takes, as measured.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Weight of the newest batch.
const NEWEST: f64 = 0.2;

/// Moving mean of the seconds an image; nothing is known before the first batch.
#[derive(Debug, Default)]
pub(crate) struct Rate(AtomicU64);

impl Rate {
    /// Notes a batch.
    pub(crate) fn note(&self, images: usize, took: Duration) {
        let newest = took.as_secs_f64() / images.max(1) as f64;
        let before = self.seconds();
        let mean = if before == 0.0 { newest } else { NEWEST.mul_add(newest - before, before) };
        // Of two batches noted at once one may be lost, which a mean bears.
        self.0.store(mean.to_bits(), Ordering::Relaxed);
    }

    /// Seconds an image; 0 where nothing is known.
    pub(crate) fn seconds(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    /// Time that `images` will take.
    pub(crate) fn time_of(&self, images: usize) -> Duration {
        Duration::from_secs_f64(self.seconds() * images as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_follows_what_is_measured() {
        let rate = Rate::default();
        assert_eq!(rate.time_of(10), Duration::ZERO);
        rate.note(4, Duration::from_millis(400));
        // 0.1 s an image, ten of them
        assert_eq!(rate.time_of(10), Duration::from_secs(1));
        rate.note(1, Duration::from_millis(200));
        // 0.1 + 0.2 × (0.2 − 0.1)
        assert!((rate.seconds() - 0.12).abs() < 1e-12);
    }
}
