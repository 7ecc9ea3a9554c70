//! CPU convolution kernels.
//!
//! A [`Network`] is a chain of layers over images in `[batch, height, width, channels]` order,
//! compiled once (weights packed) and then run on as many images as wanted. This is the only
//! crate of the workspace that may hold `unsafe` code.

mod convolution;
mod dense;
mod error;
mod kernels;
mod mapped;
mod memory;
mod network;
mod pooling;
mod quantized;
mod tiling;
mod timing;
pub mod training;
mod vector;
mod winograd;

pub use error::ConvError;
pub use kernels::Isa;
pub use mapped::MappedFile;
pub use network::{Layer, Network, NetworkBuilder, Options, Shape};
pub use quantized::{Calibration, Calibrator, QuantizedBuilder, QuantizedKernel, QuantizedNetwork};
pub use tiling::Tiling;
pub use timing::{Timing, peak_memory_mb};
