//! Holds the place of `nephros_train::prepare` until that module is declared.

use std::convert::Infallible;

use nephros_train::{progress::Progress, stages::Project};

/// Fails: the stage is not in the library yet.
pub fn prepare(_project: &Project, _progress: &dyn Progress) -> anyhow::Result<Infallible> {
    anyhow::bail!("stage `prepare` is not in the library yet")
}
