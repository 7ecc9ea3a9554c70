//! Batches: a folder or a zip file of images, answered one by one beside the other requests.

mod source;
mod table;

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use axum::{
    Extension, Json,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use tokio::{sync::mpsc, task::JoinSet};
use utoipa::ToSchema;

use crate::{
    body::{self, Arrived},
    clock::rfc3339,
    error::{ApiError, Code},
    ids::{Id, new_id},
    observe::RequestId,
    predict::{Desk, OneOfMany},
    state::AppState,
    training::JobState,
};
use source::{Item, Source};

/// Batches that are remembered after their end, with their results.
const REMEMBERED: usize = 4;
/// Images of a batch that are under way: enough for full forward passes, and few beside what others ask.
const UNDER_WAY: usize = 16;
/// Wait before an image is tried again that found no place or no store.
const AGAIN: Duration = Duration::from_millis(250);

/// A batch that is asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BatchRequest {
    /// A folder or a zip file, by its path below the folder that the server was started with.
    #[schema(max_length = 1000)]
    path: String,
}

/// The batches of this server.
#[derive(Debug)]
pub(crate) struct Batches {
    root: Option<PathBuf>,
    most: usize,
    list: Mutex<Vec<Arc<Batch>>>,
}

#[derive(Debug)]
struct Batch {
    id: String,
    began: SystemTime,
    model: String,
    labels: Vec<String>,
    total: usize,
    cancelled: AtomicBool,
    record: Mutex<Record>,
}

#[derive(Debug, Default)]
struct Record {
    rows: Vec<Row>,
    failed: usize,
    ended: Option<(SystemTime, JobState)>,
}

/// What came of one image.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(skip)]
    index: usize,
    path: String,
    #[serde(flatten)]
    outcome: OneOfMany,
}

/// How far a batch is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Batch)]
pub(crate) struct BatchStatus {
    /// Its id.
    id: String,
    /// How far it is.
    state: JobState,
    /// The model that answers all of it.
    model: String,
    /// Images.
    total: usize,
    /// Images that are done, failed ones included.
    done: usize,
    /// Images that could not be used.
    failed: usize,
    /// RFC 3339.
    began: String,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    ended: Option<String>,
}

impl Batches {
    pub(crate) fn new(root: Option<PathBuf>, most: usize) -> Self {
        Self { root, most: most.max(1), list: Mutex::default() }
    }

    fn list(&self) -> MutexGuard<'_, Vec<Arc<Batch>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a batch that begins.
    ///
    /// # Errors
    /// [`Code::BatchRunning`].
    fn begin(&self, batch: Batch) -> Result<Arc<Batch>, ApiError> {
        let mut list = self.list();
        if list.iter().filter(|batch| batch.record().ended.is_none()).count() >= self.most {
            return Err(ApiError::Conflict(Code::BatchRunning));
        }
        let batch = Arc::new(batch);
        list.push(Arc::clone(&batch));
        while list.len() > REMEMBERED + self.most {
            let oldest = list.iter().position(|batch| batch.record().ended.is_some());
            let Some(oldest) = oldest else { break };
            list.remove(oldest);
        }
        Ok(batch)
    }

    fn get(&self, id: &str) -> Result<Arc<Batch>, ApiError> {
        let found = self.list().iter().find(|batch| batch.id == id).cloned();
        found.ok_or(ApiError::Missing(Code::NoSuchJob))
    }

    pub(crate) fn running(&self) -> usize {
        self.list().iter().filter(|batch| batch.record().ended.is_none()).count()
    }

    pub(crate) fn cancel_all(&self) {
        for batch in self.list().iter() {
            batch.cancelled.store(true, Ordering::Release);
        }
    }
}

impl Batch {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    fn add(&self, row: Row) {
        let mut record = self.record();
        record.failed += usize::from(matches!(row.outcome, OneOfMany::Error { .. }));
        record.rows.push(row);
    }

