//! A loaded model that answers for images.

mod head;
mod prepared;

use std::path::{Path, PathBuf};

use nephros_conv::ConvError;
use rayon::prelude::*;

pub use head::Head;
pub use prepared::Prepared;

use crate::{
    abstention::{Abstention, Answer},
    bundle::{Bundle, BundleError, Evaluation},
    calibration::Calibration,
    digest::sha256,
    hint::Hint,
    input_gate::{InputGate, Reason, Similar, Traits},
    keras::{self, KerasError, KerasModel},
    network::{Architecture, Features, NetworkError, Precision},
    patient::{self, PatientAnswer, PatientReading},
    pixels::RgbImage,
    preprocessing::{Normalization, Preprocessing},
    weights::Arrays,
};

/// Images that are in memory as network input at a time.
const GROUP: usize = 32;

/// A model that cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The path is neither a bundle folder nor a Keras file.
    #[error("`{path}` is not a model: expected a bundle folder or a Keras `.h5` or `.keras` file")]
    NotAModel {
        /// The path.
        path: PathBuf,
    },
    /// Another normalisation was asked for than the bundle was trained with.
    #[error("`{path}` was trained with normalization {expected:?}, got {got:?}")]
    Normalization {
        /// The bundle.
        path: PathBuf,
        /// What the bundle says.
        expected: Normalization,
        /// What was asked for.
        got: Normalization,
    },
    /// The labels cannot tell classes apart.
    #[error("expected at least two labels, all different and none empty, got {got:?}")]
    Labels {
        /// The labels.
        got: Vec<String>,
    },
    /// The bundle cannot be read, or fails its own checks.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The Keras file cannot be read.
    #[error(transparent)]
    Keras(#[from] KerasError),
    /// The weights do not make the network.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

impl Hint for ModelError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NotAModel { .. } => {
                Some("`nephros train` writes a bundle to `artifacts/training/bundle`".to_owned())
            }
            Self::Normalization { .. } => {
                Some("leave the normalization out: a bundle brings its own preprocessing".to_owned())
            }
            Self::Labels { .. } => None,
            Self::Bundle(error) => error.hint(),
            Self::Keras(error) => error.hint(),
            Self::Network(error) => error.hint(),
        }
    }
}

/// An image that cannot be classified.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PredictError {
    /// The input has the wrong length or is not finite.
    #[error(transparent)]
    Input(#[from] ConvError),
    /// The network's output overflowed.
    #[error("the network gave {logits:?} for image {image}, expected finite logits")]
    NotFinite {
        /// Image of the batch, from 0.
        image: usize,
        /// What came out.
        logits: Vec<f32>,
    },
}

impl Hint for PredictError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Input(_) => None,
            Self::NotFinite { .. } => Some("the model is broken; train it again".to_owned()),
        }
    }
}

/// The answer for one image.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// In label order; they sum to 1 up to f32 rounding. Calibrated where the model's bundle has a
    /// calibration.
    pub probabilities: Vec<f32>,
}

impl Prediction {
    /// Index of the most probable label, the first of equals.
    pub fn top(&self) -> usize {
        let better = |best: usize, index: usize| {
            if self.probabilities[index] > self.probabilities[best] { index } else { best }
        };
        (0..self.probabilities.len()).fold(0, better)
    }
}

/// A prediction with what the training images say about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Gated {
    /// What the network says, whether it counts or not.
    pub prediction: Prediction,
    /// What speaks against giving a label, or is to be known.
    pub reasons: Vec<Reason>,
    /// The nearest training slices, where they were asked for.
    pub similar: Vec<Similar>,
}

/// What a model is built of.
pub(crate) struct Origin<'a> {
    pub architecture: Architecture,
    pub hidden_units: usize,
    pub classes: usize,
    pub image_size: [usize; 3],
    /// In f32.
    pub weights: &'a dyn Arrays,
}

/// A loaded model; shared between threads as it is.
#[derive(Debug)]
pub struct Predictor {
    id: String,
    labels: Vec<String>,
    preprocessing: Preprocessing,
    assumption: Option<String>,
    features: Features,
    head: Head,
    calibration: Option<Calibration>,
    abstention: Option<Abstention>,
    patient: Option<PatientReading>,
    evaluation: Option<Evaluation>,
    input_gate: Option<InputGate>,
}

