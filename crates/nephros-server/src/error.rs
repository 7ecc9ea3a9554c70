//! Every error that a client can get: a closed set of codes, one status each, one JSON shape.

use std::time::Duration;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use nephros_core::{hint::Hint, pixels::DecodeError};
use serde_json::json;

/// Any error underneath.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What went wrong, as clients and monitors read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// The body is not JSON.
    InvalidJson,
    /// The image is not base64.
    InvalidBase64,
    /// A parameter after the `?` of the address has a value that it cannot have.
    InvalidQuery,
    /// A token is needed and was not sent, or is not the server's.
    Unauthorized,
    /// A page of another site called what only this server's own page may call.
    ForeignOrigin,
    /// The request names a host that an open server on loopback does not answer to.
    ForeignHost,
    /// No such address.
    NotFound,
    /// The address does not take this method.
    MethodNotAllowed,
    /// The body did not arrive in time.
    RequestTimeout,
    /// A training is running already.
    TrainingRunning,
    /// The body is larger than the limit.
    BodyTooLarge,
    /// The image has more pixels than the limit.
    ImageTooLarge,
    /// The body's content type is none that the address takes.
    UnsupportedContentType,
    /// The JSON body has no usable `image`.
    MissingField,
    /// The bytes are no known image format.
    NotAnImage,
    /// The image cannot be decoded.
    CorruptImage,
    /// Too many requests are waiting.
    Overloaded,
    /// A bug.
    Internal,
    /// The training failed.
    TrainingFailed,
    /// This server was started without a project to train.
    TrainingUnavailable,
    /// No model is loaded.
    NoModel,
}

impl Code {
    /// Every code, by status.
    pub const ALL: [Self; 21] = [
        Self::InvalidJson,
        Self::InvalidBase64,
        Self::InvalidQuery,
        Self::Unauthorized,
        Self::ForeignOrigin,
        Self::ForeignHost,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::TrainingRunning,
        Self::BodyTooLarge,
        Self::ImageTooLarge,
        Self::UnsupportedContentType,
        Self::MissingField,
        Self::NotAnImage,
        Self::CorruptImage,
        Self::Overloaded,
        Self::Internal,
        Self::TrainingFailed,
        Self::TrainingUnavailable,
        Self::NoModel,
    ];

