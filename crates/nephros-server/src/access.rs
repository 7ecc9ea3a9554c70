//! Who may call: bearer token, host names of an open server, origin of a training.

use std::net::IpAddr;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Uri, header},
    middleware::Next,
    response::Response,
};
use sha2::{Digest, Sha256};

use crate::{error::ApiError, state::AppState};

/// Who is let in.
///
/// | | token | no token |
/// |---|---|---|
/// | loopback | Bearer | everyone on this machine, under the machine's own names |
/// | other address | Bearer | everyone (`--allow-unauthenticated`) |
#[derive(Debug, Clone, Default)]
pub struct Access {
    token: Option<TokenDigest>,
    local_names_only: bool,
}

impl Access {
    /// Callers send this token as `Authorization: Bearer`.
    pub fn token(token: &str) -> Self {
        Self { token: Some(TokenDigest::new(token)), local_names_only: false }
    }

    /// Everyone who reaches the loopback interface, by a `Host` that names this machine.
    ///
    /// The check of `Host` keeps out a web page whose own name was made to resolve to 127.0.0.1
    /// (DNS rebinding): to the browser such a page and this server are one site.
    pub fn loopback() -> Self {
        Self { token: None, local_names_only: true }
    }

    /// Everyone, under any name.
    pub fn open() -> Self {
        Self::default()
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        bearer(headers).is_some_and(|sent| token.matches(sent))
    }
}

/// SHA-256 of a token. The server keeps no token, and a comparison of digests tells nothing by its time.
#[derive(Debug, Clone, Copy)]
struct TokenDigest([u8; 32]);

impl TokenDigest {
    fn new(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    fn matches(&self, sent: &str) -> bool {
        let sent = Self::new(sent);
        self.0.iter().zip(sent.0).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Lets a request with the server's token through, every request when there is none.
pub(crate) async fn require_token(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if !state.access().admits(request.headers()) {
        return Err(ApiError::Unauthorized);
    }
    Ok(next.run(request).await)
}

/// Refuses a foreign name on an open loopback server.
pub(crate) async fn require_local_name(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    // Only browsers can be led here by a foreign name, and they always send `Host`.
    let foreign = named_host(&request).is_some_and(|host| !is_local_name(host));
    if state.access().local_names_only && foreign {
        return Err(ApiError::ForeignHost);
    }
    Ok(next.run(request).await)
}

/// Refuses what the page of another site sends; programs send no `Origin`.
pub(crate) async fn require_same_origin(request: Request, next: Next) -> Result<Response, ApiError> {
    let foreign = match request.headers().get(header::ORIGIN) {
        None => false,
        // The scheme is left out: behind a proxy that ends TLS it differs for the server's own page.
        Some(origin) => match (origin.to_str().ok().and_then(origin_authority), named_authority(&request)) {
            (Some(origin), Some(host)) => !origin.eq_ignore_ascii_case(host),
            _ => true,
        },
    };
    if foreign {
        return Err(ApiError::ForeignOrigin);
    }
    Ok(next.run(request).await)
}

fn origin_authority(origin: &str) -> Option<&str> {
    origin.split_once("://").map(|(_, authority)| authority)
}

fn named_authority(request: &Request) -> Option<&str> {
    let uri: &Uri = request.uri();
    match uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or("")),
    }
}

fn named_host(request: &Request) -> Option<&str> {
    named_authority(request).map(without_port)
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        // The colon of `[::1]` without a port is not a port's.
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !host.ends_with(':') => host,
        _ => authority,
    }
}

fn is_local_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_name_this_machine() {
        for host in
            ["localhost", "LOCALHOST:8080", "localhost.:80", "127.0.0.1:8080", "127.9.9.9", "[::1]", "[::1]:8080"]
        {
            assert!(is_local_name(without_port(host)), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:8080", "192.168.0.1", "[::2]:80", "", ":80", "127.0.0.1.x"]
        {
            assert!(!is_local_name(without_port(host)), "{host}");
        }
    }

    #[test]
    fn a_token_matches_only_itself() {
        let token = TokenDigest::new("s3cret");
        assert!(token.matches("s3cret"));
        for other in ["", "s3cre", "s3cret ", "S3cret", "s3crets"] {
            assert!(!token.matches(other), "{other:?}");
        }
    }

    #[test]
    fn a_token_is_not_in_the_debug_text() {
        assert!(!format!("{:?}", Access::token("s3cret")).contains("s3cret"));
    }
}
