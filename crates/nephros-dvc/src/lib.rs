//! DVC pipelines without DVC: `dvc.yaml` is read, what has changed is run, and `dvc.lock` and the cache are
//! written so that DVC finds them as it would have left them.
//!
//! It knows pipelines, files and hashes. Commands are run by a [`Shell`] that the caller describes.

mod cache;
pub mod command;
pub mod config;
pub mod digest;
mod error;
mod files;
mod git;
pub mod graph;
pub mod guard;
mod ignore_files;
mod json;
pub mod lock;
pub mod measure;
pub mod params;
pub mod pipeline;
mod place;
mod repo;
mod repro;
mod run_cache;
pub mod state;
mod status;
pub mod tree;
pub mod yaml;

pub use command::Shell;
pub use error::DvcError;
pub use place::RepoPath;
pub use repo::Repo;
pub use repro::{Event, Request, Summary, Watcher, repro};
pub use status::{Change, StageStatus, status};