    /// The code as the JSON carries it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::InvalidBase64 => "invalid_base64",
            Self::InvalidQuery => "invalid_query",
            Self::Unauthorized => "unauthorized",
            Self::ForeignOrigin => "foreign_origin",
            Self::ForeignHost => "foreign_host",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RequestTimeout => "request_timeout",
            Self::TrainingRunning => "training_running",
            Self::BodyTooLarge => "body_too_large",
            Self::ImageTooLarge => "image_too_large",
            Self::UnsupportedContentType => "unsupported_content_type",
            Self::MissingField => "missing_field",
            Self::NotAnImage => "not_an_image",
            Self::CorruptImage => "corrupt_image",
            Self::Overloaded => "overloaded",
            Self::Internal => "internal",
            Self::TrainingFailed => "training_failed",
            Self::TrainingUnavailable => "training_unavailable",
            Self::NoModel => "no_model",
        }
    }

    /// The status it is sent with.
    pub fn status(self) -> StatusCode {
        match self {
            Self::InvalidJson | Self::InvalidBase64 | Self::InvalidQuery => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::ForeignOrigin | Self::ForeignHost => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::TrainingRunning => StatusCode::CONFLICT,
            Self::BodyTooLarge | Self::ImageTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::MissingField | Self::NotAnImage | Self::CorruptImage => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal | Self::TrainingFailed => StatusCode::INTERNAL_SERVER_ERROR,
            Self::TrainingUnavailable => StatusCode::NOT_IMPLEMENTED,
            Self::NoModel => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// An answer that is not the one asked for.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// See [`Code::InvalidJson`].
    #[error("the body is not JSON: {0}")]
    InvalidJson(#[source] serde_json::Error),
    /// See [`Code::InvalidBase64`].
    #[error("`image` is not base64: {}", .0.to_string().trim_end_matches('.'))]
    InvalidBase64(#[source] base64::DecodeError),
    /// See [`Code::InvalidQuery`].
    #[error("`similar`: expected a whole number from 0 to {most}, got `{got}`")]
    InvalidQuery {
        /// The largest number.
        most: usize,
        /// The value sent.
        got: String,
    },
    /// See [`Code::Unauthorized`].
    #[error("this server needs a token")]
    Unauthorized,
    /// See [`Code::ForeignOrigin`].
    #[error("training cannot be started from a page of another site")]
    ForeignOrigin,
    /// See [`Code::ForeignHost`].
    #[error(
        "this server answers only to the names of this machine: expected `localhost` or a loopback address"
    )]
    ForeignHost,
    /// See [`Code::NotFound`].
    #[error("no such address")]
    NotFound,
    /// See [`Code::MethodNotAllowed`]; the `Allow` header lists what is.
    #[error("the address does not take this method")]
    MethodNotAllowed,
    /// See [`Code::RequestTimeout`].
    #[error("the body did not arrive within {0:?}")]
    RequestTimeout(Duration),
    /// See [`Code::TrainingRunning`].
    #[error("a training is running already")]
    TrainingRunning,
    /// See [`Code::BodyTooLarge`].
    #[error("the body is larger than {limit} bytes")]
    BodyTooLarge {
        /// The most that is taken.
        limit: usize,
    },
    /// See [`Code::NotAnImage`], [`Code::CorruptImage`] and [`Code::ImageTooLarge`].
    #[error(transparent)]
    Image(#[from] DecodeError),
    /// See [`Code::UnsupportedContentType`].
    #[error("expected content type {expected}, got {got}")]
    UnsupportedContentType {
        /// The content types that the address takes.
        expected: &'static str,
        /// The content type sent, in backticks, or `none`.
        got: String,
    },
    /// See [`Code::MissingField`].
    #[error("expected a JSON object with the key `image` and a base64 text as its value")]
    MissingField,
    /// See [`Code::Overloaded`].
    #[error("too many requests are waiting")]
    Overloaded,
    /// See [`Code::Internal`]; the source goes to the log only.
    #[error("the server failed to answer this request")]
    Internal(#[source] BoxError),
    /// See [`Code::TrainingFailed`]; the source goes to the log only.
    #[error("the training failed: {message}")]
    TrainingFailed {
        /// What the trainer lets a client read.
        message: String,
        /// What the trainer advises.
        hint: Option<String>,
        /// The whole story.
        source: Option<BoxError>,
    },
    /// See [`Code::TrainingUnavailable`].
    #[error("this server was started without a project to train")]
    TrainingUnavailable,
    /// See [`Code::NoModel`].
    #[error("no model is loaded")]
    NoModel,
}

impl ApiError {
    /// The code it is sent with.
    pub fn code(&self) -> Code {
        match self {
            Self::InvalidJson(_) => Code::InvalidJson,
            Self::InvalidBase64(_) => Code::InvalidBase64,
            Self::InvalidQuery { .. } => Code::InvalidQuery,
            Self::Unauthorized => Code::Unauthorized,
            Self::ForeignOrigin => Code::ForeignOrigin,
            Self::ForeignHost => Code::ForeignHost,
            Self::NotFound => Code::NotFound,
            Self::MethodNotAllowed => Code::MethodNotAllowed,
            Self::RequestTimeout(_) => Code::RequestTimeout,
            Self::TrainingRunning => Code::TrainingRunning,
            Self::BodyTooLarge { .. } => Code::BodyTooLarge,
            Self::Image(DecodeError::Empty | DecodeError::UnknownFormat { .. }) => Code::NotAnImage,
            Self::Image(DecodeError::TooLarge { .. }) => Code::ImageTooLarge,
            Self::Image(_) => Code::CorruptImage,
            Self::UnsupportedContentType { .. } => Code::UnsupportedContentType,
            Self::MissingField => Code::MissingField,
            Self::Overloaded => Code::Overloaded,
            Self::Internal(_) => Code::Internal,
            Self::TrainingFailed { .. } => Code::TrainingFailed,
            Self::TrainingUnavailable => Code::TrainingUnavailable,
            Self::NoModel => Code::NoModel,
        }
    }

    /// The chain of sources, for the log; `None` for what a client did.
    fn chain(&self) -> Option<String> {
        if !self.code().status().is_server_error() {
            return None;
        }
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(error) = next {
            let link = error.to_string();
            // An error whose text ends with its source's says it once.
            if !text.ends_with(&link) {
                text.push_str(": ");
                text.push_str(&link);
            }
            next = error.source();
        }
        Some(text)
    }
}

impl Hint for ApiError {
    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Unauthorized => "send `Authorization: Bearer` with the value of the server's NEPHROS_TOKEN",
            Self::ForeignHost => {
                "start the server with NEPHROS_TOKEN set to reach it by another name or through a proxy"
            }
            Self::TrainingRunning => "try again when it has ended",
            Self::Overloaded => "try again in a second",
            Self::Internal(_) => "the server's log has the details under this answer's x-request-id",
            Self::TrainingUnavailable => "run `nephros serve` in a project folder made by `nephros init`",
            Self::NoModel => {
                "train one with `nephros run` or `POST /train`, or start the server with `--model` and a bundle"
            }
            Self::Image(error) => return error.hint(),
            Self::TrainingFailed { hint, .. } => return hint.clone(),
            _ => return None,
        };
        Some(text.to_owned())
    }
}

/// What the log needs to know of an error response.
#[derive(Debug, Clone)]
pub(crate) struct Logged {
    pub(crate) code: Code,
    pub(crate) chain: Option<String>,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let code = self.code();
        let mut error = json!({"code": code.as_str(), "message": self.to_string()});
        if let Some(hint) = self.hint() {
            error["hint"] = hint.into();
        }
        let mut response = (code.status(), Json(json!({ "error": error }))).into_response();
        let headers = response.headers_mut();
        match code {
            Code::Unauthorized => {
                headers
                    .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"nephros\""));
            }
            Code::Overloaded => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response.extensions_mut().insert(Logged { code, chain: self.chain() });
        response
    }
}