    fn end(&self, failed: bool) {
        let mut record = self.record();
        record.rows.sort_by_key(|row| row.index);
        let state = match (failed, record.rows.len() == self.total) {
            (true, _) => JobState::Failed,
            (false, true) => JobState::Done,
            (false, false) => JobState::Cancelled,
        };
        record.ended = Some((SystemTime::now(), state));
        let (done, failed) = (record.rows.len(), record.failed);
        tracing::info!(images = self.total, done, failed, ?state, "batch ended");
    }

    fn status(&self) -> BatchStatus {
        let record = self.record();
        let (ended, state) = record.ended.unzip();
        let running = if self.is_cancelled() { JobState::Cancelling } else { JobState::Running };
        BatchStatus {
            id: self.id.clone(),
            state: state.unwrap_or(running),
            model: self.model.clone(),
            total: self.total,
            done: record.rows.len(),
            failed: record.failed,
            began: rfc3339(self.began),
            ended: ended.map(rfc3339),
        }
    }
}

/// Answers for all images; a thread reads ahead of them.
async fn run(batch: Arc<Batch>, desk: Desk, source: Source, most_bytes: usize) {
    let (sender, mut items) = mpsc::channel::<(usize, Item)>(UNDER_WAY);
    let reader = tokio::task::spawn_blocking(move || {
        source.read(most_bytes, |index, item| sender.blocking_send((index, item)).is_ok());
    });
    let mut work = JoinSet::new();
    let mut broken = false;
    while let Some((index, item)) = items.recv().await {
        if batch.is_cancelled() || broken {
            break;
        }
        if work.len() >= UNDER_WAY {
            broken |= !matches!(work.join_next().await, Some(Ok(())) | None);
        }
        let (batch, desk) = (Arc::clone(&batch), desk.clone());
        work.spawn(async move {
            if let Some(row) = answer(&batch, &desk, index, item).await {
                batch.add(row);
            }
        });
    }
    drop(items);
    while let Some(finished) = work.join_next().await {
        broken |= finished.is_err();
    }
    broken |= reader.await.is_err();
    batch.end(broken);
}

/// The row of one image; `None` where the batch is cancelled before there is one.
async fn answer(batch: &Batch, desk: &Desk, index: usize, item: Item) -> Option<Row> {
    let Item { path, bytes } = item;
    let error = |error: &ApiError| OneOfMany::Error { error: error.detail() };
    let bytes = match bytes {
        Ok(bytes) => bytes,
        Err(unread) => return Some(Row { index, path, outcome: error(&unread) }),
    };
    loop {
        if batch.is_cancelled() {
            return None;
        }
        match desk.one(bytes.clone()).await {
            Ok(answer) => return Some(Row { index, path, outcome: OneOfMany::Answer(Box::new(answer)) }),
            Err(
                ApiError::Overloaded { .. }
                | ApiError::DeadlineExceeded { .. }
                | ApiError::StoreUnavailable(_),
            ) => {
                tokio::time::sleep(AGAIN).await;
            }
            Err(failed) => {
                if let Some(chain) = failed.chain() {
                    tracing::error!(code = failed.code().as_str(), "an image of a batch: {chain}");
                }
                return Some(Row { index, path, outcome: error(&failed) });
            }
        }
    }
}

