//! `GET /metrics`, as Prometheus reads it.
//!
//! **Invariant:** a label is a route's pattern, a method, a status, a code or the name of a model or class:
//! never what a client wrote.

use std::{
    sync::PoisonError,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use nephros_serving::{Answered, Lane};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use crate::{error::ApiError, state::AppState};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    method: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PredictionLabels {
    model: String,
    label: String,
    refused: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    model: String,
}

/// What is counted.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Family<RouteLabels, Histogram>,
    refused: Family<CodeLabels, Counter>,
    predictions: Family<PredictionLabels, Counter>,
    prepare_seconds: Histogram,
    queue_seconds: Histogram,
    compute_seconds: Histogram,
    batch_images: Histogram,
    model: Family<ModelLabels, Gauge>,
    queue_images: Gauge,
    body_bytes: Gauge,
    ready: Gauge,
    training: Gauge,
    batches: Gauge,
    resident: Gauge,
    /// Scrapes, of which only one may set what is read at its time.
    scrape: std::sync::Mutex<()>,
}

/// From 1 ms doubling to 33 s.
fn times() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 16))
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("nephros");
        let requests = Family::default();
        let request_seconds = Family::new_with_constructor(times as fn() -> Histogram);
        let (refused, predictions, model) = (Family::default(), Family::default(), Family::default());
        let (prepare_seconds, queue_seconds, compute_seconds) = (times(), times(), times());
        let batch_images = Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0]);
        let [queue_images, body_bytes, ready, training, batches, resident, started] =
            [(); 7].map(|()| Gauge::default());
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        started.set(since.as_secs() as i64);
        registry.register("requests", "Requests answered", requests.clone());
        let seconds = Unit::Seconds;
        let help = "Time from the head of a request to its answer";
        registry.register_with_unit("request", help, seconds.clone(), request_seconds.clone());
        registry.register("errors", "Answers that were an error, by its code", refused.clone());
        let help = "Predictions, by model, label, and whether the input gate refused the label";
        registry.register("predictions", help, predictions.clone());
        let help = "Decoding and preparing an image, with the wait for a free core";
        registry.register_with_unit("prepare", help, seconds.clone(), prepare_seconds.clone());
        let help = "Wait of a prepared image for the network";
        registry.register_with_unit("queue", help, seconds.clone(), queue_seconds.clone());
        let help = "Forward pass of the batch that an image was in";
        registry.register_with_unit("compute", help, seconds.clone(), compute_seconds.clone());
        registry.register("batch_images", "Images of the batch that an image was in", batch_images.clone());
        registry.register("model", "1 for the current model", model.clone());
        let help = "Images that the current model has taken and not yet answered";
        registry.register("queue_images", help, queue_images.clone());
        let help = "Bodies of requests that are held in memory";
        registry.register_with_unit("bodies", help, Unit::Bytes, body_bytes.clone());
        registry.register("ready", "1 where clients should be sent here", ready.clone());
        registry.register("trainings_running", "Trainings that run", training.clone());
        registry.register("batches_running", "Batch jobs that run", batches.clone());
        let help = "Memory of this process that is resident";
        registry.register_with_unit("resident_memory", help, Unit::Bytes, resident.clone());
        registry.register_with_unit("start_time", "When this process began", seconds, started);
        Self {
            registry,
            requests,
            request_seconds,
            refused,
            predictions,
            prepare_seconds,
            queue_seconds,
            compute_seconds,
            batch_images,
            model,
            queue_images,
            body_bytes,
            ready,
            training,
            batches,
            resident,
            scrape: std::sync::Mutex::new(()),
        }
    }

    /// A request was answered.
    pub(crate) fn answered(
        &self,
        route: &str,
        method: &str,
        status: u16,
        code: Option<&'static str>,
        took: Duration,
    ) {
        let (route, method) = (route.to_owned(), method.to_owned());
        self.request_seconds.get_or_create(&RouteLabels { route: route.clone() }).observe(took.as_secs_f64());
        self.requests.get_or_create(&RequestLabels { route, method, status }).inc();
        if let Some(code) = code {
            self.refused.get_or_create(&CodeLabels { code }).inc();
        }
    }

    /// An image was answered for.
    pub(crate) fn predicted(&self, lane: &Lane, answered: &Answered) {
        let (model, timings) = (lane.model(), answered.timings);
        let refused = nephros_core::input_gate::refusal(&answered.classified.reasons).is_some();
        let labels = PredictionLabels {
            model: model.id().to_owned(),
            label: model.labels()[answered.top].clone(),
            refused: if refused { "true" } else { "false" },
        };
        self.predictions.get_or_create(&labels).inc();
        self.prepare_seconds.observe(timings.prepare.as_secs_f64());
        self.queue_seconds.observe(timings.queue.as_secs_f64());
        self.compute_seconds.observe(timings.compute.as_secs_f64());
        self.batch_images.observe(timings.batch as f64);
    }

    fn text(&self, state: &AppState) -> Result<String, std::fmt::Error> {
        let _scrape = self.scrape.lock().unwrap_or_else(PoisonError::into_inner);
        let lane = state.lane();
        self.model.clear();
        if let Some(lane) = &lane {
            self.model.get_or_create(&ModelLabels { model: lane.model().id().to_owned() }).set(1);
        }
        self.queue_images.set(lane.map_or(0, |lane| lane.taken()) as i64);
        self.body_bytes.set(state.budget().bytes() as i64);
        self.ready.set(i64::from(state.is_ready()));
        self.training.set(state.trainings().running() as i64);
        self.batches.set(state.batches().running() as i64);
        self.resident.set(resident_bytes().unwrap_or(0));
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// What Linux says; elsewhere it is not known.
fn resident_bytes() -> Option<i64> {
    let status = fs_err::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}

const OPENMETRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// Figures of the running service, for Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "operation",
    responses((status = 200, description = "OpenMetrics text", body = String,
               content_type = "application/openmetrics-text")),
)]
pub(crate) async fn metrics(State(state): State<AppState>) -> Result<Response, ApiError> {
    let text = state.metrics().text(&state).map_err(|error| ApiError::Internal(error.into()))?;
    Ok(([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response())
}
