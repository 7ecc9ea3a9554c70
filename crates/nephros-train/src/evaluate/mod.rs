//! Scores on images that training never saw.

pub mod interval;
pub mod metrics;
mod stage;

pub use stage::{EvaluateError, Scores, evaluate};
