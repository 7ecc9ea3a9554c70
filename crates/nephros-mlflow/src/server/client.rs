//! Requests with patience, and answers that are JSON or an error.

use std::{io, thread, time::Duration};

use base64::Engine as _;
use serde_json::Value;
use ureq::{
    Agent, AsSendBody, Body,
    http::{Method, Request, Response, request},
};

use super::ServerError;
use crate::settings::{Address, Login};

/// How long and how often a request is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Attempts, 1 or more.
    pub attempts: u32,
    /// Wait before the second attempt; each further one is twice as long.
    pub wait: Duration,
    /// Longest silence of the server.
    pub silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { attempts: 4, wait: Duration::from_millis(500), silence: Duration::from_secs(30) }
    }
}

/// Most bytes of a JSON answer.
const ANSWER_LIMIT: u64 = 64 << 20;
/// Most characters of a foreign text in an error.
const QUOTE: usize = 200;

/// Sends requests to one server.
#[derive(Debug, Clone)]
pub(super) struct Client {
    agent: Agent,
    pub(super) url: String,
    authorization: Option<String>,
    patience: Patience,
}

impl Client {
    pub(super) fn new(address: &Address, patience: Patience) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("nephros/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(patience.silence))
            .timeout_connect(Some(patience.silence))
            .timeout_recv_response(Some(patience.silence))
            .timeout_per_read(Some(patience.silence))
            .timeout_per_write(Some(patience.silence))
            .build()
            .into();
        let authorization = match &address.login {
            Login::None => None,
            Login::Basic { user, password } => {
                let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
                Some(format!("Basic {pair}"))
            }
            Login::Bearer(token) => Some(format!("Bearer {token}")),
        };
        Self { agent, url: address.url.clone(), authorization, patience }
    }

    /// The same with a single attempt, for what must not be done twice.
    pub(super) fn without_retries(&self) -> Self {
        Self { patience: Patience { attempts: 1, ..self.patience }, ..self.clone() }
    }

    /// What `find` finds, or else what `create` makes. An attempt to create that failed may have done it all
    /// the same, so that every further one looks first.
    pub(super) fn find_or_create<T>(
        &self,
        find: impl Fn() -> Result<Option<T>, ServerError>,
        create: impl Fn(&Self) -> Result<T, ServerError>,
    ) -> Result<T, ServerError> {
        let mut wait = self.patience.wait;
        let mut attempts = 0;
        loop {
            if let Some(found) = find()? {
                return Ok(found);
            }
            attempts += 1;
            match create(&self.without_retries()) {
                Err(error) if error.is_passing() && attempts < self.patience.attempts => thread::sleep(wait),
                other => return other,
            }
            wait *= 2;
        }
    }

    /// A request to `path` below the server's address with a JSON body; gives the JSON of the answer.
    pub(super) fn json(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ServerError> {
        let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let response = if body.is_some() {
            let head = || self.request(method, path).header("content-type", "application/json");
            self.send(|| head().body(bytes.as_slice()).map_err(io::Error::other))
        } else {
            self.send(|| self.request(method, path).body(()).map_err(io::Error::other))
        }?;
        let url = format!("{}{path}", self.url);
        let status = response.status().as_u16();
        let text = read(response);
        let value = match serde_json::from_str::<Value>(&text) {
            Ok(value) => value,
            Err(_) if status == 404 => return Err(ServerError::NoEndpoint { url }),
            Err(_) => return Err(ServerError::NotJson { url, status, text: quote(&text) }),
        };
        if status < 400 {
            return Ok(value);
        }
        let field = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        match field("error_code") {
            code if code.is_empty() => Err(ServerError::NotJson { url, status, text: quote(&text) }),
            code if code == "ENDPOINT_NOT_FOUND" => Err(ServerError::NoEndpoint { url }),
            code => Err(ServerError::Refused { url, code, message: field("message") }),
        }
    }

    /// Sends a request until it is answered by something else than an error of the server, a few times. It is
    /// made anew for each attempt.
    pub(super) fn send<B: AsSendBody>(
        &self,
        request: impl Fn() -> io::Result<Request<B>>,
    ) -> Result<Response<Body>, ServerError> {
        let url = self.url.clone();
        let mut wait = self.patience.wait;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let last = attempts >= self.patience.attempts;
            match self.agent.run(request()?) {
                Ok(response) if response.status().is_server_error() || response.status() == 429 => {
                    if last {
                        let status = response.status().as_u16();
                        return Err(ServerError::Failing {
                            url,
                            status,
                            attempts,
                            text: quote(&read(response)),
                        });
                    }
                }
                Ok(response) => return self.admitted(response),
                Err(source) if last => {
                    return Err(ServerError::Unreachable { url, attempts, source: Box::new(source) });
                }
                Err(error) => tracing::debug!("attempt {attempts} at `{url}`: {error}"),
            }
            thread::sleep(wait);
            wait *= 2;
        }
    }

    /// The head of a request to `path` below the server's address.
    pub(super) fn request(&self, method: &Method, path: &str) -> request::Builder {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        match &self.authorization {
            Some(authorization) => request.header("authorization", authorization),
            None => request,
        }
    }

    fn admitted(&self, response: Response<Body>) -> Result<Response<Body>, ServerError> {
        let url = self.url.clone();
        match response.status().as_u16() {
            401 => Err(ServerError::Unauthorized { url, text: quote(&read(response)) }),
            403 => Err(ServerError::Forbidden { url, text: quote(&read(response)) }),
            _ => Ok(response),
        }
    }
}

/// The text of an answer; what broke off is no JSON, and told as that.
pub(super) fn read(response: Response<Body>) -> String {
    let mut body = response.into_body();
    body.with_config().limit(ANSWER_LIMIT).lossy_utf8(true).read_to_string().unwrap_or_default()
}

/// The start of a text, in a line.
pub(super) fn quote(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    crate::run::shortened(&line, QUOTE)
}
