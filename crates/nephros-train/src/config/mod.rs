//! `config/config.yaml` and `params.yaml`.

mod error;
mod params;
mod paths;
mod validate;

use std::{io, path::Path};

use nephros_core::network::Architecture;
use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};

pub use error::{ConfigError, InvalidValue};
pub use params::{
    ClassWeights, LearningRateSchedule, Optimizer, Params, Pooling, Sampling, SplitBy, WeightsSource,
};
pub use paths::{Config, DataIngestion, Mlflow, PrepareBaseModel, Store, Training};

/// `config/config.yaml` of a new project: the reference's keys and values, ours explained.
pub const CONFIG_TEMPLATE: &str = include_str!("config.yaml");
/// `params.yaml` of a new project: VGG16 as in the reference, all defaults explained.
pub const PARAMS_TEMPLATE: &str = include_str!("params.yaml");
/// `params.yaml` of `nephros demo`: the compact network from scratch.
pub const PARAMS_DEMO_TEMPLATE: &str = include_str!("params.demo.yaml");

impl Config {
    /// Reads and checks a `config.yaml`.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(path, &read(path)?)
    }

    /// Parses and checks the text of a `config.yaml`; `path` is for messages.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Self = parse(path, text)?;
        config.validate().map_err(|error| ConfigError::from_value(path, text, error))?;
        Ok(config)
    }
}

impl Params {
    /// Reads and checks a `params.yaml`.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(path, &read(path)?)
    }

    /// Parses and checks the text of a `params.yaml`; `path` is for messages.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut params: Self = parse(path, text)?;
        if params.weights == WeightsSource::None && !names_architecture(path, text) {
            // VGG16 learns nothing of use from a random start and few patients.
            params.architecture = Architecture::Compact;
        }
        params.validate().map_err(|error| ConfigError::from_value(path, text, error))?;
        Ok(params)
    }
}

/// Whether a `params.yaml` that could be parsed says which network to use.
fn names_architecture(path: &Path, text: &str) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
    struct Named {
        architecture: Option<IgnoredAny>,
    }
    // A value that this reading refuses, such as NaN, is one that validation refuses with its key.
    parse::<Named>(path, text).is_ok_and(|named| named.architecture.is_some())
}

fn read(path: &Path) -> Result<String, ConfigError> {
    match fs_err::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(ConfigError::Missing { path: path.into() })
        }
        other => Ok(other?),
    }
}

fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    let options = serde_saphyr::options! {
        strict_booleans: true,
    };
    serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| ConfigError::from_yaml(path, text, &error))
}
