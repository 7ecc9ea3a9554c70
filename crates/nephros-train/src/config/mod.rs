//! `config/config.yaml` and `params.yaml`.

mod params;
mod paths;

pub use params::{ClassWeights, LearningRateSchedule, Optimizer, Params, SplitBy, WeightsSource};
pub use paths::{Config, DataIngestion, PrepareBaseModel, Training};
