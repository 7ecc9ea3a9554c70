//! Around every request: its id, one log line, its metrics, security headers, and a net for panics.

use std::{
    any::Any,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::{
    error::{ApiError, Logged},
    state::AppState,
    trace::Traced,
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a request is called in the log, in its answer and in its record.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(Arc<str>);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Length of an id that a client may choose.
const ID_LENGTH: std::ops::RangeInclusive<usize> = 8..=64;

impl RequestId {
    /// The one that the client or a proxy chose, where it is well formed: hexadecimal digits and hyphens, as
    /// in a UUID or a trace id. It is logged, so nothing that could be a name is taken.
    fn of(request: &Request) -> Self {
        let chosen = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
        let well_formed = |id: &&str| {
            ID_LENGTH.contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
        };
        Self(chosen.filter(well_formed).map_or_else(next_id, str::to_owned).into())
    }
}

/// Names the request, counts it, and logs how it ended.
///
/// The line has the route's pattern and never the address itself: a client may write anything there.
pub(crate) async fn log(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let start = Instant::now();
    let id = RequestId::of(&request);
    request.extensions_mut().insert(id.clone());
    let method = known(request.method());
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let mut response = next.run(request).await;
    let status = response.status().as_u16();
    let took = start.elapsed();
    let milliseconds = took.as_millis() as u64;
    let logged = response.extensions_mut().remove::<Logged>();
    let trace_id = response.extensions_mut().remove::<Traced>().map(|Traced(id)| id.to_string());
    let trace_id = trace_id.as_deref();
    let code = logged.as_ref().map(|logged| logged.code.as_str());
    state.metrics().answered(&route, method, status, code, took);
    match logged {
        Some(Logged { code, chain: Some(chain) }) => {
            tracing::error!(%id, trace_id, method, route, status, milliseconds, code = code.as_str(), "{chain}");
        }
        Some(Logged { code, chain: None }) => {
            tracing::info!(%id, trace_id, method, route, status, milliseconds, code = code.as_str(), "refused");
        }
        None => tracing::info!(%id, trace_id, method, route, status, milliseconds, "answered"),
    }
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// The method, where it is one that addresses can take; any other is a word of the client's own.
pub(crate) fn known(method: &Method) -> &'static str {
    let methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"];
    methods.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

/// Unique within this server's log: the start of the process in microseconds, and a count.
fn next_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    static START: std::sync::LazyLock<u64> = std::sync::LazyLock::new(|| {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_micros() as u64)
    });
    format!("{:x}-{:x}", *START, COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Headers that every answer carries.
pub(crate) async fn secure(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// The answer to a request whose handler panicked; the panic's text goes to the log only.
#[expect(clippy::needless_pass_by_value, reason = "the signature that the layer asks for")]
pub(crate) fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    ApiError::Internal(format!("handler panicked: {text}").into()).into_response()
}
