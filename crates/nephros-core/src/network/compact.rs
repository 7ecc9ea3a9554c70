//! A small network of 3×3 convolutions with batch norm, for training from scratch.

use super::FeatureLayer::{self, Conv, GlobalAveragePool, MaxPool};

const fn conv(
    key: &'static str,
    norm: &'static str,
    keras_name: &'static str,
    inputs: usize,
    outputs: usize,
) -> FeatureLayer {
    Conv { key, batch_norm: Some(norm), keras_name, inputs, outputs }
}

/// The feature extractor.
pub const LAYERS: &[FeatureLayer] = &[
    conv("features.0", "features.1", "conv1", 3, 16),
    MaxPool { keras_name: "pool1" },
    conv("features.4", "features.5", "conv2", 16, 32),
    MaxPool { keras_name: "pool2" },
    conv("features.8", "features.9", "conv3", 32, 64),
    MaxPool { keras_name: "pool3" },
    conv("features.12", "features.13", "conv4", 64, 128),
    MaxPool { keras_name: "pool4" },
    conv("features.16", "features.17", "conv5", 128, 128),
    GlobalAveragePool,
];
