//! Ingest, split, train and evaluate kidney CT classifiers.

pub mod audit;
pub mod augment;
pub mod calibrate;
pub mod config;
pub mod controls;
pub mod crossval;
pub mod evaluate;
pub mod files;
pub mod ingest;
pub mod input_gate;
pub mod manifest;
pub mod orientation;
pub mod phantom;
pub mod prepare;
pub mod pretrained;
pub mod progress;
pub mod quantize;
pub mod recipe;
pub mod report;
pub mod split;
pub mod stages;
#[cfg(test)]
mod testing;
pub mod train;
