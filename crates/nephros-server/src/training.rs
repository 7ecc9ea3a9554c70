//! Trainings: the whole pipeline, one run at a time, watched and stopped from outside.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Instant, SystemTime},
};

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event as SseEvent, KeepAlive},
    },
};
use futures_util::{Stream, stream};
use nephros_core::hint::Hint;
use nephros_serving::{BoxError, Classifier};
use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::{
    clock::rfc3339,
    error::{ApiError, Code},
    ids::{Id, new_id},
    state::AppState,
};

/// Trainings that are remembered after their end.
const REMEMBERED: usize = 20;
/// Events of a training that are remembered; of more, progress is told only to those who watch.
const MOST_EVENTS: usize = 20_000;
/// Share of a task between two events of its progress.
const STEP: f64 = 0.01;

/// Runs the whole pipeline, tells the run what happens, stops when the run says so, and gives what came
/// of it.
pub type Trainer = Arc<dyn Fn(&TrainingRun) -> Result<Trained, TrainFailure> + Send + Sync>;

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

/// What happens in a training.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum TrainingEvent {
    /// A stage of the pipeline begins.
    Stage {
        /// Its name.
        name: String,
    },
    /// A task is as far as this.
    Progress {
        /// What is done.
        task: String,
        /// So much of it.
        done: u64,
        /// Of so much, where that is known.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(nullable = false)]
        total: Option<u64>,
    },
    /// An epoch is done.
    Epoch(Metrics),
    /// A line of the log.
    Log {
        /// The line.
        line: String,
    },
    /// The training has ended.
    End(Outcome),
}

/// Figures of an epoch.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = EpochMetrics)]
pub struct Metrics {
    /// From 1.
    pub epoch: usize,
    /// At the start of the epoch.
    pub learning_rate: f64,
    /// Mean cross-entropy of the training batches, in nats.
    pub train_loss: f64,
    /// Accuracy on the training batches.
    pub train_accuracy: f64,
    /// Mean cross-entropy of the validation images.
    pub validation_loss: f64,
    /// Accuracy on the validation images.
    pub validation_accuracy: f64,
    /// AUROC on the validation images; absent where a class is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub validation_auroc: Option<f64>,
    /// Time of the epoch.
    pub seconds: f64,
}

/// How a training ended.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = TrainingOutcome)]
pub struct Outcome {
    /// `done`, `failed` or `cancelled`.
    pub state: JobState,
    /// The model that came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub model: Option<String>,
    /// Whether that is the current model now.
    pub served: bool,
    /// Why it failed, or why its model is not served.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub message: Option<String>,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// At work.
    Running,
    /// Asked to stop, and not stopped yet.
    Cancelling,
    /// Went through.
    Done,
    /// Ended without a result.
    Failed,
    /// Stopped on request.
    Cancelled,
}

/// One training, as the trainer sees it.
#[derive(Debug, Clone)]
pub struct TrainingRun(Arc<Training>);

impl TrainingRun {
    fn new(id: String) -> Self {
        let (changed, _) = watch::channel(0);
        Self(Arc::new(Training {
            id,
            began: SystemTime::now(),
            cancelled: AtomicBool::new(false),
            record: Mutex::new(Record::default()),
            changed,
        }))
    }

    /// Whether it was asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Acquire)
    }

    /// Tells those who watch.
    pub fn tell(&self, event: TrainingEvent) {
        let mut record = self.0.record();
        let optional = matches!(event, TrainingEvent::Progress { .. });
        if !optional || record.events.len() < MOST_EVENTS {
            record.events.push(event);
            self.0.changed.send_replace(record.events.len());
        }
    }

    /// A task of this run that tells its progress, not too often.
    pub fn task(&self, name: &str, total: Option<u64>) -> TaskProgress {
        let told = Mutex::new((0, 0, Instant::now()));
        TaskProgress { run: self.clone(), name: name.to_owned(), total, told }
    }
}

/// Counts what is done of a task.
#[derive(Debug)]
pub struct TaskProgress {
    run: TrainingRun,
    name: String,
    total: Option<u64>,
    /// Done, done when told last, and when that was.
    told: Mutex<(u64, u64, Instant)>,
}

