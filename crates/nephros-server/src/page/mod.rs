//! The page, its samples, the page of the API, and the health checks.

use std::sync::LazyLock;

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    error::{ApiError, Code},
    ids::Id,
    openapi::schema,
    state::AppState,
};

/// A page in one piece, and the policy that lets exactly its own style and script run.
struct Page {
    html: String,
    policy: HeaderValue,
}

static PAGE: LazyLock<Page> =
    LazyLock::new(|| Page::new(include_str!("page.html"), include_str!("page.css"), include_str!("page.js")));

static DOCS: LazyLock<Page> =
    LazyLock::new(|| Page::new(include_str!("docs.html"), include_str!("docs.css"), include_str!("docs.js")));

impl Page {
    fn new(html: &str, style: &str, script: &str) -> Self {
        let html = html.replace("/*style*/", style).replace("/*script*/", script);
        let policy = format!(
            "default-src 'none'; script-src {}; style-src {}; img-src 'self' blob: data:; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            source_hash(script),
            source_hash(style)
        );
        // Base64 and the text above are ASCII.
        let policy = HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"));
        Self { html, policy }
    }

    fn send(&'static self) -> Response {
        let headers =
            [(header::CONTENT_SECURITY_POLICY, self.policy.clone()), (header::CONTENT_TYPE, HTML_TYPE)];
        (headers, self.html.as_str()).into_response()
    }
}

fn source_hash(text: &str) -> String {
    format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(text.as_bytes())))
}

/// `GET /`.
pub(crate) async fn page() -> Response {
    PAGE.send()
}

/// `GET /api/v1/docs`: the OpenAPI document for a person.
pub(crate) async fn docs() -> Response {
    DOCS.send()
}

const HTML_TYPE: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// What the page offers to click.
#[utoipa::path(
    get, path = "/samples", tag = "operation",
    responses((status = 200, description = "Images to try", body = Vec<schema::Sample>)),
)]
pub(crate) async fn samples(State(state): State<AppState>) -> Json<Value> {
    let list = state.samples().iter().enumerate().map(|(index, sample)| {
        json!({"url": format!("samples/{index}"), "name": sample.name, "label": sample.label})
    });
    Json(list.collect())
}

/// One of the images to try.
#[utoipa::path(
    get, path = "/samples/{n}", tag = "operation",
    params(("n" = usize, Path, description = "Its place in the list")),
    responses((status = 200, description = "The image", body = schema::File, content_type = "image/*")),
)]
pub(crate) async fn sample(State(state): State<AppState>, Id(n): Id) -> Result<Response, ApiError> {
    let index: usize = n.parse().map_err(|_| ApiError::Missing(Code::NotFound))?;
    let sample = state.samples().get(index).ok_or(ApiError::Missing(Code::NotFound))?;
    Ok(([(header::CONTENT_TYPE, sample.content_type.clone())], sample.bytes.clone()).into_response())
}

/// Whether the server can predict: 200 as long as it answers.
///
/// `notice`, where it is there, says in what the model is not as the one before, and `refused` why the model
/// trained last is not the one that predicts. `records` says what is kept of a prediction.
#[utoipa::path(
    get, path = "/health", tag = "operation",
    responses((status = 200, description = "It answers", body = schema::Health)),
)]
pub(crate) async fn health(State(state): State<AppState>) -> Json<Value> {
    let lane = state.lane();
    let model = lane.as_ref().map(|lane| lane.model());
    let status = if model.is_some() { "ok" } else { "no model" };
    let records = state
        .ledger()
        .map_or("nothing", |ledger| if ledger.keeps_images() { "images" } else { "predictions" });
    let mut health = json!({
        "status": status,
        "records": records,
        "model": model.as_ref().map(|model| model.id()),
        "version": env!("CARGO_PKG_VERSION"),
    });
    if let Some(notice) = lane.as_ref().and_then(|lane| lane.notice()) {
        health["notice"] = notice.into();
    }
    if let Some(reason) = state.refused() {
        health["refused"] = reason.into();
    }
    Json(health)
}

/// Whether the process answers; a supervisor restarts one that does not.
#[utoipa::path(
    get, path = "/health/live", tag = "operation",
    responses((status = 200, description = "It does", body = schema::Status)),
)]
pub(crate) async fn live() -> Json<Value> {
    Json(json!({"status": "live"}))
}

/// Whether clients should be sent here: a model is loaded and warm, predictions can be recorded where they are
/// recorded, and the server is not stopping.
#[utoipa::path(
    get, path = "/health/ready", tag = "operation",
    responses((status = 200, description = "They should", body = schema::Status)),
)]
pub(crate) async fn ready(State(state): State<AppState>) -> Result<Json<Value>, ApiError> {
    state.check_ready().await?;
    Ok(Json(json!({"status": "ready"})))
}
