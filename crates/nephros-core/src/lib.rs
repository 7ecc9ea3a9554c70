//! Pixels in, probability and explanation out.
//!
//! Decoding, preprocessing, network definitions, model bundles, and files of other programs. No network, clock,
//! environment, async or global randomness: what comes out depends on what goes in.

pub mod abstention;
pub mod bundle;
pub mod calibration;
pub mod digest;
pub mod explain;
pub mod export;
pub mod hint;
pub mod input_gate;
pub mod keras;
pub mod network;
pub mod patient;
pub mod pixels;
pub mod predictor;
pub mod preprocessing;
pub mod weights;
