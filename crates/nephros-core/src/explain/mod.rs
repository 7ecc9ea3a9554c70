//! Why a model answers as it does: heat maps over the picture, each with a check of its own.
//!
//! Everything here explains one number, the log-odds `ln(p / (1 − p))` of a class. It does not
//! saturate as a probability does, and for two classes it is the difference of their logits.

pub mod faithfulness;
mod font;
pub mod gradcam;
mod hide;
pub mod lesion;
pub mod lime;
mod map;
pub mod occlusion;
pub mod overlay;
mod random;
pub mod shap;
mod solve;
pub mod superpixels;

use std::path::Path;

use nephros_conv::{ConvError, Network};

pub use self::{
    faithfulness::Faithfulness,
    hide::{Picture, Score},
    map::HeatMap,
};
use self::{
    gradcam::{Gradient, Weighting},
    occlusion::Square,
    superpixels::Superpixels,
};
use crate::{
    input_gate::Similar,
    network::{Architecture, FeatureLayer, NetworkError, Precision},
    pixels::{Frame, RgbImage},
    predictor::{ModelError, Origin, PredictError, Prediction, Predictor},
    preprocessing::Normalization,
    weights::Arrays,
};

/// Mean of red, green and blue from which a pixel is taken for the body; as in the crop to it.
const TISSUE: f32 = 30.0;

/// How a map is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// See [`gradcam`]; one forward pass.
    GradCam,
    /// See [`gradcam::Weighting::EachCell`]; one forward pass.
    HiResCam,
    /// See [`occlusion`]; about 170 forward passes.
    Occlusion,
    /// See [`lime`]; 500 forward passes.
    Lime,
    /// See [`shap`]; 1000 forward passes.
    Shap,
}

impl Method {
    /// The name in file names and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::GradCam => "gradcam",
            Self::HiResCam => "hirescam",
            Self::Occlusion => "occlusion",
            Self::Lime => "lime",
            Self::Shap => "shap",
        }
    }

    /// The name as its authors write it.
    pub fn title(self) -> &'static str {
        match self {
            Self::GradCam => "Grad-CAM",
            Self::HiResCam => "HiResCAM",
            Self::Occlusion => "Occlusion",
            Self::Lime => "LIME",
            Self::Shap => "Kernel SHAP",
        }
    }

    /// What one unit of a map means.
    pub fn unit(self) -> &'static str {
        match self {
            // Of a flattened map, and of a head that judges places, they do not add up to the log-odds.
            Self::GradCam => "weighted activation",
            Self::HiResCam => "weighted activation; all together make up the log-odds",
            Self::Occlusion => "fall of the log-odds with a square about the pixel hidden",
            Self::Lime | Self::Shap => "log-odds that the pixel's superpixel adds when shown",
        }
    }
}

/// What to explain, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// How the map is made.
    pub method: Method,
    /// Index of the class to explain; the predicted one where there is none.
    pub class: Option<usize>,
    /// Seed of what is drawn: random regions, and the samples of LIME and Kernel SHAP.
    pub seed: u64,
}

/// Why the model answered as it did.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// What the model answers.
    pub prediction: Prediction,
    /// Index of the class that is explained.
    pub class: usize,
    /// How the map was made.
    pub method: Method,
    /// Log-odds of the class.
    pub score: f64,
    /// On the network's input, `[height, width]` of it.
    pub map: HeatMap,
    /// What of the picture the network's input shows.
    pub frame: Frame,
    /// The check of the map; `None` where it could not be made.
    pub faithfulness: Option<Faithfulness>,
}

/// A class that a model does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a class from 0 to {last}, got {class}")]
pub struct NoSuchClass {
    /// The class asked for.
    pub class: usize,
    /// The last class.
    pub last: usize,
}

