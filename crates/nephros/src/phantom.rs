//! `phantom`: a drawn cohort in a folder.

use crate::{
    cli::{Global, PhantomArgs},
    errors::Status,
};

/// Runs the command.
pub fn run(_args: &PhantomArgs, _global: &Global) -> anyhow::Result<Status> {
    Err(crate::pending::Pending.into())
}
