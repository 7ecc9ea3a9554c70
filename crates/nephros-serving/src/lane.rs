//! One model, its queue, and whoever is at work on it.

use std::{
    any::Any,
    collections::VecDeque,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use nephros_core::{
    digest,
    pixels::{self, RgbImage},
    predictor::Prepared,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::{BoxError, Classified, Classifier, Overloaded, ServingError, rate::Rate};

/// How a service works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Images that a model has taken and not yet answered, at most.
    pub queue: usize,
    /// Images of a forward pass, at most. More cost memory and gain nothing on few cores.
    pub batch: usize,
    /// Images decoded at once.
    pub decoders: usize,
    /// Time from a place in the queue to the answer, at most.
    pub deadline: Duration,
    /// Pixels of a decoded image, at most.
    pub pixels: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            queue: 256,
            batch: 8,
            decoders: std::thread::available_parallelism().map_or(1, usize::from),
            deadline: Duration::from_secs(30),
            pixels: pixels::Limits::default().max_pixels,
        }
    }
}

/// What all lanes of a service share.
#[derive(Debug, Clone)]
pub struct Engine {
    options: Options,
    decoders: Arc<Semaphore>,
}

impl Engine {
    /// An engine without a model.
    pub fn new(options: Options) -> Self {
        let options = Options {
            queue: options.queue.max(1),
            batch: options.batch.max(1),
            decoders: options.decoders.max(1),
            ..options
        };
        Self { options, decoders: Arc::new(Semaphore::new(options.decoders)) }
    }

    /// How it works.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// A lane for `model`.
    pub fn lane(&self, model: Arc<dyn Classifier>) -> Arc<Lane> {
        self.lane_with(model, None)
    }

    /// A lane for `model`, with what clients are told about it.
    pub fn lane_with(&self, model: Arc<dyn Classifier>, notice: Option<String>) -> Arc<Lane> {
        Arc::new(Lane {
            model,
            notice,
            engine: self.clone(),
            taken: AtomicUsize::new(0),
            ahead: Arc::new(Semaphore::new(self.options.decoders + 2 * self.options.batch)),
            state: Mutex::new(State { waiting: VecDeque::new(), at_work: false }),
            rate: Rate::default(),
        })
    }
}

/// An image to answer for.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The encoded image.
    pub image: Bytes,
    /// Patients of whom the nearest training slice is asked for.
    pub similar: usize,
}

/// Where the time of an answer went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    /// Decoding and preparing, with the wait for a free core.
    pub prepare: Duration,
    /// Waiting for the network.
    pub queue: Duration,
    /// The forward pass of the whole batch.
    pub compute: Duration,
    /// Images of the batch.
    pub batch: usize,
}

/// What came of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    /// What the model says; a finite probability for each label.
    pub classified: Classified,
    /// Index of the most probable label, the first of equals.
    pub top: usize,
    /// SHA-256 of the encoded image, in hexadecimal.
    pub sha256: String,
    /// Where the time went.
    pub timings: Timings,
}

/// One model and the images that wait for it.
pub struct Lane {
    model: Arc<dyn Classifier>,
    notice: Option<String>,
    engine: Engine,
    /// Places given and not yet returned.
    taken: AtomicUsize,
    /// Places for images that are decoded and not yet in a batch: network input is larger than a JPEG, and
    /// two batches of it are enough to never let the network wait.
    ahead: Arc<Semaphore>,
    state: Mutex<State>,
    rate: Rate,
}

struct State {
    waiting: VecDeque<Job>,
    /// Whether a thread is at work on the queue.
    at_work: bool,
}

/// A prepared image.
struct Job {
    prepared: Prepared,
    sha256: String,
    prepare: Duration,
    queued: Instant,
    waiter: Waiter,
    _ahead: OwnedSemaphorePermit,
}

/// Who waits for an answer, and for how long.
struct Waiter {
    answer: oneshot::Sender<Result<Answered, ServingError>>,
    deadline: Instant,
    place: Place,
}

impl Waiter {
    /// Whether the answer would still be read.
    fn waits(&self) -> bool {
        !self.answer.is_closed() && Instant::now() < self.deadline
    }

