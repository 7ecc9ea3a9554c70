//! Where log lines go: stderr, and `logs/running_logs.log` of the project.

mod format;
mod rotate;

use std::{
    io::{self, Write},
    path::Path,
};

use anyhow::Context as _;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    Layer as _, filter::Targets, fmt::MakeWriter, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use self::{format::Line, rotate::RotatingFile};
use crate::{
    cli::{Global, LogFormat},
    output,
};

/// The current log file, below the project folder.
pub const LOG_FILE: &str = "logs/running_logs.log";
const MAX_BYTES: u64 = 10 * 1024 * 1024;
const KEPT: usize = 5;

/// Target of the event that holds a command's failure. On stderr the text form of it is rendered
/// by [`crate::errors`] instead, so that nobody reads it twice.
pub const FAILURE: &str = "nephros::failure";

/// Our crates; others are heard from warnings on.
const CRATES: [&str; 6] =
    ["nephros", "nephros_conv", "nephros_core", "nephros_train", "nephros_server", "nephros_serving"];

/// Begins to log; `project` is the folder to keep the log file in, if the command has one.
///
/// Where that file cannot be written, as in a read-only container, the console is enough.
pub fn start(global: &Global, project: Option<&Path>) -> anyhow::Result<()> {
    let format = global.log_format;
    let level = console_level(global);
    let console = tracing_subscriber::fmt::layer()
        .event_format(Line(format))
        .with_writer(Console)
        .with_filter(match format {
            LogFormat::Text => targets(level).with_target(FAILURE, LevelFilter::OFF),
            LogFormat::Json => targets(level),
        });
    let opened =
        project.map(|folder| RotatingFile::open(&folder.join(LOG_FILE), MAX_BYTES, KEPT)).transpose();
    let (file, failure) = opened.map_or_else(|error| (None, Some(error)), |file| (file, None));
    let file = file.map(|file| {
        tracing_subscriber::fmt::layer()
            .event_format(Line(format))
            .with_writer(file)
            .with_filter(targets(level.max(LevelFilter::INFO)))
    });
    tracing_subscriber::registry().with(console).with(file).try_init().context("cannot start logging")?;
    if let Some(error) = failure {
        tracing::warn!("no log file is kept: {error}");
    }
    Ok(())
}

fn console_level(global: &Global) -> LevelFilter {
    match (global.quiet, global.verbose) {
        (true, _) => LevelFilter::WARN,
        (false, 0) => LevelFilter::INFO,
        (false, 1) => LevelFilter::DEBUG,
        (false, _) => LevelFilter::TRACE,
    }
}

fn targets(level: LevelFilter) -> Targets {
    Targets::new().with_default(LevelFilter::WARN).with_targets(CRATES.map(|name| (name, level)))
}

/// stderr, with the bars out of the way.
#[derive(Debug, Clone, Copy)]
struct Console;

impl Write for Console {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        output::BARS.suspend(|| io::stderr().lock().write_all(line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Console {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        *self
    }
}
