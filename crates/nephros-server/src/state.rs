//! What the handlers share: the model, the trainer, the samples and the limits.

use std::{
    fmt,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::body::Bytes;
use nephros_core::{
    hint::Hint,
    input_gate::{Reason, Similar},
    pixels::RgbImage,
    predictor::{Gated, Prediction, Predictor},
};
use tokio::sync::Semaphore;

use crate::{access::Access, error::BoxError};

/// What a model says about an image.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Classified {
    /// Probability of each class; as many as there are labels.
    pub probabilities: Vec<f32>,
    /// What speaks against giving the image a label.
    pub reasons: Vec<Reason>,
    /// The nearest training slices, where they were asked for.
    pub similar: Vec<Similar>,
}

/// A loaded model, as the server needs it.
pub trait Classifier: Send + Sync {
    /// What the model is called in answers: a digest or a file name.
    fn id(&self) -> &str;

    /// Class names, in the order of the probabilities.
    fn labels(&self) -> &[String];

    /// Probability of each class; as many as there are labels.
    ///
    /// # Errors
    /// Whatever the engine reports; the client reads only that the server failed.
    fn classify(&self, image: &RgbImage) -> Result<Vec<f32>, BoxError>;

    /// As [`Self::classify`], with what speaks against giving the image a label and the nearest training
    /// slices of `similar` patients; neither for a model that cannot tell.
    ///
    /// # Errors
    /// As [`Self::classify`].
    fn classify_gated(&self, image: &RgbImage, _similar: usize) -> Result<Classified, BoxError> {
        Ok(Classified { probabilities: self.classify(image)?, ..Classified::default() })
    }

    /// Why a radiologist has to look at an image with these probabilities; `None` where the label
    /// stands alone, or the model cannot tell.
    fn refer(&self, _probabilities: &[f32]) -> Option<String> {
        None
    }
}

impl Classifier for Predictor {
    fn id(&self) -> &str {
        self.id()
    }

    fn labels(&self) -> &[String] {
        self.labels()
    }

    fn classify(&self, image: &RgbImage) -> Result<Vec<f32>, BoxError> {
        Ok(self.predict(image)?.probabilities)
    }

    fn classify_gated(&self, image: &RgbImage, similar: usize) -> Result<Classified, BoxError> {
        let Gated { prediction, reasons, similar } = self.predict_gated(image, similar)?;
        Ok(Classified { probabilities: prediction.probabilities, reasons, similar })
    }

    fn refer(&self, probabilities: &[f32]) -> Option<String> {
        self.answer(&Prediction { probabilities: probabilities.to_vec() })?.reason
    }
}

/// Runs the whole pipeline and gives what came of it.
pub type Trainer = Arc<dyn Fn() -> Result<Trained, TrainFailure> + Send + Sync>;

/// What a training that went through ends in.
pub enum Trained {
    /// A model to serve from now on.
    Serve {
        /// The model.
        model: Arc<dyn Classifier>,
        /// In what it is not as the one before, in a sentence that a client may read.
        notice: Option<String>,
    },
    /// A model that is whole but not to be served; the current one stays.
    Refused {
        /// Its name.
        model: String,
        /// Why, in a sentence that a client may read.
        reason: String,
    },
}

/// Why a training gave no model.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct TrainFailure {
    /// A sentence that a client may read.
    pub message: String,
    /// Advice for the client.
    pub hint: Option<String>,
    /// The whole story, for the log.
    #[source]
    pub source: Option<BoxError>,
}

impl TrainFailure {
    /// A failure whose text, advice and chain come from an error.
    pub fn new(error: impl Hint + Send + Sync + 'static) -> Self {
        Self { message: error.to_string(), hint: error.hint(), source: Some(Box::new(error)) }
    }
}

/// An image that the page offers to click.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Short name shown under the image.
    pub name: String,
    /// The true class, where known.
    pub label: Option<String>,
    /// The encoded image.
    pub bytes: Bytes,
    /// Such as `image/jpeg`.
    pub content_type: String,
}

/// What one request may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a request body.
    pub body_bytes: usize,
    /// Time for a body to arrive.
    pub body_time: Duration,
    /// Pixels of a decoded image.
    pub pixels: usize,
    /// Images decoded and classified at once.
    pub parallel: usize,
    /// Prediction requests taken at once, waiting ones included; more get 429.
    pub requests: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 32 << 20,
            body_time: Duration::from_secs(30),
            pixels: nephros_core::pixels::Limits::default().max_pixels,
            parallel: std::thread::available_parallelism().map_or(1, usize::from),
            requests: 256,
        }
    }
}

