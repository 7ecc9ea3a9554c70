//! What stands between a service and its models: a bounded queue for each model, batches, deadlines,
//! and the change from one model to the next.
//!
//! An image comes encoded and goes through three hands:
//!
//! 1. [`Lane::reserve`] gives it a place, or says when to come again.
//! 2. It is decoded and prepared on a thread of its own, as many at a time as there are cores.
//! 3. It waits in its model's queue. Whoever finds nobody at work there takes what waits as one batch, and
//!    goes on until nothing waits. No image waits for a batch to fill.
//!
//! **Invariant:** it knows no HTTP, no file and no configuration.
//!
//! **Invariant:** a batch is of one model. A [`Lane`] has one model for good; another model is another lane.
//!
//! **Invariant:** work for which nobody waits any more is not begun.

mod error;
mod lane;
mod model;
mod rate;
mod slot;

pub use error::{Overloaded, ServingError};
pub use lane::{Answered, Ask, Engine, Lane, Options, Place, Timings};
pub use model::{BoxError, Classified, Classifier, Provenance};
pub use slot::Slot;
