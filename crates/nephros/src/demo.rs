//! `demo`: everything on a drawn cohort.

use crate::{
    cli::{DemoArgs, Global},
    errors::Status,
};

/// Runs the command.
pub fn run(_args: &DemoArgs, _global: &Global) -> anyhow::Result<Status> {
    Err(crate::pending::Pending.into())
}
