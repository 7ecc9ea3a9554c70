//! Bars on a terminal, log lines elsewhere.

use std::{
    io::{self, IsTerminal as _},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use nephros_train::progress::{Progress, Task, Unit};

use crate::{
    cli::{Global, LogFormat},
    interrupt, output,
};

/// How the progress of this process is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Display {
    /// Bars on the terminal.
    Bars,
    /// Log lines, few enough for a log file.
    Lines,
    /// Nothing.
    Hidden,
}

impl Display {
    /// What fits the options and the terminal.
    pub fn new(global: &Global) -> Self {
        if global.quiet {
            Self::Hidden
        } else if io::stderr().is_terminal() && global.log_format == LogFormat::Text {
            Self::Bars
        } else {
            Self::Lines
        }
    }
}

impl Progress for Display {
    fn task(&self, name: &str, total: Option<u64>, unit: Unit) -> Box<dyn Task> {
        match self {
            Self::Bars => Box::new(Bar::new(name, total, unit)),
            Self::Lines => Box::new(Lines::new(name, total, unit)),
            Self::Hidden => Box::new(nephros_train::progress::Silent),
        }
    }

    fn is_cancelled(&self) -> bool {
        interrupt::requested()
    }
}

struct Bar(ProgressBar);

impl Bar {
    fn new(name: &str, total: Option<u64>, unit: Unit) -> Self {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
        let bar = output::BARS.add(bar.with_style(style(total.is_some(), unit)).with_prefix(name.to_owned()));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }
}

fn style(total_known: bool, unit: Unit) -> ProgressStyle {
    let template = match (total_known, unit) {
        (true, Unit::Items) => "{prefix:<24} {bar:30} {pos}/{len} {eta:>4} {wide_msg}",
        (true, Unit::Bytes) => {
            "{prefix:<24} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta:>4} {wide_msg}"
        }
        (false, Unit::Items) => "{prefix:<24} {spinner} {pos} {elapsed:>4} {wide_msg}",
        (false, Unit::Bytes) => "{prefix:<24} {spinner} {bytes} {bytes_per_sec} {wide_msg}",
    };
    // The templates are ours; a mistake in one falls back to a plain bar.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Task for Bar {
    fn advance(&self, amount: u64) {
        self.0.inc(amount);
    }

    fn message(&self, text: &str) {
        self.0.set_message(text.to_owned());
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
        output::BARS.remove(&self.0);
    }
}

/// Share of the work between two lines, unless [`LONGEST_SILENCE`] has passed.
const STEP: f64 = 0.1;
const SHORTEST_SILENCE: Duration = Duration::from_secs(2);
const LONGEST_SILENCE: Duration = Duration::from_secs(30);

struct Lines {
    name: String,
    total: Option<u64>,
    unit: Unit,
    begun: Instant,
    state: Mutex<LinesState>,
}

struct LinesState {
    done: u64,
    message: String,
    told_at: Instant,
    told_done: u64,
}

impl Lines {
    fn new(name: &str, total: Option<u64>, unit: Unit) -> Self {
        let begun = Instant::now();
        let state = LinesState { done: 0, message: String::new(), told_at: begun, told_done: 0 };
        Self { name: name.to_owned(), total, unit, begun, state: Mutex::new(state) }
    }

    fn count(&self, amount: u64) -> String {
        match self.unit {
            Unit::Items => amount.to_string(),
            Unit::Bytes => HumanBytes(amount).to_string(),
        }
    }

    fn describe(&self, state: &LinesState) -> String {
        let (name, done) = (&self.name, self.count(state.done));
        let mut line = match self.total.filter(|&total| total > 0) {
            Some(total) => {
                let percent = 100.0 * state.done as f64 / total as f64;
                format!("{name}: {done} of {} ({percent:.0} %)", self.count(total))
            }
            None => format!("{name}: {done}"),
        };
        if !state.message.is_empty() {
            line += ", ";
            line += &state.message;
        }
        line
    }
}

/// Whether the next line may be printed: not in a burst, not for little, not too late.
fn due(silence: Duration, share: Option<f64>) -> bool {
    silence >= LONGEST_SILENCE || (silence >= SHORTEST_SILENCE && share.is_some_and(|share| share >= STEP))
}

impl Task for Lines {
    fn advance(&self, amount: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.done += amount;
        let share = self.total.map(|total| (state.done - state.told_done) as f64 / total.max(1) as f64);
        if due(state.told_at.elapsed(), share) {
            state.told_at = Instant::now();
            state.told_done = state.done;
            tracing::info!("{}", self.describe(&state));
        }
    }

    fn message(&self, text: &str) {
        text.clone_into(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner).message);
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let elapsed = self.begun.elapsed();
        if elapsed >= SHORTEST_SILENCE {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            tracing::info!("{}, {:.1} s", self.describe(&state), elapsed.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_neither_a_flood_nor_a_silence() {
        let seconds = Duration::from_secs;
        assert!(!due(seconds(1), Some(0.9)), "a burst");
        assert!(due(seconds(2), Some(0.1)), "10 % after 2 s");
        assert!(!due(seconds(29), Some(0.05)), "little done");
        assert!(due(seconds(30), Some(0.0)), "long silence");
        assert!(!due(seconds(29), None) && due(seconds(30), None), "unknown total");
    }

    #[test]
    fn a_line_says_how_far_it_is() {
        let task = Lines::new("reading", Some(200), Unit::Items);
        task.advance(50);
        task.message("loss 0.5");
        let state = task.state.lock().unwrap();
        // 50/200
        assert_eq!(task.describe(&state), "reading: 50 of 200 (25 %), loss 0.5");
        drop(state);
        let task = Lines::new("download", None, Unit::Bytes);
        task.advance(2048);
        assert_eq!(task.describe(&task.state.lock().unwrap()), "download: 2.00 KiB");
    }
}
