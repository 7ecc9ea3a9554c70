//! The built binary with its real store, when something breaks: it is killed, its disk is full, its database
//! is gone.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]
#![allow(clippy::print_stdout, reason = "what is left out is said, and figures")]
#![cfg(unix)]

mod bed;
#[path = "../common/mod.rs"]
mod common;
mod crash;
#[path = "../../../nephros-store/tests/store/disk.rs"]
mod disk;
mod outage;
#[allow(dead_code, reason = "the store's tests use more of it")]
#[path = "../../../nephros-store/tests/store/postgres.rs"]
mod postgres;
