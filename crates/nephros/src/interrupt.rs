//! Ctrl-C and SIGTERM: the first asks for a clean stop, the second aborts.

use std::{
    process,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::Context as _;
use tokio::sync::Notify;

use crate::output;

/// Exit status of a command that was stopped: 128 + SIGINT, as shells report it.
pub const EXIT_STOPPED: u8 = 130;

static REQUESTED: AtomicBool = AtomicBool::new(false);
static WAITING: Notify = Notify::const_new();

/// Begins to listen for the signals.
pub fn listen() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        if REQUESTED.swap(true, Ordering::SeqCst) {
            process::exit(i32::from(EXIT_STOPPED));
        }
        output::note("stopping at the next safe point; press Ctrl-C again to abort");
        WAITING.notify_one();
    })
    .context("cannot listen for Ctrl-C")
}

/// Whether a stop was asked for.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// Ready once a stop is asked for; one waiter at a time.
pub async fn wait() {
    WAITING.notified().await;
}
