//! `params.yaml`: how to train.

use nephros_core::{
    network::Architecture,
    pixels::{BodyOf, Crop},
    preprocessing::{Normalization, Preprocessing},
};
use serde::{Deserialize, Deserializer, Serialize};

use crate::train::UNITS_OF_LARGER;

/// The whole file. The first eight keys are the reference's and have no default; ours do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(clippy::struct_excessive_bools, reason = "each is a key of the file")]
pub struct Params {
    /// Whether training images are augmented.
    pub augmentation: bool,
    /// Height, width and channels (3) of the network's input.
    pub image_size: [usize; 3],
    /// Images in a training step.
    pub batch_size: usize,
    /// Whether the weights' own 1000-class head is kept; only `False` can be trained.
    pub include_top: bool,
    /// Passes over the training images; with L-BFGS the most steps.
    pub epochs: usize,
    /// Number of classes; must agree with `CLASS_NAMES`.
    pub classes: usize,
    /// `imagenet`, `none` or a file.
    pub weights: WeightsSource,
    /// Step size of the optimizer.
    pub learning_rate: f64,

    /// Network; default: `compact` where `WEIGHTS` is `none`, else `vgg16`.
    #[serde(default = "default_architecture", deserialize_with = "architecture_or_default")]
    pub architecture: Architecture,
    /// Width of a hidden ReLU layer in the head; 0 for none.
    #[serde(default)]
    pub hidden_units: usize,
    /// What the head sees of the last feature map.
    #[serde(default)]
    pub pooling: Pooling,
    /// Optimizer.
    #[serde(default)]
    pub optimizer: Optimizer,
    /// Momentum of SGD.
    #[serde(default)]
    pub momentum: f64,
    /// L2 penalty (SGD, L-BFGS) or decoupled decay (Adam).
    #[serde(default)]
    pub weight_decay: f64,
    /// How the learning rate changes over the epochs.
    #[serde(default)]
    pub learning_rate_schedule: LearningRateSchedule,
    /// Class folders to use, in label order; default: all that are found, sorted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_names: Option<Vec<String>>,
    /// Seed of everything random.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// What may not be on two sides of the split.
    #[serde(default)]
    pub split_by: SplitBy,
    /// Share of the images (or patients) kept for choosing the best epoch.
    #[serde(default = "default_share")]
    pub validation_split: f64,
    /// Share of the images (or patients) kept for the final score.
    #[serde(default = "default_share")]
    pub test_split: f64,
    /// Pixel convention; default: the convention of `WEIGHTS`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalization: Option<Normalization>,
    /// What of an image the network sees.
    #[serde(default)]
    pub crop: Crop,
    /// Augmented views of each image whose features are cached (frozen base only).
    #[serde(default = "default_views")]
    pub augmentation_views: usize,
    /// Rotation, degrees either way.
    #[serde(default = "default_rotation")]
    pub rotation_range: f64,
    /// Horizontal shift, share of the width either way.
    #[serde(default = "default_shift")]
    pub width_shift_range: f64,
    /// Vertical shift, share of the height either way.
    #[serde(default = "default_shift")]
    pub height_shift_range: f64,
    /// Shear angle, degrees either way.
    #[serde(default = "default_shift")]
    pub shear_range: f64,
    /// Zoom, drawn per axis from `1 - z` to `1 + z`.
    #[serde(default = "default_shift")]
    pub zoom_range: f64,
    /// Mirror left and right, half of the time.
    #[serde(default = "default_true")]
    pub horizontal_flip: bool,
    /// Mirror top and bottom, half of the time.
    #[serde(default)]
    pub vertical_flip: bool,
    /// Brightness factor, drawn from `1 - b` to `1 + b`.
    #[serde(default)]
    pub brightness_range: f64,
    /// Contrast factor about the mean, drawn from `1 - c` to `1 + c`.
    #[serde(default)]
    pub contrast_range: f64,
    /// Exponent of every value, drawn from `1 / (1 + g)` to `1 + g`.
    #[serde(default)]
    pub gamma_range: f64,
    /// Standard deviation of added noise, drawn from 0 to this share of white.
    #[serde(default)]
    pub noise_range: f64,
    /// Whether every convolution stays as loaded.
    #[serde(default = "default_true")]
    pub freeze_all: bool,
    /// With `FREEZE_ALL: False`, the number of last layers that stay trainable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freeze_till: Option<usize>,
    /// Which images an epoch sees.
    #[serde(default)]
    pub sampling: Sampling,
    /// Drawn patients that are trained on beside the data; 0 for none.
    #[serde(default)]
    pub phantom_patients: usize,
    /// Epochs on drawn patients alone, before the data is seen; 0 for none.
    #[serde(default)]
    pub phantom_epochs: usize,
    /// Share of an epoch's images that are of drawn patients.
    #[serde(default = "default_phantom_share")]
    pub phantom_share: f64,
    /// Weights of the classes in the loss.
    #[serde(default)]
    pub class_weights: ClassWeights,
    /// Epochs without a better validation loss before stopping; 0 never stops.
    #[serde(default)]
    pub early_stopping_patience: usize,
    /// Share of the target spread over all classes, 0 to below 1.
    #[serde(default)]
    pub label_smoothing: f64,
    /// Share of new patients' slices whose true label a model may leave out of its set.
    #[serde(default = "default_error_rate")]
    pub conformal_error_rate: f64,
}