    fn tell(self, answer: Result<Answered, ServingError>) {
        // Who has an answer finds its place free.
        drop(self.place);
        // Whoever asked may have gone meanwhile.
        let _ = self.answer.send(answer);
    }
}

/// The right to have one image answered; returned when dropped.
#[derive(Debug)]
pub struct Place(Arc<Lane>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane")
            .field("model", &self.model.id())
            .field("taken", &self.taken())
            .finish_non_exhaustive()
    }
}

impl Lane {
    /// The model.
    pub fn model(&self) -> &Arc<dyn Classifier> {
        &self.model
    }

    /// In what the model is not as the one before, in a sentence for clients.
    pub fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    /// Images taken and not yet answered.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }

    /// Images in the queue: prepared, and in no batch yet.
    pub fn waiting(&self) -> usize {
        self.state().waiting.len()
    }

    /// Seconds an image, as measured; 0 where nothing was measured yet.
    pub fn seconds_an_image(&self) -> f64 {
        self.rate.seconds()
    }

    /// Answers for a grey picture, so that the first client waits for no buffer and the rate is known.
    /// Blocks.
    ///
    /// # Errors
    /// [`ServingError::Model`], [`ServingError::Answer`] and [`ServingError::Panicked`]: such a model
    /// should not get a client.
    pub fn warm_up(&self) -> Result<(), ServingError> {
        const SIDE: usize = 224;
        let Some(image) = RgbImage::new(SIDE, SIDE, vec![128; SIDE * SIDE * 3]) else { return Ok(()) };
        let prepared =
            caught(|| self.model.prepare(&image, 0)).map_err(|text| ServingError::Panicked { text })?;
        let begun = Instant::now();
        let classified = self.run(std::slice::from_ref(&prepared))?;
        self.rate.note(1, begun.elapsed());
        classified.iter().try_for_each(|classified| self.check(classified).map(|_| ()))
    }

