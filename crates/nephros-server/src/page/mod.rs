//! The page, its samples and the health check.

use std::sync::LazyLock;

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{error::ApiError, state::AppState};

const HTML: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The page in one piece, and the policy that lets exactly its own style and script run.
struct Page {
    html: String,
    policy: HeaderValue,
}

static PAGE: LazyLock<Page> = LazyLock::new(|| {
    let html = HTML.replace("/*style*/", STYLE).replace("/*script*/", SCRIPT);
    let policy = format!(
        "default-src 'none'; script-src {}; style-src {}; img-src 'self' blob: data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        source_hash(SCRIPT),
        source_hash(STYLE)
    );
    // Base64 and the text above are ASCII.
    let policy = HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"));
    Page { html, policy }
});

fn source_hash(text: &str) -> String {
    format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(text.as_bytes())))
}

/// `GET /`.
pub(crate) async fn page() -> Response {
    let headers = [(header::CONTENT_SECURITY_POLICY, PAGE.policy.clone()), (header::CONTENT_TYPE, HTML_TYPE)];
    (headers, PAGE.html.as_str()).into_response()
}

const HTML_TYPE: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// `GET /samples`: what the page offers to click.
pub(crate) async fn samples(State(state): State<AppState>) -> Json<Value> {
    let list = state.samples().iter().enumerate().map(|(index, sample)| {
        json!({"url": format!("samples/{index}"), "name": sample.name, "label": sample.label})
    });
    Json(list.collect())
}

/// `GET /samples/{n}`.
pub(crate) async fn sample(
    State(state): State<AppState>,
    Path(n): Path<String>,
) -> Result<Response, ApiError> {
    let index: usize = n.parse().map_err(|_| ApiError::NotFound)?;
    let sample = state.samples().get(index).ok_or(ApiError::NotFound)?;
    Ok(([(header::CONTENT_TYPE, sample.content_type.clone())], sample.bytes.clone()).into_response())
}

/// `GET /health`: 200 as long as the server answers; `status` says whether it can predict, `notice`,
/// where it is there, in what the model is not as the one before, and `refused` why the model trained
/// last is not the one that predicts.
pub(crate) async fn health(State(state): State<AppState>) -> Json<Value> {
    let model = state.model();
    let status = if model.is_some() { "ok" } else { "no model" };
    let mut health = json!({
        "status": status,
        "model": model.as_ref().map(|model| model.id()),
        "version": env!("CARGO_PKG_VERSION"),
    });
    if let Some(notice) = state.notice() {
        health["notice"] = notice.into();
    }
    if let Some(reason) = state.refused() {
        health["refused"] = reason.into();
    }
    Json(health)
}
