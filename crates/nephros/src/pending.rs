//! Stand-ins for what sibling branches bring; gone when they are merged.
use std::fmt;

use nephros_train::{progress::Progress, stages::Project};

#[derive(Debug, thiserror::Error)]
#[error("not built yet")]
pub struct Pending;

pub struct Summary;
impl fmt::Display for Summary {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}
pub fn stage(_project: &Project, _progress: &dyn Progress) -> Result<Summary, Pending> {
    Err(Pending)
}

#[derive(Debug)]
pub struct Scores {
    pub metrics: Metrics,
    pub intervals: Intervals,
    pub n: usize,
    pub n_patients: usize,
    pub majority_accuracy: f64,
}
#[derive(Debug)]
pub struct Metrics {
    pub accuracy: f64,
    pub auroc: Option<f64>,
    pub sensitivity: f64,
    pub specificity: f64,
}
#[derive(Debug)]
pub struct Intervals {
    pub accuracy: [f64; 2],
    pub auroc: Option<[f64; 2]>,
    pub sensitivity: [f64; 2],
    pub specificity: [f64; 2],
}
pub fn evaluate(_project: &Project, _progress: &dyn Progress) -> Result<Scores, Pending> {
    Err(Pending)
}
impl fmt::Display for Scores {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}