    /// Places for `images` of one request: all or none.
    ///
    /// # Errors
    /// [`Overloaded`] where the queue has not as many, or where by the measured rate they would be
    /// answered after the deadline.
    pub fn reserve(self: &Arc<Self>, images: usize) -> Result<Vec<Place>, Overloaded> {
        let Options { queue, deadline, .. } = self.engine.options;
        let fits = |taken: usize| {
            let after = taken + images;
            (after <= queue && (taken == 0 || self.rate.time_of(after) <= deadline)).then_some(after)
        };
        match self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits) {
            Ok(_) => Ok((0..images).map(|_| Place(Arc::clone(self))).collect()),
            Err(waiting) => Err(Overloaded { waiting, retry_after: self.rate.time_of(waiting) }),
        }
    }

    /// Answers for one image. Dropping the future gives the work up where it has not begun.
    ///
    /// # Errors
    /// See [`ServingError`].
    pub async fn answer(self: &Arc<Self>, place: Place, ask: Ask) -> Result<Answered, ServingError> {
        let within = self.engine.options.deadline;
        let begun = Instant::now();
        let deadline = begun + within;
        let (sender, receiver) = oneshot::channel();
        let waiter = Waiter { answer: sender, deadline, place };
        let work = async {
            let ahead = Arc::clone(&self.ahead).acquire_owned().await;
            let core = Arc::clone(&self.engine.decoders).acquire_owned().await;
            // The semaphores are never closed.
            if let (Ok(ahead), Ok(core)) = (ahead, core) {
                let lane = Arc::clone(self);
                tokio::task::spawn_blocking(move || {
                    let at_work = lane.take(ask, begun, waiter, ahead);
                    drop(core);
                    if at_work {
                        lane.work();
                    }
                });
            }
            receiver.await
        };
        match tokio::time::timeout_at(deadline.into(), work).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) if Instant::now() < deadline => {
                Err(ServingError::Panicked { text: "the work ended without an answer".to_owned() })
            }
            Ok(Err(_)) | Err(_) => {
                Err(ServingError::Deadline { within, retry_after: self.rate.time_of(self.taken()) })
            }
        }
    }

    /// Decodes and prepares an image and lets it wait; whether nobody is at work on the queue.
    fn take(&self, ask: Ask, begun: Instant, waiter: Waiter, ahead: OwnedSemaphorePermit) -> bool {
        if !waiter.waits() {
            return false;
        }
        let prepared = caught(|| {
            let sha256 = digest::sha256(&ask.image);
            let limits = pixels::Limits { max_pixels: self.engine.options.pixels };
            let image = pixels::decode_with_limits(&ask.image, limits)?;
            drop(ask.image);
            Ok((self.model.prepare(&image, ask.similar), sha256))
        });
        match prepared {
            Ok(Ok((prepared, sha256))) => {
                let queued = Instant::now();
                self.push(Job { prepared, sha256, prepare: queued - begun, queued, waiter, _ahead: ahead })
            }
            Ok(Err(error)) => {
                waiter.tell(Err(ServingError::Image(error)));
                false
            }
            Err(text) => {
                waiter.tell(Err(ServingError::Panicked { text }));
                false
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic happens under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, job: Job) -> bool {
        let mut state = self.state();
        state.waiting.push_back(job);
        !std::mem::replace(&mut state.at_work, true)
    }

    /// The next batch; `None`, and nobody at work, where nothing waits. Jobs that nobody waits for any more
    /// are left out.
    fn next(&self) -> Option<Vec<Job>> {
        let mut state = self.state();
        let mut batch = Vec::new();
        let mut given_up = Vec::new();
        while batch.len() < self.engine.options.batch {
            match state.waiting.pop_front() {
                Some(job) if job.waiter.waits() => batch.push(job),
                Some(job) => given_up.push(job),
                None => break,
            }
        }
        state.at_work = !batch.is_empty();
        drop(state);
        drop(given_up);
        (!batch.is_empty()).then_some(batch)
    }

    /// Works until nothing waits.
    fn work(&self) {
        while let Some(batch) = self.next() {
            let begun = Instant::now();
            let (inputs, jobs): (Vec<Prepared>, Vec<_>) = batch
                .into_iter()
                .map(|Job { prepared, sha256, prepare, queued, waiter, .. }| {
                    (prepared, (sha256, prepare, begun - queued, waiter))
                })
                .unzip();
            let answers = self.answers(&inputs);
            let compute = begun.elapsed();
            self.rate.note(inputs.len(), compute);
            for ((sha256, prepare, queue, waiter), answer) in jobs.into_iter().zip(answers) {
                let timings = Timings { prepare, queue, compute, batch: inputs.len() };
                waiter.tell(answer.and_then(|classified| {
                    let top = self.check(&classified)?;
                    Ok(Answered { classified, top, sha256, timings })
                }));
            }
        }
    }

    /// An answer for each image. Where a batch fails, each image has to answer for itself.
    fn answers(&self, inputs: &[Prepared]) -> Vec<Result<Classified, ServingError>> {
        match self.run(inputs) {
            Ok(classified) => classified.into_iter().map(Ok).collect(),
            Err(error) if inputs.len() == 1 => vec![Err(error)],
            Err(error) => {
                tracing::warn!(%error, images = inputs.len(), "a batch failed; its images are tried one by one");
                inputs.iter().map(|input| Ok(self.run(std::slice::from_ref(input))?.swap_remove(0))).collect()
            }
        }
    }

    /// As many answers as images.
    fn run(&self, inputs: &[Prepared]) -> Result<Vec<Classified>, ServingError> {
        let classified = caught(|| self.model.classify(inputs))
            .map_err(|text| ServingError::Panicked { text })?
            .map_err(ServingError::Model)?;
        let (expected, got) = (inputs.len(), classified.len());
        if expected == got {
            return Ok(classified);
        }
        let error: BoxError = format!("expected {expected} answers, got {got}").into();
        Err(ServingError::Model(error))
    }

    /// Index of the most probable label.
    fn check(&self, classified: &Classified) -> Result<usize, ServingError> {
        let (labels, values) = (self.model.labels().len(), &classified.probabilities);
        if labels == 0 || values.len() != labels || values.iter().any(|value| !value.is_finite()) {
            return Err(ServingError::Answer { labels, got: values.clone() });
        }
        let better = |best: usize, index: usize| if values[index] > values[best] { index } else { best };
        Ok((0..labels).fold(0, better))
    }
}

/// What `work` gives, or the text of its panic.
fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    // Nothing that a panic can leave half done is used again: inputs are read only, models are shared.
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| text_of(panic.as_ref()))
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}
