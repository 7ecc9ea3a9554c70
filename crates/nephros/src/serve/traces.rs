//! Spans of the service, for a collector that OpenTelemetry's variables name; without one there are none.

use std::{
    env,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::Context as _;
use async_trait::async_trait;
use nephros_server::Tracing;
use opentelemetry::{KeyValue, global::BoxedTracer, trace::TracerProvider as _};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    propagation::TraceContextPropagator,
    trace::{SdkTracerProvider, SpanData, SpanExporter},
};
use ureq::Agent;

use crate::errors::CliError;

/// What the spans are said to be of where `OTEL_SERVICE_NAME` is not set.
const SERVICE: &str = "nephros";
/// The longest that the collector is waited for at the end.
const CLOSING: Duration = Duration::from_secs(5);
/// The longest that one export may take where `OTEL_EXPORTER_OTLP_TIMEOUT` does not say it.
const EXPORT: Duration = Duration::from_secs(10);
/// The longest answer of a collector that is read, in bytes.
const LONGEST_ANSWER: u64 = 1 << 20;

/// The exporter at work.
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Begins where a collector is named, and is none otherwise.
    ///
    /// # Errors
    /// [`CliError::Variable`], and what the exporter says of an address that is none.
    pub fn start() -> anyhow::Result<Option<Self>> {
        let disabled = set("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"));
        let none = set("OTEL_TRACES_EXPORTER").is_some_and(|name| name == "none");
        if disabled || none || of_traces("ENDPOINT").is_none() {
            return Ok(None);
        }
        for (name, expected) in CLOSED {
            one_of(name, expected)?;
        }
        check_share()?;
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(Client::new()?)
            .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
            .build()
            .context("the variables of OpenTelemetry cannot be used")?;
        let mut resource = Resource::builder();
        let names = env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|text| text.contains("service.name="));
        if set("OTEL_SERVICE_NAME").is_none() && !names {
            resource = resource.with_service_name(SERVICE);
        }
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let provider = SdkTracerProvider::builder()
            .with_resource(resource.with_attribute(version).build())
            .with_batch_exporter(Told { exporter, failing: AtomicBool::new(false) })
            .build();
        Ok(Some(Self(provider)))
    }

    /// What makes the spans of a server.
    pub fn tracing(&self) -> Tracing {
        let tracer = BoxedTracer::new(Box::new(self.0.tracer(SERVICE)));
        Tracing::new(tracer, TraceContextPropagator::new())
    }

    /// Sends what waits, for some seconds at most. Blocks.
    pub fn close(self) {
        if let Err(error) = self.0.shutdown_with_timeout(CLOSING) {
            tracing::warn!(%error, "the last spans did not reach the collector");
        }
    }
}

/// Variables with a closed set of values, and those that are understood.
const CLOSED: [(&str, &[&str]); 4] = [
    ("OTEL_TRACES_EXPORTER", &["otlp", "none"]),
    ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", &["http/protobuf"]),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", &["http/protobuf"]),
    (
        "OTEL_TRACES_SAMPLER",
        &[
            "always_on",
            "always_off",
            "traceidratio",
            "parentbased_always_on",
            "parentbased_always_off",
            "parentbased_traceidratio",
        ],
    ),
];

/// A variable; an empty one counts as none.
fn set(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// A variable of the exporter: that of traces alone comes first.
fn of_traces(name: &str) -> Option<String> {
    set(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}")).or_else(|| set(&format!("OTEL_EXPORTER_OTLP_{name}")))
}

/// The library would go on with its default where a value is unknown to it.
fn one_of(name: &'static str, expected: &[&str]) -> Result<(), CliError> {
    match set(name) {
        Some(got) if !expected.contains(&got.as_str()) => {
            Err(CliError::Variable { name, expected: format!("`{}`", expected.join("`, `")), got })
        }
        _ => Ok(()),
    }
}

fn check_share() -> Result<(), CliError> {
    let name = "OTEL_TRACES_SAMPLER_ARG";
    match set(name) {
        Some(got) if !got.parse().is_ok_and(|share: f64| (0.0..=1.0).contains(&share)) => {
            Err(CliError::Variable { name, expected: "a share from 0 to 1".to_owned(), got })
        }
        _ => Ok(()),
    }
}

/// The HTTP client that the binary has anyway. It blocks, on the exporter's own thread.
#[derive(Debug)]
struct Client(Agent);

impl Client {
    fn new() -> Result<Self, CliError> {
        let timeout = match of_traces("TIMEOUT") {
            None => EXPORT,
            Some(text) => text.parse().map(Duration::from_millis).map_err(|_| CliError::Variable {
                name: "OTEL_EXPORTER_OTLP_TIMEOUT",
                expected: "milliseconds".to_owned(),
                got: text,
            })?,
        };
        // The exporter looks at the status itself.
        let config = Agent::config_builder().timeout_global(Some(timeout)).http_status_as_error(false);
        Ok(Self(config.build().into()))
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let response = self.0.run(Request::from_parts(parts, body.as_ref()))?;
        let (parts, mut body) = response.into_parts();
        let body = body.with_config().limit(LONGEST_ANSWER).read_to_vec()?;
        Ok(Response::from_parts(parts, body.into()))
    }
}

/// An exporter of whose failures the log tells once.
#[derive(Debug)]
struct Told<T> {
    exporter: T,
    failing: AtomicBool,
}

impl<T: SpanExporter> SpanExporter for Told<T> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let exported = self.exporter.export(batch).await;
        let failed_before = self.failing.swap(exported.is_err(), Ordering::Relaxed);
        match &exported {
            Err(error) if !failed_before => tracing::warn!(%error, "spans do not reach the collector"),
            Ok(()) if failed_before => tracing::info!("spans reach the collector again"),
            _ => {}
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn shutdown(&self) -> OTelSdkResult {
        self.exporter.shutdown()
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
