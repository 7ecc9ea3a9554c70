//! VGG16: configuration D of "Very Deep Convolutional Networks for Large-Scale Image
//! Recognition", Karen Simonyan and Andrew Zisserman, 2014.
//!
//! Source: <https://arxiv.org/abs/1409.1556>. Keys as in torchvision's `vgg16`, names as in
//! `keras.applications.VGG16`.

use super::{
    FeatureLayer::{self, MaxPool},
    Tap,
};

/// The feature extractor: 224×224×3 to 7×7×512.
pub const LAYERS: &[FeatureLayer] = &[
    conv("features.0", "block1_conv1", 3, 64),
    conv("features.2", "block1_conv2", 64, 64),
    MaxPool { keras_name: "block1_pool" },
    conv("features.5", "block2_conv1", 64, 128),
    conv("features.7", "block2_conv2", 128, 128),
    MaxPool { keras_name: "block2_pool" },
    conv("features.10", "block3_conv1", 128, 256),
    conv("features.12", "block3_conv2", 256, 256),
    conv("features.14", "block3_conv3", 256, 256),
    MaxPool { keras_name: "block3_pool" },
    conv("features.17", "block4_conv1", 256, 512),
    conv("features.19", "block4_conv2", 512, 512),
    conv("features.21", "block4_conv3", 512, 512),
    MaxPool { keras_name: "block4_pool" },
    conv("features.24", "block5_conv1", 512, 512),
    conv("features.26", "block5_conv2", 512, 512),
    conv("features.28", "block5_conv3", 512, 512),
    MaxPool { keras_name: "block5_pool" },
];

/// The map of the fourth block after its pooling: 224×224×3 to 14×14×512.
pub(super) const FOURTH_BLOCK: Tap = Tap { layers: 14, side: 2 };

const fn conv(key: &'static str, keras_name: &'static str, inputs: usize, outputs: usize) -> FeatureLayer {
    FeatureLayer::Conv { key, batch_norm: None, keras_name, inputs, outputs }
}
