//! What the handlers share: the models, the jobs, the samples and the limits.

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::body::Bytes;
use nephros_serving::{Classifier, Engine, Lane, Options, ServingError, Slot};
use tokio::sync::Semaphore;

use crate::{
    access::Access,
    batch::Batches,
    budget::Budget,
    error::ApiError,
    heatmap::Heatmaps,
    ledger::Ledger,
    metrics::Metrics,
    models::ModelStore,
    recording::Recording,
    trace::Tracing,
    training::{Trainer, Trainings},
};

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

/// What one request, and all together, may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a request body.
    pub body_bytes: usize,
    /// Bytes of all bodies that are held at once, a quarter of them for bodies of at most 1 MiB; more get 429.
    pub held_bytes: usize,
    /// Time for a body to arrive.
    pub body_time: Duration,
    /// Pixels of a decoded image.
    pub pixels: usize,
    /// Images of a request.
    pub images: usize,
    /// Brackets and braces inside one another in a JSON body.
    pub json_depth: usize,
    /// Images decoded at once.
    pub parallel: usize,
    /// Prediction requests taken at once, waiting ones included; more get 429.
    pub requests: usize,
    /// Images taken by a model and not yet answered; more get 429.
    pub queue: usize,
    /// Images of a forward pass.
    pub batch: usize,
    /// Time from the whole body to the answer.
    pub deadline: Duration,
    /// Images of a batch job.
    pub job_images: usize,
    /// Bytes that the images of a zip file unpack to, together.
    pub unpacked_bytes: u64,
    /// Batch jobs that run at once.
    pub jobs: usize,
    /// Bytes of images that are kept for their heat maps, together.
    pub heatmap_bytes: usize,
    /// Time that an image is kept for its heat map.
    pub heatmap_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let Options { queue, batch, decoders, deadline, pixels } = Options::default();
        Self {
            body_bytes: 32 << 20,
            held_bytes: 96 << 20,
            body_time: Duration::from_secs(30),
            pixels,
            images: 32,
            json_depth: 32,
            parallel: decoders,
            requests: 256,
            queue,
            batch,
            deadline,
            job_images: 20_000,
            unpacked_bytes: 4 << 30,
            jobs: 2,
            heatmap_bytes: 64 << 20,
            heatmap_time: Duration::from_mins(10),
        }
    }
}

impl Limits {
    fn options(&self) -> Options {
        Options {
            // A request of as many images as it may have fits into an empty queue.
            queue: self.queue.max(self.images),
            batch: self.batch,
            decoders: self.parallel,
            deadline: self.deadline,
            pixels: self.pixels,
        }
    }
}

/// What is served.
#[derive(Clone, Default)]
pub struct Service {
    /// The model to start with.
    pub model: Option<Arc<dyn Classifier>>,
    /// What a training runs.
    pub trainer: Option<Trainer>,
    /// Where other models come from.
    pub models: Option<Arc<dyn ModelStore>>,
    /// Where predictions are recorded; without it nothing of them is kept.
    pub ledger: Option<Arc<dyn Ledger>>,
    /// The folder that batches of images are read from.
    pub batch_root: Option<PathBuf>,
    /// Images that the page offers to click.
    pub samples: Vec<Sample>,
    /// Where spans of requests go; without it none are made.
    pub tracing: Option<Tracing>,
    /// What one request, and all together, may use.
    pub limits: Limits,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("model", &self.model.as_ref().map(|model| model.id().to_owned()))
            .field("trainer", &self.trainer.is_some())
            .field("models", &self.models.is_some())
            .field("ledger", &self.ledger.is_some())
            .field("batch_root", &self.batch_root.is_some())
            .field("samples", &self.samples.len())
            .field("tracing", &self.tracing.is_some())
            .field("limits", &self.limits)
            .finish()
    }
}

/// Shared by all requests; a clone is a reference to the same state.
///
/// **Invariant:** what changes is which model is current and what the jobs have done. No request writes
/// anything that another request reads, but for what it was given an id for: a job, a heat map, a receipt.
#[derive(Clone)]
pub struct AppState(Arc<Inner>);

struct Inner {
    engine: Engine,
    slot: Slot,
    /// Why the model trained last is not the current one.
    refused: RwLock<Option<String>>,
    ready: AtomicBool,
    stopping: AtomicBool,
    trainer: Option<Trainer>,
    trainings: Trainings,
    batches: Batches,
    heatmaps: Heatmaps,
    models: Option<Arc<dyn ModelStore>>,
    ledger: Option<Arc<dyn Ledger>>,
    recording: Arc<Recording>,
    metrics: Metrics,
    samples: Vec<Sample>,
    tracing: Option<Tracing>,
    limits: Limits,
    access: Access,
    admission: Arc<Semaphore>,
    budget: Arc<Budget>,
}

impl fmt::Debug for AppState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppState").field("access", &self.0.access).finish_non_exhaustive()
    }
}