/// A map that could not be made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ExplainError {
    /// The model has no such class.
    #[error(transparent)]
    Class(#[from] NoSuchClass),
    /// The model does not answer for the picture.
    #[error(transparent)]
    Predict(#[from] PredictError),
}

impl crate::hint::Hint for ExplainError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Class(_) => None,
            Self::Predict(error) => error.hint(),
        }
    }
}

/// A model that can say why.
#[derive(Debug)]
pub struct Explainer {
    predictor: Predictor,
    parts: Parts,
}

/// What it takes to explain a predictor, built of the same weights in f32.
#[derive(Debug)]
struct Parts {
    architecture: Architecture,
    gradient: Gradient,
    /// The features without the global average pool; `None` where they end in a map already.
    maps: Option<Network>,
}

impl Explainer {
    /// Loads a bundle folder or a Keras file; see [`Predictor::load_as`]. Where the answers are in 8
    /// bits, the map under a global average pool still is in f32.
    ///
    /// # Errors
    /// See [`ModelError`].
    pub fn load(
        path: &Path,
        normalization: Option<Normalization>,
        precision: Option<Precision>,
    ) -> Result<Self, ModelError> {
        let (predictor, parts) = Predictor::load_with(path, normalization, precision, Parts::new)?;
        Ok(Self { predictor, parts })
    }

    /// Adds to a predictor what it takes to explain it, from the weights that it was built of.
    ///
    /// # Errors
    /// See [`NetworkError`]; here as [`ModelError::Network`].
    pub fn new(
        predictor: Predictor,
        architecture: Architecture,
        hidden_units: usize,
        weights: &dyn Arrays,
    ) -> Result<Self, ModelError> {
        let (classes, image_size) = (predictor.labels().len(), predictor.preprocessing().image_size);
        let parts = Parts::new(&Origin { architecture, hidden_units, classes, image_size, weights })?;
        Ok(Self { predictor, parts })
    }

    /// The model that is explained.
    pub fn predictor(&self) -> &Predictor {
        &self.predictor
    }

    /// The nearest training slices of `count` patients; see [`Predictor::similar`].
    ///
    /// # Errors
    /// See [`PredictError`].
    pub fn similar(&self, image: &RgbImage, count: usize) -> Result<Vec<Similar>, PredictError> {
        let features = self.predictor.features(&self.predictor.preprocessing().apply(image), 1)?;
        Ok(self.predictor.similar(&features, count))
    }

    /// Log-odds of a class for `batch` network inputs of `[height, width, 3]`.
    ///
    /// # Errors
    /// See [`PredictError`].
    pub fn scores(&self, inputs: &[f32], batch: usize, class: usize) -> Result<Vec<f64>, PredictError> {
        let logits = self.predictor.logits(&self.predictor.features(inputs, batch)?, batch)?;
        let classes = self.predictor.labels().len();
        Ok(logits.chunks_exact(classes).map(|logits| gradcam::log_odds(logits, class)).collect())
    }

    /// Answers for a picture, draws the map of its answer, and checks the map.
    ///
    /// # Errors
    /// See [`ExplainError`].
    pub fn explain(&self, image: &RgbImage, question: Question) -> Result<Explanation, ExplainError> {
        let preprocessing = self.predictor.preprocessing();
        let [height, width, _] = preprocessing.image_size;
        let resized = preprocessing.resize(image);
        let mut input: Vec<f32> = resized.pixels().iter().map(|&value| f32::from(value)).collect();
        let grey: Vec<f32> = input.as_chunks::<3>().0.iter().map(|p| p.iter().sum::<f32>() / 3.0).collect();
        preprocessing.normalize(&mut input);
        let prediction = self.predictor.predict_input(&input, 1)?.swap_remove(0);
        let (class, last) = (question.class.unwrap_or(prediction.top()), self.predictor.labels().len() - 1);
        if class > last {
            return Err(NoSuchClass { class, last }.into());
        }
        let length = || ConvError::BufferLength {
            what: "input",
            batch: 1,
            expected: height * width * 3,
            got: input.len(),
        };
        let picture = Picture::new(&input, height, width).ok_or_else(|| PredictError::Input(length()))?;
        let score = |inputs: &[f32], batch: usize| self.scores(inputs, batch, class);
        let map = match question.method {
            Method::GradCam => self.cam(&input, class, Weighting::Channel)?,
            Method::HiResCam => self.cam(&input, class, Weighting::EachCell)?,
            Method::Occlusion => occlusion::map(&score, &picture, Square::of(height, width))?,
            Method::Lime | Method::Shap => superpixel_map(&score, &picture, &grey, question)?,
        };
        let body = tissue(&resized);
        let faithfulness = faithfulness::check(&score, &picture, &map, &body, question.seed)?;
        let (frame, method) = (preprocessing.frame(image), question.method);
        let score = picture.score(&score)?;
        Ok(Explanation { prediction, class, method, score, map, frame, faithfulness })
    }

