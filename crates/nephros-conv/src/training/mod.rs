//! Forward and backward pass of the networks that nephros trains, on the CPU.
//!
//! A [`TrainableNetwork`] knows one family of layers: 3×3 convolution with ReLU and, where wanted,
//! batch norm; 2×2 maximum; a mean or maximum over the map at the end. It keeps no parameters: they
//! are given to each forward pass and their gradients returned by the backward pass, both in the
//! layout of checkpoints.
//!
//! Maps are `[batch, height, width, channels]`. A layer is one pass over the images, in which an
//! image (or a block of its rows) goes through everything that can be done to it before the batch's
//! statistics are needed: activation of the layer below, convolution, sums. The backward pass does
//! the same the other way round.
//!
//! Results do not depend on the number of threads: images are independent, or are summed in groups
//! that the size of the batch decides, first to last.

mod activation;
mod convolve;
mod features;
mod lanes;
mod map;
mod network;
mod pack;
mod plan;
mod statistics;

pub use network::{BlockGradients, BlockParameters, NormGradients, NormParameters, TrainableNetwork};
pub use plan::TrainableLayer;
pub use statistics::{BATCH_NORM_EPSILON, BatchStatistics};
