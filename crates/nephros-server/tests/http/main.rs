//! The service over HTTP: its contract, its errors, who is let in, many at once, and real sockets.

mod access;
mod concurrency;
mod contract;
mod errors;
mod logs;
mod page;
mod sockets;
mod support;
