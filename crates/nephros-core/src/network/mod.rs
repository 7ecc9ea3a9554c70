//! Networks as data: one file each, read by the inference engine and by the trainer alike.

pub mod compact;
pub mod vgg16;

use serde::{Deserialize, Serialize};

/// The networks that nephros knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// Configuration D of Simonyan and Zisserman, 2014.
    Vgg16,
    /// A small network for training from scratch.
    Compact,
}

/// One layer of a feature extractor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeatureLayer {
    /// 3×3 convolution with ReLU, and batch norm between the two where `batch_norm`.
    Conv {
        /// Checkpoint key of the convolution, such as `features.0`.
        key: &'static str,
        /// Checkpoint key of the batch norm that follows, if one does.
        batch_norm: Option<&'static str>,
        /// Name in Keras files, such as `block1_conv1`.
        keras_name: &'static str,
        /// Input channels.
        inputs: usize,
        /// Output channels.
        outputs: usize,
    },
    /// 2×2 maximum with stride 2.
    MaxPool {
        /// Name in Keras files, such as `block1_pool`.
        keras_name: &'static str,
    },
    /// Mean over rows and columns.
    GlobalAveragePool,
}

impl Architecture {
    /// The feature extractor, first layer first.
    pub fn layers(self) -> &'static [FeatureLayer] {
        match self {
            Self::Vgg16 => vgg16::LAYERS,
            Self::Compact => compact::LAYERS,
        }
    }
}