/// What is served.
#[derive(Clone, Default)]
pub struct Service {
    /// The model to start with.
    pub model: Option<Arc<dyn Classifier>>,
    /// What `POST /train` runs.
    pub trainer: Option<Trainer>,
    /// Images that the page offers to click.
    pub samples: Vec<Sample>,
    /// What one request may use.
    pub limits: Limits,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("model", &self.model.as_ref().map(|model| model.id().to_owned()))
            .field("trainer", &self.trainer.is_some())
            .field("samples", &self.samples.len())
            .field("limits", &self.limits)
            .finish()
    }
}

/// Shared by all requests; a clone is a reference to the same state.
///
/// **Invariant:** the only thing that changes is which model is current, and why the last one
/// trained is not. No request writes anything that another request reads.
#[derive(Clone)]
pub struct AppState(Arc<Inner>);

struct Inner {
    current: RwLock<Current>,
    trainer: Option<Trainer>,
    training: AtomicBool,
    samples: Vec<Sample>,
    limits: Limits,
    access: Access,
    compute: Arc<Semaphore>,
    admission: Arc<Semaphore>,
}

/// The model that answers, what is to be known about it, and why a newer one does not.
#[derive(Clone, Default)]
struct Current {
    model: Option<Arc<dyn Classifier>>,
    notice: Option<String>,
    refused: Option<String>,
}

impl fmt::Debug for AppState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppState").field("access", &self.0.access).finish_non_exhaustive()
    }
}

impl AppState {
    /// State of a server that starts with `service` and lets in whom `access` allows.
    pub fn new(service: Service, access: Access) -> Self {
        let Service { model, trainer, samples, limits } = service;
        Self(Arc::new(Inner {
            current: RwLock::new(Current { model, ..Current::default() }),
            trainer,
            training: AtomicBool::new(false),
            samples,
            limits,
            access,
            compute: Arc::new(Semaphore::new(limits.parallel.max(1))),
            admission: Arc::new(Semaphore::new(limits.requests.max(1))),
        }))
    }

    /// The current model; a request keeps the one it started with.
    pub fn model(&self) -> Option<Arc<dyn Classifier>> {
        self.current().model
    }

    /// In what the current model is not as the one before.
    pub fn notice(&self) -> Option<String> {
        self.current().notice
    }

    /// Why the model of the last training is not the current one.
    pub fn refused(&self) -> Option<String> {
        self.current().refused
    }

    fn current(&self) -> Current {
        // A reader or writer that panicked held the lock for a clone or an assignment: the value is whole.
        self.0.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes `model` the current one for requests that start from now on; `notice` is what clients are
    /// told about it.
    pub fn replace_model(&self, model: Arc<dyn Classifier>, notice: Option<String>) {
        *self.0.current.write().unwrap_or_else(PoisonError::into_inner) =
            Current { model: Some(model), notice, refused: None };
    }

    /// Keeps the current model and notes why the one just trained does not take its place.
    pub(crate) fn refuse_model(&self, reason: String) {
        self.0.current.write().unwrap_or_else(PoisonError::into_inner).refused = Some(reason);
    }

    pub(crate) fn trainer(&self) -> Option<Trainer> {
        self.0.trainer.clone()
    }

    pub(crate) fn samples(&self) -> &[Sample] {
        &self.0.samples
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.0.limits
    }

    pub(crate) fn access(&self) -> &Access {
        &self.0.access
    }

    /// Places for running decodes and forward passes.
    pub(crate) fn compute(&self) -> Arc<Semaphore> {
        Arc::clone(&self.0.compute)
    }

    /// Places for requests taken at once.
    pub(crate) fn admission(&self) -> Arc<Semaphore> {
        Arc::clone(&self.0.admission)
    }

    /// The right to train; `None` while another training holds it.
    pub(crate) fn begin_training(&self) -> Option<TrainingGuard> {
        let taken = self.0.training.swap(true, Ordering::AcqRel);
        (!taken).then(|| TrainingGuard(self.clone()))
    }
}

/// Ends the training when dropped, a panic of the trainer included.
pub(crate) struct TrainingGuard(AppState);

impl Drop for TrainingGuard {
    fn drop(&mut self) {
        self.0.0.training.store(false, Ordering::Release);
    }
}
