//! The HTTP service of nephros.
//!
//! | address | answers |
//! |---|---|
//! | `GET /` | the page |
//! | `GET /samples`, `GET /samples/{n}` | images to try |
//! | `GET /health` | `{"status", "model", "version"}` |
//! | `POST /predict` | `{"image": "<base64>"}` gives `[{"image": "Normal"}]`: the contract of the reference |
//! | `POST /api/v1/predictions` | an image file, or the same JSON, gives label, probabilities, model and time; with `?similar=K` also the nearest training slices of K patients |
//! | `POST /train` | runs the pipeline, then `Training done successfully!` |
//!
//! # Errors
//! Every other answer is `{"error": {"code", "message", "hint"?}}` with a code of [`Code`]:
//!
//! | code | status | when |
//! |---|---|---|
//! | `invalid_json` | 400 | the body is not JSON |
//! | `invalid_base64` | 400 | the image is not base64 |
//! | `invalid_query` | 400 | `?similar=` without a whole number from 0 to 20 |
//! | `unauthorized` | 401 | no token, or not the server's; with `WWW-Authenticate: Bearer` |
//! | `foreign_origin` | 403 | `POST /train` from a page of another site |
//! | `foreign_host` | 403 | an open loopback server was called by a foreign name (DNS rebinding) |
//! | `not_found` | 404 | no such address |
//! | `method_not_allowed` | 405 | with `Allow` |
//! | `request_timeout` | 408 | the body did not arrive in time |
//! | `training_running` | 409 | one training at a time |
//! | `body_too_large` | 413 | more than 32 MiB |
//! | `image_too_large` | 413 | more pixels than PIL takes, 89478485 |
//! | `unsupported_content_type` | 415 | the *body* is of a type that the address does not take |
//! | `missing_field` | 422 | JSON without a text under `image` |
//! | `not_an_image` | 422 | the body is of the right type, but what it carries is no image format |
//! | `corrupt_image` | 422 | a known format that cannot be decoded |
//! | `overloaded` | 429 | too many requests at once; with `Retry-After` |
//! | `internal` | 500 | a bug; the log has the chain |
//! | `training_failed` | 500 | the pipeline failed; the model stays as it was |
//! | `training_unavailable` | 501 | the server has no project to train |
//! | `no_model` | 503 | no model is loaded yet |
//!
//! # Cross-origin calls
//! `POST /predict` carries `Access-Control-Allow-Origin: *` and never allows credentials: a page of
//! another site may have an image classified that it holds itself, with a token that it holds
//! itself, and learns nothing else. No other address can be read across origins, and `POST /train`
//! refuses a foreign `Origin` outright.
//!
//! **Invariant:** a log line never holds image bytes, file names, addresses as typed, or tokens.

mod access;
mod body;
mod error;
mod observe;
mod page;
mod predict;
mod serve;
mod state;
mod train;

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
pub use serve::{ServeError, ServeOptions, Server, serve};
pub use state::{AppState, Classified, Classifier, Limits, Sample, Service, TrainFailure, Trained, Trainer};

/// All routes over one state.
pub fn app(state: AppState) -> Router {
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
    let train =
        post(train::train).route_layer(token.clone()).route_layer(from_fn(access::require_same_origin));
    Router::new()
        .route("/", get(page::page))
        .route("/samples", get(page::samples))
        .route("/samples/{n}", get(page::sample))
        .route("/health", get(page::health))
        .route("/predict", predict)
        .route("/api/v1/predictions", post(predict::predictions).route_layer(token))
        .route("/train", train)
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .layer(CatchPanicLayer::custom(observe::panicked))
        .layer(from_fn_with_state(state.clone(), access::require_local_name))
        .layer(from_fn(observe::secure))
        .layer(from_fn(observe::log))
        .with_state(state)
}
