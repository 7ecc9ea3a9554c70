//! Spans of requests and of the images in them, where a tracer is given.
//!
//! Names and attributes are OpenTelemetry's conventions for HTTP servers. What of a request only its client
//! knows is not among them: no address as typed, no query, no header, no file name, no subject.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::HeaderMap,
    middleware::Next,
    response::Response,
};
use nephros_serving::Timings;
use opentelemetry::{
    Context, KeyValue,
    global::{BoxedSpan, BoxedTracer},
    propagation::{Extractor, TextMapPropagator},
    trace::{Span as _, SpanKind, Status, TraceContextExt as _, TraceId, Tracer as _},
};

use crate::{
    error::Logged,
    observe::{RequestId, known},
};

/// Where spans go, and how a client says which trace they are of.
#[derive(Clone)]
pub struct Tracing(Arc<Inner>);

struct Inner {
    tracer: BoxedTracer,
    propagator: Box<dyn TextMapPropagator + Send + Sync>,
}

impl Tracing {
    /// Spans by `tracer`; the trace that `propagator` reads off a request is continued.
    pub fn new(tracer: BoxedTracer, propagator: impl TextMapPropagator + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner { tracer, propagator: Box::new(propagator) }))
    }
}

impl fmt::Debug for Tracing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tracing")
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(axum::http::HeaderName::as_str).collect()
    }
}

/// The span of a request, to which parts of the work are added.
#[derive(Clone)]
pub(crate) struct RequestSpan {
    tracing: Tracing,
    context: Context,
}

impl RequestSpan {
    /// A part of the work, to be ended.
    fn part(&self, name: &'static str, begun: SystemTime, attributes: Vec<KeyValue>) -> BoxedSpan {
        let tracer = &self.tracing.0.tracer;
        let span = tracer.span_builder(name).with_start_time(begun).with_attributes(attributes);
        tracer.build_with_context(span, &self.context)
    }

    /// An image that was answered: made ready from `begun` on, waiting, and computed with the batch it was in.
    pub(crate) fn answered(&self, begun: SystemTime, timings: Timings, model: &str) {
        let Timings { prepare, queue, compute, batch } = timings;
        let [waiting, computing, answered] =
            [begun + prepare, begun + prepare + queue, begun + prepare + queue + compute];
        self.part("prepare", begun, Vec::new()).end_with_timestamp(waiting);
        self.part("queue", waiting, Vec::new()).end_with_timestamp(computing);
        let attributes = vec![
            KeyValue::new("nephros.batch.size", i64::try_from(batch).unwrap_or(i64::MAX)),
            KeyValue::new("nephros.model.id", model.to_owned()),
        ];
        self.part("forward", computing, attributes).end_with_timestamp(answered);
    }

    /// A prediction that was written to the store, or not.
    pub(crate) fn recorded(&self, begun: SystemTime, took: Duration, stored: bool) {
        let mut span = self.part("record", begun, Vec::new());
        if !stored {
            span.set_status(Status::error(""));
        }
        span.end_with_timestamp(begun + took);
    }
}

/// The trace that a request is part of, for its log line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Traced(pub(crate) TraceId);

/// Makes the span of a request; stands inside of [`crate::observe::log`], which names the request.
pub(crate) async fn span(State(tracing): State<Tracing>, mut request: Request, next: Next) -> Response {
    let Inner { tracer, propagator } = tracing.0.as_ref();
    let parent = propagator.extract_with_context(&Context::new(), &Headers(request.headers()));
    let method = known(request.method());
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let name = route.as_ref().map_or_else(|| method.to_owned(), |route| format!("{method} {route}"));
    let mut attributes =
        vec![KeyValue::new("http.request.method", method), KeyValue::new("url.scheme", "http")];
    attributes.extend(route.map(|route| KeyValue::new("http.route", route)));
    let id = request.extensions().get::<RequestId>();
    attributes.extend(id.map(|id| KeyValue::new("nephros.request.id", id.to_string())));
    let builder = tracer.span_builder(name).with_kind(SpanKind::Server).with_attributes(attributes);
    let context = parent.with_span(tracer.build_with_context(builder, &parent));
    request.extensions_mut().insert(RequestSpan { tracing: tracing.clone(), context: context.clone() });
    let mut response = next.run(request).await;
    let span = context.span();
    let status = response.status();
    span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
    if let Some(logged) = response.extensions().get::<Logged>() {
        // Of a refusal the client is to blame: to the conventions it is no error of the server.
        let key = if status.is_server_error() { "error.type" } else { "nephros.refusal" };
        span.set_attribute(KeyValue::new(key, logged.code.as_str()));
    }
    if status.is_server_error() {
        span.set_status(Status::error(""));
    }
    span.end();
    response.extensions_mut().insert(Traced(span.span_context().trace_id()));
    response
}
