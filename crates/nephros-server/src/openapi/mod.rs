//! The OpenAPI document, and the page that shows it.

mod errors;
pub(crate) mod schema;

use std::sync::LazyLock;

use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        OpenApi as Document,
        security::{Http, HttpAuthScheme, SecurityScheme},
    },
};

use self::errors::Errors;
use crate::{batch, heatmap, history, metrics, models, page, predict, training};

/// Everything but the errors, which are added from the table of codes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "nephros",
        description = "Kidney CT slices classified: predictions, batches, trainings, models and history.",
        license(name = "MIT", identifier = "MIT"),
    ),
    paths(
        predict::predict, training::train,
        predict::predictions, heatmap::heatmap,
        batch::begin, batch::list, batch::get, batch::cancel, batch::csv, batch::jsonl,
        training::begin, training::list, training::get, training::cancel, training::log, training::events,
        models::list, models::current, models::load, models::promote, models::rollback,
        history::history, history::feedback,
        page::health, page::live, page::ready, page::samples, page::sample, metrics::metrics,
        document,
    ),
    components(schemas(training::TrainingEvent)),
    tags(
        (name = "predictions", description = "What the model says about images"),
        (name = "batches", description = "Folders and zip files of images"),
        (name = "trainings", description = "The whole pipeline, one run at a time"),
        (name = "models", description = "Which model is served"),
        (name = "history", description = "What was predicted, and what readers say about it"),
        (name = "operation", description = "For whoever runs the server"),
        (name = "reference", description = "The contract of the system that this one replaces"),
    ),
    modifiers(&Security, &Errors),
)]
struct Api;

/// The token, which only a server that has one asks for.
struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut Document) {
        let components = document.components.get_or_insert_default();
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        components.security_schemes.insert("token".to_owned(), scheme);
    }
}

/// The document, as JSON for people too.
pub(crate) static DOCUMENT: LazyLock<String> =
    LazyLock::new(|| Api::openapi().to_pretty_json().unwrap_or_default());

/// This document.
#[utoipa::path(
    get, path = "/api/v1/openapi.json", tag = "operation",
    responses((status = 200, description = "OpenAPI 3.1", body = schema::AnyObject)),
)]
pub(crate) async fn document() -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], DOCUMENT.as_str()).into_response()
}