impl AppState {
    /// State of a server that starts with `service` and lets in whom `access` allows.
    pub fn new(service: Service, access: Access) -> Self {
        let Service { model, trainer, models, ledger, batch_root, samples, tracing, limits } = service;
        let engine = Engine::new(limits.options());
        let slot = Slot::new(model.map(|model| engine.lane(model)));
        Self(Arc::new(Inner {
            engine,
            slot,
            refused: RwLock::default(),
            ready: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            trainer,
            trainings: Trainings::default(),
            batches: Batches::new(batch_root, limits.jobs),
            heatmaps: Heatmaps::new(limits.heatmap_bytes, limits.heatmap_time),
            models,
            ledger,
            recording: Arc::default(),
            metrics: Metrics::new(),
            samples,
            tracing,
            limits,
            access,
            budget: Arc::new(Budget::new(&limits)),
            admission: Arc::new(Semaphore::new(limits.requests.max(1))),
        }))
    }

    /// Answers for a picture with the model to start with; the server is ready from then on. Blocks.
    ///
    /// # Errors
    /// [`ServingError`]: a model that fails here would fail every client.
    pub fn warm_up(&self) -> Result<(), ServingError> {
        if let Some(lane) = self.lane() {
            lane.warm_up()?;
        }
        self.0.ready.store(true, Ordering::Release);
        Ok(())
    }

    /// Whether clients should be sent here, as far as it is known without asking the store of predictions.
    pub fn is_ready(&self) -> bool {
        self.has_started() && self.0.recording.seems_well()
    }

    fn has_started(&self) -> bool {
        let started = self.0.ready.load(Ordering::Acquire) && !self.0.stopping.load(Ordering::Acquire);
        started && self.lane().is_some()
    }

    /// Whether clients should be sent here; the store of predictions is asked.
    ///
    /// # Errors
    /// [`ApiError::NotReady`] and [`ApiError::StoreUnavailable`].
    pub(crate) async fn check_ready(&self) -> Result<(), ApiError> {
        if !self.has_started() {
            return Err(ApiError::NotReady);
        }
        match self.ledger() {
            Some(ledger) => self.0.recording.check(ledger).await,
            None => Ok(()),
        }
    }

    /// What is known of the store of predictions.
    pub(crate) fn recording(&self) -> &Arc<Recording> {
        &self.0.recording
    }

    /// From now on nobody new should be sent here, and jobs are asked to stop.
    pub(crate) fn stop(&self) {
        self.0.stopping.store(true, Ordering::Release);
        self.0.trainings.cancel_all();
        self.0.batches.cancel_all();
    }

    /// The current model with its queue; a request keeps the one it started with.
    pub fn lane(&self) -> Option<Arc<Lane>> {
        self.0.slot.current()
    }

    /// Why the model of the last training is not the current one.
    pub fn refused(&self) -> Option<String> {
        self.0.refused.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the model before the current one is called.
    pub(crate) fn previous(&self) -> Option<String> {
        self.0.slot.previous().map(|lane| lane.model().id().to_owned())
    }

    /// Makes `model` the current one for requests that start from now on, once it has answered for a
    /// picture; `notice` is what clients are told about it. What the model before took, it finishes. Blocks.
    ///
    /// # Errors
    /// [`ServingError`]; the current model stays.
    pub fn replace_model(
        &self,
        model: Arc<dyn Classifier>,
        notice: Option<String>,
    ) -> Result<(), ServingError> {
        let lane = self.0.engine.lane_with(model, notice);
        lane.warm_up()?;
        self.0.slot.replace(lane);
        self.set_refused(None);
        self.0.ready.store(true, Ordering::Release);
        Ok(())
    }

    /// Changes the current model and the one before; `None` where there is none before.
    pub(crate) fn roll_back(&self) -> Option<Arc<Lane>> {
        self.0.slot.roll_back()
    }

    /// Keeps the current model and notes why the one just trained does not take its place.
    pub(crate) fn refuse_model(&self, reason: String) {
        self.set_refused(Some(reason));
    }

    fn set_refused(&self, reason: Option<String>) {
        *self.0.refused.write().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    pub(crate) fn trainer(&self) -> Option<Trainer> {
        self.0.trainer.clone()
    }

    pub(crate) fn trainings(&self) -> &Trainings {
        &self.0.trainings
    }

    pub(crate) fn batches(&self) -> &Batches {
        &self.0.batches
    }

    pub(crate) fn heatmaps(&self) -> &Heatmaps {
        &self.0.heatmaps
    }

    pub(crate) fn models(&self) -> Option<&Arc<dyn ModelStore>> {
        self.0.models.as_ref()
    }

    pub(crate) fn ledger(&self) -> Option<&Arc<dyn Ledger>> {
        self.0.ledger.as_ref()
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub(crate) fn samples(&self) -> &[Sample] {
        &self.0.samples
    }

    pub(crate) fn tracing(&self) -> Option<&Tracing> {
        self.0.tracing.as_ref()
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.0.limits
    }

    pub(crate) fn access(&self) -> &Access {
        &self.0.access
    }

    /// Memory for the bodies of requests.
    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.0.budget
    }

    /// Places for requests taken at once.
    pub(crate) fn admission(&self) -> Arc<Semaphore> {
        Arc::clone(&self.0.admission)
    }
}