impl TaskProgress {
    /// More is done.
    pub fn advance(&self, amount: u64) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.0 += amount;
        let (done, before, at) = *told;
        let share = self.total.map_or(0.0, |total| (done - before) as f64 / total.max(1) as f64);
        let finished = self.total == Some(done);
        if finished || share >= STEP && at.elapsed().as_millis() >= 200 || at.elapsed().as_secs() >= 2 {
            *told = (done, done, Instant::now());
            drop(told);
            self.run.tell(TrainingEvent::Progress { task: self.name.clone(), done, total: self.total });
        }
    }
}

#[derive(Debug)]
struct Training {
    id: String,
    began: SystemTime,
    cancelled: AtomicBool,
    record: Mutex<Record>,
    /// Number of events; whoever watches is woken by it.
    changed: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Record {
    events: Vec<TrainingEvent>,
    ended: Option<(SystemTime, Outcome)>,
}

impl Training {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, outcome: Outcome) {
        let mut record = self.record();
        record.ended = Some((SystemTime::now(), outcome.clone()));
        record.events.push(TrainingEvent::End(outcome));
        self.changed.send_replace(record.events.len());
    }

    fn status(&self) -> TrainingStatus {
        let record = self.record();
        let (ended, outcome) = record.ended.clone().unzip();
        let state = match &outcome {
            Some(outcome) => outcome.state,
            None if self.cancelled.load(Ordering::Acquire) => JobState::Cancelling,
            None => JobState::Running,
        };
        let stage = record.events.iter().rev().find_map(|event| match event {
            TrainingEvent::Stage { name } => Some(name.clone()),
            _ => None,
        });
        let epoch = record.events.iter().rev().find_map(|event| match event {
            TrainingEvent::Epoch(epoch) => Some(epoch.clone()),
            _ => None,
        });
        TrainingStatus {
            id: self.id.clone(),
            state,
            began: rfc3339(self.began),
            ended: ended.map(rfc3339),
            stage,
            epoch,
            outcome,
        }
    }
}

/// How far a training is.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Training)]
pub(crate) struct TrainingStatus {
    /// Its id.
    id: String,
    /// How far it is.
    state: JobState,
    /// RFC 3339.
    began: String,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    ended: Option<String>,
    /// The stage that began last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    stage: Option<String>,
    /// The epoch that ended last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    epoch: Option<Metrics>,
    /// What came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    outcome: Option<Outcome>,
}

/// The trainings of this server.
#[derive(Debug, Default)]
pub(crate) struct Trainings(Mutex<Vec<Arc<Training>>>);

impl Trainings {
    fn list(&self) -> MutexGuard<'_, Vec<Arc<Training>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new run.
    ///
    /// # Errors
    /// [`Code::TrainingRunning`].
    fn begin(&self) -> Result<TrainingRun, ApiError> {
        let run = TrainingRun::new(new_id()?);
        let mut list = self.list();
        if list.iter().any(|training| training.record().ended.is_none()) {
            return Err(ApiError::Conflict(Code::TrainingRunning));
        }
        list.push(Arc::clone(&run.0));
        let surplus = list.len().saturating_sub(REMEMBERED);
        list.drain(..surplus);
        Ok(run)
    }

    fn get(&self, id: &str) -> Result<Arc<Training>, ApiError> {
        let found = self.list().iter().find(|training| training.id == id).cloned();
        found.ok_or(ApiError::Missing(Code::NoSuchJob))
    }

    pub(crate) fn running(&self) -> usize {
        self.list().iter().filter(|training| training.record().ended.is_none()).count()
    }

    pub(crate) fn cancel_all(&self) {
        for training in self.list().iter() {
            training.cancelled.store(true, Ordering::Release);
        }
    }
}

/// Ends the training as failed when dropped without an end: a panic of the trainer.
struct Ending(TrainingRun);

impl Drop for Ending {
    fn drop(&mut self) {
        if self.0.0.record().ended.is_none() {
            let message = Some("the server failed to train".to_owned());
            self.0.0.end(Outcome { state: JobState::Failed, model: None, served: false, message });
        }
    }
}

