//! Networks as data: one file each, read by the inference engine and by the trainer alike.

mod build;
pub mod compact;
mod features;
mod hypercolumn;
mod places;
mod quantized;
pub mod vgg16;

use std::fmt;

use nephros_conv::Shape;
use serde::{Deserialize, Serialize};

pub use build::NetworkError;
pub(crate) use build::dense;
pub use features::{Features, Precision};
pub use hypercolumn::LEAST_SQUARE;
pub use places::{EVIDENCE, PlaceHead, WINDOW, Winner};

/// Added to the variance in every batch norm, in training and when folding.
pub const BATCH_NORM_EPSILON: f32 = 1e-5;

/// The networks that nephros knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// Configuration D of Simonyan and Zisserman, 2014.
    Vgg16,
    /// The same, with the map of its fourth block beside its last one.
    #[serde(rename = "vgg16-hypercolumn")]
    Vgg16Hypercolumn,
    /// A small network for training from scratch.
    Compact,
    /// Its map before the last pooling, of which the place that shows most of a class answers.
    #[serde(rename = "compact-places")]
    CompactPlaces,
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

/// An earlier map that is joined to the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tap {
    /// Of the layers how many make it; the last of these is a pooling.
    pub layers: usize,
    /// Rows and columns of it for a place of the last map.
    pub side: usize,
}

impl Architecture {
    /// The feature extractor, first layer first.
    pub fn layers(self) -> &'static [FeatureLayer] {
        match self {
            Self::Vgg16 | Self::Vgg16Hypercolumn => vgg16::LAYERS,
            Self::Compact => compact::LAYERS,
            Self::CompactPlaces => compact::LAYERS.split_at(compact::PLACES).0,
        }
    }

    /// The earlier map that is joined to the last one; `None` where the last map is all that the head sees.
    pub fn tap(self) -> Option<Tap> {
        (self == Self::Vgg16Hypercolumn).then_some(vgg16::FOURTH_BLOCK)
    }

    /// Whether the head judges each place of the map ([`PlaceHead`]), not the map as a whole.
    pub fn judges_places(self) -> bool {
        self == Self::CompactPlaces
    }

    /// The least height and width of an image: that of which the head still has a place, or a window of places.
    pub fn least_side(self) -> usize {
        let places = if self.judges_places() { WINDOW } else { 1 };
        places * self.place_side()
    }

    /// Rows and columns of the image for a place of the map that the layers make.
    pub fn place_side(self) -> usize {
        let is_pooling = |layer: &&FeatureLayer| matches!(layer, FeatureLayer::MaxPool { .. });
        1 << self.layers().iter().filter(is_pooling).count()
    }

    /// Whether trained weights of it are published, which a training may leave as they are.
    pub fn is_published(self) -> bool {
        match self {
            Self::Vgg16 | Self::Vgg16Hypercolumn => true,
            Self::Compact | Self::CompactPlaces => false,
        }
    }

    /// The name in params.yaml and bundles.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vgg16 => "vgg16",
            Self::Vgg16Hypercolumn => "vgg16-hypercolumn",
            Self::Compact => "compact",
            Self::CompactPlaces => "compact-places",
        }
    }

    /// Shape of the map that the head sees for an input of `[height, width, channels]`; an axis is
    /// zero when the image is too small for the network.
    pub fn feature_shape(self, image_size: [usize; 3]) -> Shape {
        let last = self.shape_after(image_size, self.layers().len());
        self.tap().map_or(last, |tap| hypercolumn::joined(self.shape_after(image_size, tap.layers), last))
    }

    /// Shape of the map after the first `count` layers.
    fn shape_after(self, image_size: [usize; 3], count: usize) -> Shape {
        let [height, width, channels] = image_size;
        let layers = self.layers().iter().take(count);
        layers.fold(Shape { height, width, channels }, |shape, layer| match *layer {
            FeatureLayer::Conv { outputs, .. } => Shape { channels: outputs, ..shape },
            FeatureLayer::MaxPool { .. } => {
                Shape { height: shape.height / 2, width: shape.width / 2, ..shape }
            }
            FeatureLayer::GlobalAveragePool => Shape { height: 1, width: 1, ..shape },
        })
    }

    /// Inputs of the head for an input of `[height, width, channels]`; zero when the image is
    /// too small for the network.
    pub fn feature_len(self, image_size: [usize; 3]) -> usize {
        self.feature_shape(image_size).len()
    }

    /// Key and shape of every array of a model, features first, in the order of the layers.
    ///
    /// # Shapes
    /// As in [`crate::weights::Weights`]: convolutions `[out, in, 3, 3]`, dense layers
    /// `[out, in]`.
    pub fn expected_shapes(
        self,
        labels: usize,
        hidden_units: usize,
        image_size: [usize; 3],
    ) -> Vec<(String, Vec<usize>)> {
        let mut shapes = self.expected_feature_shapes();
        shapes.extend(self.head_shapes(image_size, hidden_units, labels));
        shapes
    }

    /// Arrays of the head: `head.hidden.*` where `hidden_units` is not zero, or `head.places.*`, then `head.*`.
    fn head_shapes(
        self,
        image_size: [usize; 3],
        hidden_units: usize,
        labels: usize,
    ) -> Vec<(String, Vec<usize>)> {
        let dense = |key: &str, inputs, outputs| {
            [(format!("{key}.weight"), vec![outputs, inputs]), (format!("{key}.bias"), vec![outputs])]
        };
        let features = self.feature_shape(image_size);
        if self.judges_places() {
            let kinds = labels.saturating_sub(1);
            let evidence = dense(EVIDENCE, features.channels, kinds);
            return evidence.into_iter().chain(dense("head", kinds, labels)).collect();
        }
        if hidden_units == 0 {
            return dense("head", features.len(), labels).into();
        }
        let hidden = dense("head.hidden", features.len(), hidden_units);
        hidden.into_iter().chain(dense("head", hidden_units, labels)).collect()
    }

    /// The part of [`Self::expected_shapes`] that does not depend on the head.
    pub fn expected_feature_shapes(self) -> Vec<(String, Vec<usize>)> {
        let mut shapes = Vec::new();
        for layer in self.layers() {
            let FeatureLayer::Conv { key, batch_norm, inputs, outputs, .. } = *layer else { continue };
            shapes.push((format!("{key}.weight"), vec![outputs, inputs, 3, 3]));
            shapes.push((format!("{key}.bias"), vec![outputs]));
            if let Some(key) = batch_norm {
                shapes.extend(BATCH_NORM_ARRAYS.map(|array| (format!("{key}.{array}"), vec![outputs])));
            }
        }
        shapes
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Arrays of a batch norm, in torchvision's order: scale, shift, mean, variance.
const BATCH_NORM_ARRAYS: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];
