//! Compact: a small all-3×3 network with batch norm, trained from scratch in minutes on a CPU.
//!
//! The plan is VGG's (Source: <https://arxiv.org/abs/1409.1556>) at a fraction of the width, with
//! batch norm (Source: <https://arxiv.org/abs/1502.03167>) and a global average in place of the
//! flattened map, so that the head does not learn where in the slice a kidney lies. Keys count
//! modules as torchvision's `vgg*_bn` do: convolution, batch norm, ReLU, pooling. The Keras name
//! of a batch norm is that of its convolution with `bn` for `conv`.

use super::FeatureLayer::{self, GlobalAveragePool, MaxPool};

/// The feature extractor: 1/16 of the height and width, averaged to 128 values.
pub const LAYERS: &[FeatureLayer] = &[
    conv("features.0", "features.1", "conv1", 3, 16),
    MaxPool { keras_name: "pool1" },
    conv("features.4", "features.5", "conv2", 16, 32),
    MaxPool { keras_name: "pool2" },
    conv("features.8", "features.9", "conv3", 32, 64),
    MaxPool { keras_name: "pool3" },
    conv("features.12", "features.13", "conv4", 64, 96),
    conv("features.15", "features.16", "conv5", 96, 128),
    MaxPool { keras_name: "pool4" },
    conv("features.19", "features.20", "conv6", 128, 128),
    GlobalAveragePool,
];

/// Of these how many make the map that `compact-places` judges: 1/8 of the height and width, 128 channels.
pub const PLACES: usize = 8;

const fn conv(
    key: &'static str,
    batch_norm: &'static str,
    keras_name: &'static str,
    inputs: usize,
    outputs: usize,
) -> FeatureLayer {
    FeatureLayer::Conv { key, batch_norm: Some(batch_norm), keras_name, inputs, outputs }
}