impl Predictor {
    /// Loads a bundle folder or a Keras file (`.h5`, `.keras`).
    ///
    /// A bundle brings its own preprocessing; `normalization` may only confirm it. A Keras file
    /// says neither how its images were prepared nor what its outputs mean: `normalization` is
    /// used, or [`Normalization::Unit`] as the reference trains, and [`Self::assumption`] tells.
    ///
    /// # Errors
    /// See [`ModelError`].
    pub fn load(path: &Path, normalization: Option<Normalization>) -> Result<Self, ModelError> {
        Self::load_as(path, normalization, None)
    }

    /// As [`Self::load`]; `precision` takes the place of a bundle's own choice. A Keras file has
    /// f32 weights only.
    ///
    /// # Errors
    /// See [`ModelError`].
    pub fn load_as(
        path: &Path,
        normalization: Option<Normalization>,
        precision: Option<Precision>,
    ) -> Result<Self, ModelError> {
        Self::load_with(path, normalization, precision, |_| Ok(())).map(|(predictor, ())| predictor)
    }

    /// As [`Self::load_as`], with what `more` makes of the f32 weights, which are read once for both.
    ///
    /// # Errors
    /// See [`ModelError`], and what `more` says.
    pub(crate) fn load_with<T: Send>(
        path: &Path,
        normalization: Option<Normalization>,
        precision: Option<Precision>,
        more: impl FnOnce(&Origin<'_>) -> Result<T, ModelError> + Send,
    ) -> Result<(Self, T), ModelError> {
        if path.is_file() {
            return match precision {
                _ if !keras::is_named_so(path) => Err(ModelError::NotAModel { path: path.to_owned() }),
                Some(Precision::Int8) => Err(BundleError::NotQuantized { path: path.to_owned() }.into()),
                _ => Self::load_keras(path, normalization, more),
            };
        }
        let (Bundle { predictor, .. }, made) = Bundle::load_with(path, precision, more)?;
        let expected = predictor.preprocessing.normalization;
        match normalization {
            Some(got) if got != expected => {
                Err(ModelError::Normalization { path: path.to_owned(), expected, got })
            }
            _ => Ok((predictor, made)),
        }
    }

    fn load_keras<T>(
        path: &Path,
        normalization: Option<Normalization>,
        more: impl FnOnce(&Origin<'_>) -> Result<T, ModelError>,
    ) -> Result<(Self, T), ModelError> {
        let KerasModel { architecture, hidden_units, classes, image_size, weights, .. } =
            keras::read_model(path)?;
        let labels = assumed_labels(classes);
        let assumption = assumption(path, normalization, &labels);
        let normalization = normalization.unwrap_or(Normalization::Unit);
        let preprocessing = Preprocessing::new(image_size, normalization);
        let digest = sha256(&weights.to_bytes().map_err(NetworkError::from)?);
        let id = format!("{architecture}-{}", &digest[..8]);
        let model = Self::from_parts(architecture, hidden_units, labels, preprocessing, &weights, id)?;
        let made = more(&Origin { architecture, hidden_units, classes, image_size, weights: &weights })?;
        Ok((Self { assumption: Some(assumption), ..model }, made))
    }

    /// Builds the networks of a model; `labels` are in the order of the head's outputs.
    ///
    /// # Errors
    /// [`ModelError::Labels`] and [`ModelError::Network`].
    pub fn from_parts(
        architecture: Architecture,
        hidden_units: usize,
        labels: Vec<String>,
        preprocessing: Preprocessing,
        weights: &dyn Arrays,
        id: String,
    ) -> Result<Self, ModelError> {
        // Too few labels say more than a head that does not fit them.
        check_labels(&labels)?;
        let image_size = preprocessing.image_size;
        let features = architecture.build_features(weights, image_size)?;
        let head = Head::new(architecture, hidden_units, labels.len(), image_size, weights)?;
        Self::assemble(id, labels, preprocessing, features, head)
    }

    /// A model of its parts.
    pub(crate) fn assemble(
        id: String,
        labels: Vec<String>,
        preprocessing: Preprocessing,
        features: Features,
        head: Head,
    ) -> Result<Self, ModelError> {
        check_labels(&labels)?;
        let (calibration, abstention, evaluation) = (None, None, None);
        let assumption = None;
        Ok(Self {
            id,
            labels,
            preprocessing,
            assumption,
            features,
            head,
            calibration,
            abstention,
            patient: None,
            evaluation,
            input_gate: None,
        })
    }

    /// The same network with what a bundle says about how to read its answers; every prediction is
    /// calibrated from here on.
    pub(crate) fn with_reading(
        self,
        calibration: Option<Calibration>,
        abstention: Option<Abstention>,
        patient: Option<PatientReading>,
    ) -> Self {
        Self { calibration, abstention, patient, ..self }
    }

    /// The same network with what its last evaluation found.
    pub(crate) fn with_evaluation(self, evaluation: Option<Evaluation>) -> Self {
        Self { evaluation, ..self }
    }

    /// The same network with what decides which pictures get a label.
    pub(crate) fn with_input_gate(self, input_gate: Option<InputGate>) -> Self {
        Self { input_gate, ..self }
    }

    /// The same model with probabilities as the network gives them, for measuring what calibration
    /// changes.
    #[must_use]
    pub fn uncalibrated(self) -> Self {
        Self { calibration: None, patient: None, ..self }
    }

    /// Names the model and its weights, such as `compact-1a2b3c4d` (the start of the weights'
    /// SHA-256); in 8 bits `compact-1a2b3c4d-int8`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Labels, in the order of [`Prediction::probabilities`].
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// What happens to an image before the network.
    pub fn preprocessing(&self) -> &Preprocessing {
        &self.preprocessing
    }

    /// What had to be assumed because the model's file does not say it, and how to choose
    /// otherwise.
    pub fn assumption(&self) -> Option<&str> {
        self.assumption.as_deref()
    }

    /// How probabilities are corrected, if they are.
    pub fn calibration(&self) -> Option<&Calibration> {
        self.calibration.as_ref()
    }

    /// When the model refers an image to a radiologist, if it ever does.
    pub fn abstention(&self) -> Option<&Abstention> {
        self.abstention.as_ref()
    }

    /// What the last evaluation of the bundle found.
    pub fn evaluation(&self) -> Option<&Evaluation> {
        self.evaluation.as_ref()
    }

    /// What decides which pictures get a label; `None` labels all.
    pub fn input_gate(&self) -> Option<&InputGate> {
        self.input_gate.as_ref()
    }

    /// What [`Self::reasons`] needs of a picture; `None` for a model that refuses none.
    pub fn traits(&self, image: &RgbImage) -> Option<Traits> {
        self.input_gate.as_ref().map(|_| Traits::of(image))
    }

    /// What speaks against giving a picture a label, or is to be known about it; `features` are
    /// its own as [`Self::features`] gives them.
    pub fn reasons(&self, traits: Option<&Traits>, features: &[f32]) -> Vec<Reason> {
        let gate = self.input_gate.as_ref().zip(traits);
        gate.map_or_else(Vec::new, |(gate, traits)| gate.reasons(traits, features))
    }

    /// The nearest training slices of `count` patients, the nearest first; `features` are a picture's
    /// own as [`Self::features`] gives them. None for a model that does not know whose its training
    /// images are, see [`Self::knows_cases`].
    pub fn similar(&self, features: &[f32], count: usize) -> Vec<Similar> {
        let gate = self.input_gate.as_ref();
        gate.map_or_else(Vec::new, |gate| gate.similar(features, &self.labels, count))
    }

    /// Whether [`Self::similar`] has slices to name.
    pub fn knows_cases(&self) -> bool {
        self.input_gate.as_ref().is_some_and(|gate| gate.images.cases().is_some())
    }

    /// The answer that a prediction amounts to; `None` for a model that knows no error rate.
    pub fn answer(&self, prediction: &Prediction) -> Option<Answer> {
        let abstention = self.abstention.as_ref()?;
        Some(abstention.answer(&self.labels, &prediction.probabilities))
    }

    /// Whether [`Self::patient`] corrects its answer and has an error rate.
    pub fn knows_patients(&self) -> bool {
        self.patient.is_some()
    }

    /// The answer for a patient from the probabilities of its slices; `None` of no slice.
    pub fn patient<'a>(&self, slices: impl IntoIterator<Item = &'a [f32]>) -> Option<PatientAnswer> {
        patient::answer(self.patient.as_ref(), &self.labels, slices)
    }

    /// Preprocesses and classifies one image.
    ///
    /// # Errors
    /// See [`PredictError`].
    pub fn predict(&self, image: &RgbImage) -> Result<Prediction, PredictError> {
        let mut predictions = self.predict_input(&self.preprocessing.apply(image), 1)?;
        Ok(predictions.swap_remove(0))
    }

    /// As [`Self::predict`], with what the input gate says about the image and the nearest training
    /// slices of `similar` patients.
    ///
    /// # Errors
    /// See [`PredictError`].
    pub fn predict_gated(&self, image: &RgbImage, similar: usize) -> Result<Gated, PredictError> {
        Ok(self.predict_prepared(&[self.prepare(image, similar)])?.swap_remove(0))
    }

    /// Classifies images on all cores of the current rayon pool; each result equals the single
    /// one exactly.
    ///
    /// # Errors
    /// See [`PredictError`]; the first image that fails is named.
    pub fn predict_batch(&self, images: &[RgbImage]) -> Result<Vec<Prediction>, PredictError> {
        let mut predictions = Vec::with_capacity(images.len());
        for group in images.chunks(GROUP) {
            let inputs: Vec<Vec<f32>> =
                group.par_iter().map(|image| self.preprocessing.apply(image)).collect();
            let predicted = self.predict_input(&inputs.concat(), group.len());
            predictions.extend(predicted.map_err(|error| error.after(predictions.len()))?);
        }
        Ok(predictions)
    }

    /// Classifies network input of `[batch, height, width, 3]`, already resized and normalised.
    ///
    /// # Errors
    /// See [`PredictError`].
    pub fn predict_input(&self, input: &[f32], batch: usize) -> Result<Vec<Prediction>, PredictError> {
        self.predict_features(&self.features(input, batch)?, batch)
    }

    /// The last feature map of network input `[batch, height, width, 3]`, flattened in
    /// `(y, x, channel)` order image by image.
    ///
    /// # Errors
    /// See [`PredictError`].
    pub fn features(&self, input: &[f32], batch: usize) -> Result<Vec<f32>, PredictError> {
        let mut features = vec![0.0; batch * self.features.output().len()];
        self.features.forward(input, batch, &mut features)?;
        // Features that overflowed would be refused as the head's input, by the wrong name.
        if let Some(bad) = features.iter().position(|value| !value.is_finite()) {
            let image = bad / self.features.output().len();
            return Err(PredictError::NotFinite { image, logits: vec![f32::NAN; self.labels.len()] });
        }
        Ok(features)
    }

    /// What the softmax is taken of, `[batch, labels]`, for features as [`Predictor::features`] gives
    /// them.
    ///
    /// # Errors
    /// See [`PredictError`].
    pub fn logits(&self, features: &[f32], batch: usize) -> Result<Vec<f32>, PredictError> {
        self.head.logits(features, batch)
    }

    /// Channels of the last feature map.
    pub fn feature_channels(&self) -> usize {
        self.features.output().channels
    }

    /// Classifies features as [`Predictor::features`] gives them.
    ///
    /// # Errors
    /// See [`PredictError`].
    pub fn predict_features(&self, features: &[f32], batch: usize) -> Result<Vec<Prediction>, PredictError> {
        let predictions = self.head.predict(features, batch)?;
        Ok(match &self.calibration {
            Some(calibration) => predictions.iter().map(|raw| calibration.apply(raw)).collect(),
            None => predictions,
        })
    }
}

impl PredictError {
    /// The same error, with `offset` images before its batch.
    pub(crate) fn after(self, offset: usize) -> Self {
        match self {
            Self::Input(ConvError::NotFinite { image, position, value }) => {
                Self::Input(ConvError::NotFinite { image: image + offset, position, value })
            }
            Self::NotFinite { image, logits } => Self::NotFinite { image: image + offset, logits },
            other @ Self::Input(_) => other,
        }
    }
}

pub(crate) fn check_labels(labels: &[String]) -> Result<(), ModelError> {
    let repeated = labels.iter().enumerate().any(|(index, label)| labels[..index].contains(label));
    if labels.len() < 2 || repeated || labels.iter().any(String::is_empty) {
        return Err(ModelError::Labels { got: labels.to_vec() });
    }
    Ok(())
}

/// The class folders of the reference, sorted as Keras does; numbers for any other count.
pub(crate) fn assumed_labels(classes: usize) -> Vec<String> {
    match classes {
        2 => vec!["Normal".to_owned(), "Tumor".to_owned()],
        _ => (0..classes).map(|class| format!("class_{class}")).collect(),
    }
}

pub(crate) fn assumption(path: &Path, normalization: Option<Normalization>, labels: &[String]) -> String {
    let (path, labels) = (path.display(), labels.join(", "));
    match normalization {
        Some(_) => format!("`{path}` does not name its classes: assumed {labels}"),
        None => format!(
            "`{path}` does not say how its images were prepared or what its classes are called: assumed \
             the whole image, RGB in 0 to 1 (`unit`), and {labels}; `--preprocessing caffe` or `torchvision` selects another"
        ),
    }
}