/// Starts a batch over a folder or zip file on the server, or over a zip file that is sent.
#[utoipa::path(
    post, path = "/api/v1/batches", tag = "batches",
    request_body(content((BatchRequest = "application/json"), (crate::openapi::schema::File = "application/zip"))),
    responses((status = 202, description = "The batch runs", body = BatchStatus,
               headers(("Location" = String, description = "Address of the batch")))),
)]
pub(crate) async fn begin(
    State(state): State<AppState>,
    Extension(id): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let limits = *state.limits();
    let desk = Desk::of_batch(&state, id)?;
    let mut share = None;
    let opened = if body::is_zip(&headers) {
        let Arrived { bytes, share: held } = body::read(&headers, body, &state).await?;
        share = Some(held);
        tokio::task::spawn_blocking(move || Source::sent(bytes, &limits)).await
    } else {
        let BatchRequest { path } = match body::json(&headers, body, &state).await {
            Err(ApiError::UnsupportedContentType { .. }) => {
                return Err(body::unsupported(&headers, "`application/json` or `application/zip`"));
            }
            parsed => parsed?,
        };
        let root = state.batches().root.clone().ok_or(ApiError::Missing(Code::NoBatches))?;
        tokio::task::spawn_blocking(move || Source::open(&root, &path, &limits)).await
    };
    let source = opened.map_err(|error| ApiError::Internal(error.into()))??;
    let model = desk.model();
    let batch = state.batches().begin(Batch {
        id: new_id()?,
        began: SystemTime::now(),
        model: model.id().to_owned(),
        labels: model.labels().to_vec(),
        total: source.len(),
        cancelled: AtomicBool::new(false),
        record: Mutex::default(),
    })?;
    tracing::info!(images = batch.total, "batch started");
    let status = batch.status();
    tokio::spawn(async move {
        run(batch, desk, source, limits.body_bytes).await;
        // A zip file that was sent is in memory as long.
        drop(share);
    });
    let location = HeaderValue::from_str(&format!("/api/v1/batches/{}", status.id)).ok();
    let headers = HeaderMap::from_iter(location.map(|location| (header::LOCATION, location)));
    Ok((StatusCode::ACCEPTED, headers, Json(status)).into_response())
}

/// The batches that are remembered, the newest first.
#[utoipa::path(
    get, path = "/api/v1/batches", tag = "batches",
    responses((status = 200, description = "The batches", body = Vec<BatchStatus>)),
)]
pub(crate) async fn list(State(state): State<AppState>) -> Json<Vec<BatchStatus>> {
    Json(state.batches().list().iter().rev().map(|batch| batch.status()).collect())
}

/// How far a batch is.
#[utoipa::path(
    get, path = "/api/v1/batches/{id}", tag = "batches",
    params(("id" = String, Path, description = "Id of the batch")),
    responses((status = 200, description = "The batch", body = BatchStatus)),
)]
pub(crate) async fn get(State(state): State<AppState>, Id(id): Id) -> Result<Json<BatchStatus>, ApiError> {
    Ok(Json(state.batches().get(&id)?.status()))
}

/// Stops a batch; what is done of it stays.
#[utoipa::path(
    post, path = "/api/v1/batches/{id}/cancel", tag = "batches",
    params(("id" = String, Path, description = "Id of the batch")),
    responses((status = 202, description = "It will stop", body = BatchStatus)),
)]
pub(crate) async fn cancel(
    State(state): State<AppState>,
    Id(id): Id,
) -> Result<(StatusCode, Json<BatchStatus>), ApiError> {
    let batch = state.batches().get(&id)?;
    if batch.record().ended.is_some() {
        return Err(ApiError::Conflict(Code::JobEnded));
    }
    batch.cancelled.store(true, Ordering::Release);
    Ok((StatusCode::ACCEPTED, Json(batch.status())))
}

/// Results so far, as CSV: a line an image.
#[utoipa::path(
    get, path = "/api/v1/batches/{id}/results.csv", tag = "batches",
    params(("id" = String, Path, description = "Id of the batch")),
    responses((status = 200, description = "A table", body = String, content_type = "text/csv")),
)]
pub(crate) async fn csv(State(state): State<AppState>, Id(id): Id) -> Result<Response, ApiError> {
    let batch = state.batches().get(&id)?;
    let table = table::csv(&batch.labels, &batch.record().rows);
    let table = table.map_err(|error| ApiError::Internal(error.into()))?;
    Ok(([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], table).into_response())
}

/// Results so far, as JSON lines: one an image, as of a prediction, with its `path`.
#[utoipa::path(
    get, path = "/api/v1/batches/{id}/results.jsonl", tag = "batches",
    params(("id" = String, Path, description = "Id of the batch")),
    responses((status = 200, description = "A JSON object a line", body = String,
               content_type = "application/jsonl")),
)]
pub(crate) async fn jsonl(State(state): State<AppState>, Id(id): Id) -> Result<Response, ApiError> {
    let batch = state.batches().get(&id)?;
    let lines = table::jsonl(&batch.record().rows).map_err(|error| ApiError::Internal(error.into()))?;
    Ok(([(header::CONTENT_TYPE, "application/jsonl")], lines).into_response())
}