/// Runs the trainer on a thread of its own; a client that goes away stops neither the run nor the change
/// of model.
fn start(
    state: &AppState,
) -> Result<(TrainingRun, tokio::task::JoinHandle<Result<(), TrainFailure>>), ApiError> {
    let trainer = state.trainer().ok_or(ApiError::TrainingUnavailable)?;
    let run = state.trainings().begin()?;
    let (state, ours) = (state.clone(), run.clone());
    let handle = tokio::task::spawn_blocking(move || {
        let ending = Ending(ours.clone());
        tracing::info!("training started");
        let outcome = trainer(&ours).and_then(|trained| take_over(&state, trained));
        let result = match outcome {
            Ok(outcome) => {
                ours.0.end(outcome);
                Ok(())
            }
            Err(failure) => {
                let cancelled = ours.is_cancelled();
                let ended = if cancelled { JobState::Cancelled } else { JobState::Failed };
                tracing::warn!(%failure, cancelled, "training ended without a model");
                let message = Some(failure.message.clone());
                ours.0.end(Outcome { state: ended, model: None, served: false, message });
                Err(failure)
            }
        };
        drop(ending);
        result
    });
    Ok((run, handle))
}

/// What becomes of a trained model. A failure leaves the current model as it is, and so does a model that
/// is refused: the training is done then all the same, and `/health` and the page say why it is not served.
fn take_over(state: &AppState, trained: Trained) -> Result<Outcome, TrainFailure> {
    let (model, served, message) = match trained {
        Trained::Serve { model, notice } => {
            let id = model.id().to_owned();
            state.replace_model(model, notice.clone()).map_err(|error| TrainFailure {
                message: "the new model fails on a plain picture".to_owned(),
                hint: None,
                source: Some(error.into()),
            })?;
            tracing::info!(model = id, "training done, model replaced");
            if let Some(notice) = &notice {
                tracing::warn!(model = id, "{notice}");
            }
            (id, true, notice)
        }
        Trained::Refused { model, reason } => {
            tracing::warn!(model, "training done, model not served: {reason}");
            state.refuse_model(reason.clone());
            (model, false, Some(reason))
        }
    };
    Ok(Outcome { state: JobState::Done, model: Some(model), served, message })
}

/// Runs the pipeline and makes its model the current one; answers when that is done.
#[utoipa::path(
    post, path = "/train", tag = "reference",
    responses((status = 200, description = "`Training done successfully!`", body = String,
               content_type = "text/plain")),
)]
pub(crate) async fn train(State(state): State<AppState>) -> Result<&'static str, ApiError> {
    let (_, run) = start(&state)?;
    run.await.map_err(|error| ApiError::Internal(error.into()))?.map_err(failed)?;
    Ok("Training done successfully!")
}

fn failed(failure: TrainFailure) -> ApiError {
    let TrainFailure { message, hint, source } = failure;
    ApiError::TrainingFailed { message, hint, source }
}

/// Starts a training, which runs on when the client has gone.
#[utoipa::path(
    post, path = "/api/v1/trainings", tag = "trainings",
    responses((status = 202, description = "The training runs", body = TrainingStatus,
               headers(("Location" = String, description = "Address of the training")))),
)]
pub(crate) async fn begin(State(state): State<AppState>) -> Result<Response, ApiError> {
    let (run, _) = start(&state)?;
    let status = run.0.status();
    let location = format!("/api/v1/trainings/{}", status.id);
    let headers = HeaderMap::from_iter(
        HeaderValue::from_str(&location).ok().map(|location| (header::LOCATION, location)),
    );
    Ok((StatusCode::ACCEPTED, headers, Json(status)).into_response())
}

/// The trainings that are remembered, the newest first.
#[utoipa::path(
    get, path = "/api/v1/trainings", tag = "trainings",
    responses((status = 200, description = "The trainings", body = Vec<TrainingStatus>)),
)]
pub(crate) async fn list(State(state): State<AppState>) -> Json<Vec<TrainingStatus>> {
    Json(state.trainings().list().iter().rev().map(|training| training.status()).collect())
}