impl Params {
    /// Width of the hidden layer that the head has: that of `HIDDEN_UNITS`, or of what [`Pooling::Mil`] is told by.
    pub fn head_units(&self) -> usize {
        match self.pooling {
            Pooling::Mil | Pooling::Asymmetry => UNITS_OF_LARGER,
            Pooling::None | Pooling::Avg | Pooling::Halves => self.hidden_units,
        }
    }

    /// From a decoded image to the network; `convention` is that of the weights.
    pub fn preprocessing(&self, convention: Normalization) -> Preprocessing {
        let normalization = self.normalization.unwrap_or(convention);
        let body = if self.crop.is_none() { BodyOf::default() } else { BodyOf::AllPieces };
        Preprocessing { crop: self.crop, body, ..Preprocessing::new(self.image_size, normalization) }
    }
}

/// Where the weights come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum WeightsSource {
    /// The published ImageNet weights.
    Imagenet,
    /// Random initialisation from `SEED`.
    None,
    /// A `.h5`, `.pth` or `.safetensors` file.
    File(String),
}

impl From<String> for WeightsSource {
    fn from(text: String) -> Self {
        match text.as_str() {
            "imagenet" => Self::Imagenet,
            "none" => Self::None,
            _ => Self::File(text),
        }
    }
}

impl From<WeightsSource> for String {
    fn from(source: WeightsSource) -> Self {
        match source {
            WeightsSource::Imagenet => "imagenet".into(),
            WeightsSource::None => "none".into(),
            WeightsSource::File(path) => path,
        }
    }
}

/// What the head sees of the last feature map; Keras' name for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// Each place on its own, as after `Flatten`; the mean where the network ends with one.
    #[default]
    None,
    /// The mean of each channel over the map.
    Avg,
    /// The mean of each channel over either half of the map's middle rows, each half an example of
    /// its own; the answer is the mean of both.
    Halves,
    /// Multiple-instance learning on the same halves: the one that looks more like the second class answers,
    /// as one sick kidney is enough.
    Mil,
    /// As `mil`, and each half is also compared with the other, as tumours are seldom on both sides: what it is
    /// scored by are its own means and how they differ from those of the other half.
    Asymmetry,
}

impl Pooling {
    /// Whether of two halves the one that looks more like the second class answers.
    pub fn asks_the_higher_half(self) -> bool {
        matches!(self, Self::Mil | Self::Asymmetry)
    }
}

/// Optimizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimizer {
    /// Stochastic gradient descent with `MOMENTUM`.
    #[default]
    Sgd,
    /// Adam with decoupled weight decay.
    Adam,
    /// L-BFGS on the standardised features of a frozen base, to the optimum.
    Lbfgs,
}

/// How the learning rate changes over the epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LearningRateSchedule {
    /// The same throughout.
    #[default]
    Constant,
    /// Half a cosine from `LEARNING_RATE` down to 0.
    Cosine,
}

/// What may not be on two sides of the split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SplitBy {
    /// All slices of a patient stay together.
    #[default]
    Patient,
    /// Each image on its own, stratified by class: leaks between neighbouring slices.
    Random,
    /// The first `int(p*n)` sorted names of each class, as Keras' `validation_split` takes them.
    Keras,
}

/// Which images an epoch sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sampling {
    /// Each once.
    #[default]
    Image,
    /// As many, but every patient of a class equally often, so that the one with the most slices
    /// does not stand for the class.
    Patient,
}

/// Weights of the classes in the loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassWeights {
    /// Inverse to the class's share of the training images.
    #[default]
    Balanced,
    /// All 1.
    None,
}

fn default_architecture() -> Architecture {
    Architecture::Vgg16
}

/// A key without a value is as good as none.
fn architecture_or_default<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Architecture, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_else(default_architecture))
}

fn default_seed() -> u64 {
    42
}

fn default_share() -> f64 {
    0.2
}

fn default_error_rate() -> f64 {
    0.1
}

fn default_phantom_share() -> f64 {
    0.5
}

fn default_views() -> usize {
    4
}

fn default_rotation() -> f64 {
    40.0
}

fn default_shift() -> f64 {
    0.2
}

fn default_true() -> bool {
    true
}
