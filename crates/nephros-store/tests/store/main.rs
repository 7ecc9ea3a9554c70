//! The store on SQLite and on a real PostgreSQL: the same tests for both.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]
#![allow(clippy::print_stdout, reason = "what is left out is said")]

mod backup;
mod bed;
mod crash;
mod disk;
mod outage;
mod postgres;
mod suite;
mod tamper;

/// Runs tests that take a [`bed::Bed`] on both databases.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test] async fn $name() { super::$name(crate::bed::Bed::sqlite()).await })*
        }
        mod on_postgres {
            $(#[tokio::test] async fn $name() {
                if let Some(bed) = crate::bed::Bed::postgres() {
                    super::$name(bed).await
                }
            })*
        }
    };
}
pub(crate) use on_both;
