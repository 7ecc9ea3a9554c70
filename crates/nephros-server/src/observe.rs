//! Around every request: its id, one log line, security headers, and a net for panics.

use std::{
    any::Any,
    sync::atomic::{AtomicU64, Ordering},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderName, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::error::{ApiError, Logged};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Names the request and logs how it ended.
///
/// The line has the route's pattern and never the address itself: a client may write anything there.
pub(crate) async fn log(request: Request, next: Next) -> Response {
    let start = Instant::now();
    let id = next_id();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let mut response = next.run(request).await;
    let status = response.status().as_u16();
    let milliseconds = start.elapsed().as_millis() as u64;
    match response.extensions_mut().remove::<Logged>() {
        Some(Logged { code, chain: Some(chain) }) => {
            tracing::error!(id, %method, route, status, milliseconds, code = code.as_str(), "{chain}");
        }
        Some(Logged { code, chain: None }) => {
            tracing::info!(id, %method, route, status, milliseconds, code = code.as_str(), "refused");
        }
        None => tracing::info!(id, %method, route, status, milliseconds, "answered"),
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
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
pub(crate) fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    ApiError::Internal(format!("handler panicked: {text}").into()).into_response()
}
