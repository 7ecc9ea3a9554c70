//! The one preprocessing function, called by training, evaluation and serving alike.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::pixels::{BodyOf, Crop, Frame, Resample, RgbImage, cut, resize};

/// Means of blue, green and red over ImageNet, 0 to 255.
const CAFFE_MEANS: [f32; 3] = [103.939, 116.779, 123.68];
/// Means of red, green and blue over ImageNet, 0 to 1.
const TORCHVISION_MEANS: [f32; 3] = [0.485, 0.456, 0.406];
/// Standard deviations of red, green and blue over ImageNet, 0 to 1.
const TORCHVISION_STDS: [f32; 3] = [0.229, 0.224, 0.225];

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
    /// What of the image is resized.
    #[serde(default, skip_serializing_if = "Crop::is_none")]
    pub crop: Crop,
    /// What the crop takes for the body.
    #[serde(default, skip_serializing_if = "BodyOf::is_default")]
    pub body: BodyOf,
}

impl Preprocessing {
    /// The whole image, resized by the triangle filter.
    pub fn new(image_size: [usize; 3], normalization: Normalization) -> Self {
        let (resample, crop, body) = (Resample::Bilinear, Crop::None, BodyOf::default());
        Self { image_size, resample, normalization, crop, body }
    }

    /// Crops as [`Crop`] says and resizes to `image_size`.
    pub fn resize(&self, image: &RgbImage) -> RgbImage {
        self.resize_as(image, image)
    }

    /// As [`Self::resize`], of `shown`, a picture of the same size, framed as the image is: a mask of it.
    pub fn resize_as(&self, image: &RgbImage, shown: &RgbImage) -> RgbImage {
        let [height, width, _] = self.image_size;
        resize(&self.crop_as(image, shown), width, height, self.resample)
    }

    /// What of the image [`Self::resize`] stretches to `image_size`.
    pub fn frame(&self, image: &RgbImage) -> Frame {
        let [height, width, _] = self.image_size;
        self.crop.frame(self.body, image, height, width)
    }

    /// What [`Self::frame`] shows, black where it leaves the image.
    pub fn crop<'a>(&self, image: &'a RgbImage) -> Cow<'a, RgbImage> {
        self.crop_as(image, image)
    }

    fn crop_as<'a>(&self, image: &RgbImage, shown: &'a RgbImage) -> Cow<'a, RgbImage> {
        match self.crop {
            Crop::None => Cow::Borrowed(shown),
            Crop::Body | Crop::Band => Cow::Owned(cut(shown, self.frame(image))),
        }
    }

    /// Normalises `[height, width, 3]` RGB values of 0 to 255 in place; whole pixels only.
    pub fn normalize(&self, values: &mut [f32]) {
        let pixels = values.as_chunks_mut::<3>().0.iter_mut();
        match self.normalization {
            Normalization::Caffe => pixels.for_each(|pixel| {
                let [red, green, blue] = *pixel;
                *pixel = [blue - CAFFE_MEANS[0], green - CAFFE_MEANS[1], red - CAFFE_MEANS[2]];
            }),
            Normalization::Torchvision => pixels.for_each(|pixel| {
                for ((value, mean), deviation) in
                    pixel.iter_mut().zip(TORCHVISION_MEANS).zip(TORCHVISION_STDS)
                {
                    *value = (*value / 255.0 - mean) / deviation;
                }
            }),
            Normalization::Unit => pixels.for_each(|pixel| *pixel = pixel.map(|value| value / 255.0)),
        }
    }

    /// Image to network input, `[height, width, 3]`.
    pub fn apply(&self, image: &RgbImage) -> Vec<f32> {
        let resized = self.resize(image);
        let mut values: Vec<f32> = resized.pixels().iter().map(|&value| f32::from(value)).collect();
        self.normalize(&mut values);
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalized(normalization: Normalization, pixel: [f32; 3]) -> [f32; 3] {
        let preprocessing = Preprocessing::new([1, 1, 3], normalization);
        let mut values = pixel;
        preprocessing.normalize(&mut values);
        values
    }

    fn assert_close(values: &[f32], expected: &[f32]) {
        assert_eq!(values.len(), expected.len());
        for (value, expected) in values.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-6, "{value}, expected {expected}");
        }
    }

    #[test]
    fn caffe_swaps_red_and_blue_and_subtracts_the_means() {
        let values = normalized(Normalization::Caffe, [10.0, 20.0, 30.0]);
        assert_close(&values, &[30.0 - 103.939, 20.0 - 116.779, 10.0 - 123.68]);
    }

    #[test]
    fn torchvision_scales_to_one_before_it_standardises() {
        let values = normalized(Normalization::Torchvision, [0.0, 255.0, 51.0]);
        // 51/255 = 0.2
        assert_close(&values, &[-0.485 / 0.229, (1.0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]);
    }

    #[test]
    fn unit_divides_by_255() {
        assert_close(&normalized(Normalization::Unit, [0.0, 51.0, 255.0]), &[0.0, 0.2, 1.0]);
    }

    #[test]
    fn apply_resizes_before_it_normalises() {
        let preprocessing = Preprocessing {
            resample: Resample::Nearest,
            ..Preprocessing::new([1, 2, 3], Normalization::Unit)
        };
        let image = RgbImage::new(2, 2, vec![255, 0, 0, 0, 255, 0, 0, 0, 255, 51, 51, 51]);
        let values = preprocessing.apply(&image.expect("2×2"));
        // One row of two: the centre of the only output row is row 1.
        assert_close(&values, &[0.0, 0.0, 1.0, 0.2, 0.2, 0.2]);
    }
}