    /// The class activation map of one network input, on its pixels.
    fn cam(&self, input: &[f32], class: usize, weighting: Weighting) -> Result<HeatMap, PredictError> {
        let [height, width, _] = self.predictor.preprocessing().image_size;
        let pixels = self.parts.architecture.place_side();
        Ok(self.cells(input, class, weighting)?.magnified(height, width, pixels))
    }

    /// The class activation map of one network input, on the cells of the last feature map.
    ///
    /// # Errors
    /// See [`PredictError`].
    pub fn cells(&self, input: &[f32], class: usize, weighting: Weighting) -> Result<HeatMap, PredictError> {
        let features = self.predictor.features(input, 1)?;
        let logits = self.predictor.logits(&features, 1)?;
        let gradient = self.parts.gradient.by_features(&features, &logits, class);
        if let Some(network) = &self.parts.maps {
            let mut map = vec![0.0; network.output().len()];
            network.forward(input, 1, &mut map)?;
            return Ok(gradcam::cam(&map, network.output(), &gradient, weighting));
        }
        let shape = self.parts.architecture.feature_shape(self.predictor.preprocessing().image_size);
        Ok(gradcam::cam(&features, shape, &gradient, weighting))
    }
}

impl Parts {
    fn new(origin: &Origin<'_>) -> Result<Self, ModelError> {
        let Origin { architecture, hidden_units, classes, image_size, weights } = *origin;
        let gradient = Gradient::new(architecture, hidden_units, classes, image_size, weights)?;
        Ok(Self { architecture, gradient, maps: build_maps(architecture, weights, image_size)? })
    }
}

/// The pixels bright enough to be body.
fn tissue(image: &RgbImage) -> Vec<bool> {
    let sum = |pixel: &[u8; 3]| pixel.iter().map(|&value| f32::from(value)).sum::<f32>();
    image.pixels().as_chunks::<3>().0.iter().map(|pixel| sum(pixel) >= 3.0 * TISSUE).collect()
}

/// The feature extractor up to its global average pool, where it ends in one.
fn build_maps(
    architecture: Architecture,
    weights: &dyn Arrays,
    image_size: [usize; 3],
) -> Result<Option<Network>, NetworkError> {
    match architecture.layers() {
        [before @ .., FeatureLayer::GlobalAveragePool] => {
            architecture.build_first_layers(weights, image_size, before.len()).map(Some)
        }
        _ => Ok(None),
    }
}

fn superpixel_map(
    score: &impl Score,
    picture: &Picture<'_>,
    grey: &[f32],
    question: Question,
) -> Result<HeatMap, PredictError> {
    let (height, width) = (picture.height(), picture.width());
    let superpixels = Superpixels::slic(grey, height, width, superpixels::COUNT);
    let values = if question.method == Method::Lime {
        lime::values(score, picture, &superpixels, lime::SAMPLES, question.seed)?
    } else {
        shap::values(score, picture, &superpixels, shap::SAMPLES, question.seed)?
    };
    Ok(HeatMap::of_pixels(height, width, |pixel| values[superpixels.labels()[pixel]]))
}