/// How far a training is.
#[utoipa::path(
    get, path = "/api/v1/trainings/{id}", tag = "trainings",
    params(("id" = String, Path, description = "Id of the training")),
    responses((status = 200, description = "The training", body = TrainingStatus)),
)]
pub(crate) async fn get(State(state): State<AppState>, Id(id): Id) -> Result<Json<TrainingStatus>, ApiError> {
    Ok(Json(state.trainings().get(&id)?.status()))
}

/// Asks a training to stop; it does at the next safe point, and can be continued by another one.
#[utoipa::path(
    post, path = "/api/v1/trainings/{id}/cancel", tag = "trainings",
    params(("id" = String, Path, description = "Id of the training")),
    responses((status = 202, description = "It will stop", body = TrainingStatus)),
)]
pub(crate) async fn cancel(
    State(state): State<AppState>,
    Id(id): Id,
) -> Result<(StatusCode, Json<TrainingStatus>), ApiError> {
    let training = state.trainings().get(&id)?;
    if training.record().ended.is_some() {
        return Err(ApiError::Conflict(Code::JobEnded));
    }
    training.cancelled.store(true, Ordering::Release);
    tracing::info!("training asked to stop");
    Ok((StatusCode::ACCEPTED, Json(training.status())))
}

/// The lines that a training logged.
#[utoipa::path(
    get, path = "/api/v1/trainings/{id}/log", tag = "trainings",
    params(("id" = String, Path, description = "Id of the training")),
    responses((status = 200, description = "The lines so far", body = String, content_type = "text/plain")),
)]
pub(crate) async fn log(State(state): State<AppState>, Id(id): Id) -> Result<String, ApiError> {
    let training = state.trainings().get(&id)?;
    let record = training.record();
    let lines = record.events.iter().filter_map(|event| match event {
        TrainingEvent::Stage { name } => Some(format!("stage {name} started\n")),
        TrainingEvent::Log { line } => Some(format!("{line}\n")),
        TrainingEvent::Epoch(epoch) => Some(format!(
            "epoch {}: train loss {:.4}, validation loss {:.4}, accuracy {:.4}\n",
            epoch.epoch, epoch.train_loss, epoch.validation_loss, epoch.validation_accuracy
        )),
        TrainingEvent::End(Outcome { message: Some(message), .. }) => Some(format!("{message}\n")),
        TrainingEvent::Progress { .. } | TrainingEvent::End(_) => None,
    });
    Ok(lines.collect())
}

/// What happens in a training, as server-sent events; the stream ends with the training.
///
/// Each has the number of the event as its id. Whoever comes back with `Last-Event-ID` gets what came after it.
#[utoipa::path(
    get, path = "/api/v1/trainings/{id}/events", tag = "trainings",
    params(("id" = String, Path, description = "Id of the training")),
    responses((status = 200, description = "Events, each a TrainingEvent", body = crate::openapi::schema::ServerSentEvent,
               content_type = "text/event-stream")),
)]
pub(crate) async fn events(
    State(state): State<AppState>,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<SseEvent, Infallible>>>, ApiError> {
    let training = state.trainings().get(&id)?;
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse().ok());
    let next: usize = last.map_or(0, |last: usize| last.saturating_add(1));
    let changed = training.changed.subscribe();
    let events = stream::unfold((training, changed, next), |(training, mut changed, next)| async move {
        loop {
            // Marked as seen before it is looked at: what comes in between wakes the next wait.
            changed.borrow_and_update();
            let event = training.record().events.get(next).cloned();
            if let Some(event) = event {
                return Some((Ok(as_sse(next, &event)), (training, changed, next + 1)));
            }
            if training.record().ended.is_some() || changed.changed().await.is_err() {
                return None;
            }
        }
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

fn as_sse(number: usize, event: &TrainingEvent) -> SseEvent {
    let name = match event {
        TrainingEvent::Stage { .. } => "stage",
        TrainingEvent::Progress { .. } => "progress",
        TrainingEvent::Epoch(_) => "epoch",
        TrainingEvent::Log { .. } => "log",
        TrainingEvent::End(_) => "end",
    };
    let data = serde_json::to_string(event).unwrap_or_default();
    SseEvent::default().id(number.to_string()).event(name).data(data)
}
