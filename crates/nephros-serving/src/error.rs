use std::time::Duration;

use nephros_core::pixels::DecodeError;

use crate::BoxError;

/// The queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{waiting} images are waiting")]
pub struct Overloaded {
    /// Images taken and not yet answered.
    pub waiting: usize,
    /// Time in which those will be answered, by the measured rate.
    pub retry_after: Duration,
}

/// An image that got no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServingError {
    /// The bytes are no image that can be decoded.
    #[error(transparent)]
    Image(#[from] DecodeError),
    /// Its turn did not come in time.
    #[error("no answer within {within:?}")]
    Deadline {
        /// The time it had.
        within: Duration,
        /// Time in which what waits will be answered, by the measured rate.
        retry_after: Duration,
    },
    /// The model failed.
    #[error("the model failed")]
    Model(#[source] BoxError),
    /// The model's answer has not a finite probability for each label.
    #[error("expected a finite probability for each of {labels} labels, got {got:?}")]
    Answer {
        /// Labels of the model.
        labels: usize,
        /// Its probabilities.
        got: Vec<f32>,
    },
    /// A bug: the work ended without an answer.
    #[error("the work panicked: {text}")]
    Panicked {
        /// What the panic said.
        text: String,
    },
}
