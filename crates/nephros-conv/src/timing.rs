//! How long a forward pass takes.

use std::time::Instant;

/// Milliseconds an image over the timed rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    /// The middle one; of an even number of rounds, the slower of the middle two.
    pub median_ms: f64,
    /// The fastest.
    pub min_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

impl Timing {
    /// Times `rounds` calls of `forward` (at least one) on `batch` images, after two that fill
    /// buffers and caches.
    ///
    /// # Errors
    /// The first of `forward`.
    pub fn measure<E>(
        batch: usize,
        rounds: usize,
        mut forward: impl FnMut() -> Result<(), E>,
    ) -> Result<Self, E> {
        forward()?;
        forward()?;
        let mut times = Vec::with_capacity(rounds.max(1));
        for _ in 0..rounds.max(1) {
            let start = Instant::now();
            forward()?;
            times.push(start.elapsed().as_secs_f64() * 1e3 / batch.max(1) as f64);
        }
        times.sort_by(f64::total_cmp);
        Ok(Self { median_ms: times[times.len() / 2], min_ms: times[0], max_ms: times[times.len() - 1] })
    }
}

/// Peak resident memory of this process in MB of 1024 kB, where the system tells (Linux).
#[allow(clippy::disallowed_methods, reason = "no error is told, so none needs the file's name")]
pub fn peak_memory_mb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes / 1024)
}
