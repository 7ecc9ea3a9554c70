//! What can be wrong with a network or its input.

use crate::{Isa, Shape};

/// A network that does not fit together, or an input that does not fit the network.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConvError {
    /// A weight or bias array has the wrong number of elements for its layer.
    #[error("layer {layer}: expected {expected} values in the {what}, got {got}")]
    WeightLength {
        /// Position in the chain, from 0.
        layer: usize,
        /// `kernel` or `bias`.
        what: &'static str,
        /// Elements that the shapes call for.
        expected: usize,
        /// Elements given.
        got: usize,
    },
    /// A layer cannot take what the layer before it gives.
    #[error("layer {layer}: {why} (its input is {input})")]
    Incompatible {
        /// Position in the chain, from 0.
        layer: usize,
        /// Shape that reaches the layer.
        input: Shape,
        /// What the layer needs.
        why: &'static str,
    },
    /// The input or output slice has the wrong length.
    #[error("expected {expected} values in the {what} ({batch} images), got {got}")]
    BufferLength {
        /// `input` or `output`.
        what: &'static str,
        /// Images in the batch.
        batch: usize,
        /// Values that the batch calls for.
        expected: usize,
        /// Values given.
        got: usize,
    },
    /// The input holds a NaN or an infinity.
    #[error("image {image} of the batch holds {value} at position {position}, expected finite values")]
    NotFinite {
        /// Image of the batch, from 0.
        image: usize,
        /// Position in the image's values, from 0.
        position: usize,
        /// The value.
        value: f32,
    },
    /// The processor lacks an instruction set that was asked for.
    #[error("expected a processor with {isa}, got one without it")]
    Isa {
        /// The instruction set.
        isa: Isa,
    },
    /// A calibration is of other layers.
    #[error("expected a calibration of {expected} convolutions, got one of {got}")]
    Calibration {
        /// Convolutions of the network.
        expected: usize,
        /// Convolutions of the calibration.
        got: usize,
    },
}
