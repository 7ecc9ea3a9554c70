//! The service over HTTP: its contract, its errors, who is let in, many at once, and real sockets.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod access;
mod concurrency;
mod contract;
mod errors;
mod jobs;
mod logs;
mod many;
mod openapi;
mod operation;
mod page;
mod sockets;
mod support;
