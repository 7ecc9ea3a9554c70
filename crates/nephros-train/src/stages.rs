//! The four stages, each on its own.

use std::path::PathBuf;

use crate::config::{Config, Params};

/// A project folder with its configuration loaded.
#[derive(Debug, Clone)]
pub struct Project {
    /// The folder that relative paths start from.
    pub root: PathBuf,
    /// `config/config.yaml`.
    pub config: Config,
    /// `params.yaml`.
    pub params: Params,
}
