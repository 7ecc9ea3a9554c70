//! Scores on images that training never saw.

mod doubt;
mod gate;
pub mod interval;
mod look;
pub mod metrics;
mod patients;
mod reliability;
mod stage;

pub use doubt::{AbstentionScores, Before, CalibrationScores};
pub(crate) use doubt::{Doubt, abstention_scores, calibration_scores};
pub use gate::{SplitFacts, gate};
pub use patients::PatientScores;
pub(crate) use patients::patient_scores;
pub use reliability::{BINS, Bin};
pub(crate) use stage::table;
pub use stage::{EvaluateError, Scores, evaluate};
