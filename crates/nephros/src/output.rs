//! Results on stdout, remarks on stderr, and the bars that both must not tear.

use std::{
    io::{self, IsTerminal as _, Write},
    sync::LazyLock,
};

use indicatif::MultiProgress;

/// All bars of the process; anything else that writes to the terminal suspends them.
pub static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// The reader of stdout is gone, as with `| head`; no failure of ours.
#[derive(Debug, thiserror::Error)]
#[error("the reader of the output is gone")]
pub struct StdoutClosed;

/// Writes a line of results to stdout.
///
/// # Errors
/// [`StdoutClosed`], or another error of stdout.
pub fn line(text: &str) -> anyhow::Result<()> {
    text_block(&format!("{text}\n"))
}

/// Writes results to stdout as they are.
///
/// # Errors
/// [`StdoutClosed`], or another error of stdout.
pub fn text_block(text: &str) -> anyhow::Result<()> {
    let write = || {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()
    };
    // Bars are on stderr: they are in the way only when both are the same terminal.
    let result = if io::stdout().is_terminal() { BARS.suspend(write) } else { write() };
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(StdoutClosed.into()),
        Err(error) => Err(anyhow::Error::new(error).context("cannot write to stdout")),
        Ok(()) => Ok(()),
    }
}

/// Writes a remark to stderr; a closed stderr is nobody's loss.
pub fn note(text: &str) {
    BARS.suspend(|| {
        let _ = writeln!(io::stderr().lock(), "{text}");
    });
}
