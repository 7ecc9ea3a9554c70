//! The HTTP service of nephros.
//!
//! | address | answers |
//! |---|---|
//! | `GET /` | the page |
//! | `GET /samples`, `GET /samples/{n}` | images to try |
//! | `GET /health`, `/health/live`, `/health/ready`, `/metrics` | how the server is |
//! | `POST /predict` | `{"image": "<base64>"}` gives `[{"image": "Normal"}]`: the contract of the reference |
//! | `POST /train` | runs the pipeline, then `Training done successfully!` |
//! | `/api/v1/predictions`, `heatmaps`, `batches`, `trainings`, `models`, `history` | all else |
//! | `GET /api/v1/openapi.json`, `/api/v1/docs` | every address, body and error, for programs and for people |
//!
//! # Errors
//! Every other answer is `{"error": {"code", "message", "hint"?}}` with a code of [`Code`]. Which address
//! answers with which is in the OpenAPI document.
//!
//! # Cross-origin calls
//! `POST /predict` carries `Access-Control-Allow-Origin: *` and never allows credentials: a page of
//! another site may have an image classified that it holds itself, with a token that it holds
//! itself, and learns nothing else. No other address can be read across origins, and what changes the
//! server refuses a foreign `Origin` outright.
//!
//! **Invariant:** a log line never holds image bytes, file names, addresses as typed, or tokens.
//!
//! **Invariant:** whatever a client sends, the answer is no 5xx: those are for a server that cannot work.

mod access;
mod batch;
mod body;
mod budget;
mod clock;
mod error;
mod heatmap;
mod history;
mod ids;
mod ledger;
mod metrics;
mod models;
mod observe;
mod openapi;
mod page;
mod predict;
mod query;
mod recording;
mod serve;
mod state;
mod trace;
mod training;

use axum::{
    Router,
    http::{Method, StatusCode, header},
    middleware::{from_fn, from_fn_with_state},
    routing::{get, post},
};
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{Any, CorsLayer},
};

pub use access::Access;
pub use error::{ApiError, BoxError, Code};
pub use ledger::{
    Feedback, HistoryEntry, HistoryPage, Ledger, LedgerError, LedgerFuture, PredictionRecord, Verdict,
};
pub use models::{ModelEntry, ModelKind, ModelStore, ModelsError};
pub use nephros_serving::{Classified, Classifier, Provenance};
pub use serve::{ServeError, ServeOptions, Server, serve};
pub use state::{AppState, Limits, Sample, Service};
pub use trace::Tracing;
pub use training::{
    JobState, Metrics, Outcome, TaskProgress, TrainFailure, Trained, Trainer, TrainingEvent, TrainingRun,
};

/// All routes over one state, with `/metrics` among them.
pub fn app(state: AppState) -> Router {
    let metrics = metrics_route(&state);
    finish(routes(&state).merge(metrics), state)
}

/// All routes but `/metrics`, which is served on a port of its own.
pub(crate) fn app_without_metrics(state: AppState) -> Router {
    finish(routes(&state), state)
}

/// `/metrics` alone.
pub(crate) fn metrics_app(state: AppState) -> Router {
    finish(metrics_route(&state), state)
}

fn metrics_route(state: &AppState) -> Router<AppState> {
    let token = from_fn_with_state(state.clone(), access::require_token);
    Router::new().route("/metrics", get(metrics::metrics).route_layer(token))
}

fn routes(state: &AppState) -> Router<AppState> {
    let token = from_fn_with_state(state.clone(), access::require_token);
    let cross_origin = CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::POST])
        .allow_headers([header::CONTENT_TYPE, header::AUTHORIZATION]);
    // A preflight carries no token: the cross-origin layer answers it before the token is asked for.
    let predict = post(predict::predict)
        .route_layer(token.clone())
        .options(async || StatusCode::OK)
        .layer(cross_origin);
    let looks = Router::new()
        .route("/api/v1/predictions", post(predict::predictions))
        .route("/api/v1/heatmaps/{id}", get(heatmap::heatmap))
        .route("/api/v1/batches/{id}", get(batch::get))
        .route("/api/v1/batches/{id}/results.csv", get(batch::csv))
        .route("/api/v1/batches/{id}/results.jsonl", get(batch::jsonl))
        .route("/api/v1/trainings/{id}", get(training::get))
        .route("/api/v1/trainings/{id}/log", get(training::log))
        .route("/api/v1/trainings/{id}/events", get(training::events))
        .route("/api/v1/models", get(models::list))
        .route("/api/v1/models/current", get(models::current))
        .route("/api/v1/history", get(history::history))
        .route_layer(token.clone());
    let changes = Router::new()
        .route("/train", post(training::train))
        .route("/api/v1/batches/{id}/cancel", post(batch::cancel))
        .route("/api/v1/trainings/{id}/cancel", post(training::cancel))
        .route("/api/v1/models/load", post(models::load))
        .route("/api/v1/models/promote", post(models::promote))
        .route("/api/v1/models/rollback", post(models::rollback))
        .route("/api/v1/history/{receipt}/feedback", post(history::feedback))
        .route("/api/v1/batches", post(batch::begin).get(batch::list))
        .route("/api/v1/trainings", post(training::begin).get(training::list))
        .route_layer(token)
        .route_layer(from_fn(access::require_same_origin));
    Router::new()
        .route("/", get(page::page))
        .route("/samples", get(page::samples))
        .route("/samples/{n}", get(page::sample))
        .route("/health", get(page::health))
        .route("/health/live", get(page::live))
        .route("/health/ready", get(page::ready))
        .route("/predict", predict)
        .route("/api/v1/openapi.json", get(openapi::document))
        .route("/api/v1/docs", get(page::docs))
        .merge(looks)
        .merge(changes)
}

/// What stands around every route.
fn finish(routes: Router<AppState>, state: AppState) -> Router {
    let routes = routes
        .fallback(async || ApiError::Missing(Code::NotFound))
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .layer(CatchPanicLayer::custom(observe::panicked))
        .layer(from_fn_with_state(state.clone(), access::require_local_name))
        .layer(from_fn(observe::secure));
    let routes = match state.tracing() {
        Some(tracing) => routes.layer(from_fn_with_state(tracing.clone(), trace::span)),
        None => routes,
    };
    routes.layer(from_fn_with_state(state.clone(), observe::log)).with_state(state)
}
