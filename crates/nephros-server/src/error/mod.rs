//! Every error that a client can get: a closed set of codes, one status each, one JSON shape.

mod code;

use std::time::Duration;

use axum::{
    Json,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use nephros_core::{hint::Hint, pixels::DecodeError};
use nephros_serving::{Overloaded, ServingError};
use serde::Serialize;
use utoipa::ToSchema;

pub use code::Code;
pub use nephros_serving::BoxError;

/// An answer that is not the one asked for.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// See [`Code::InvalidJson`].
    #[error("the body is not JSON: {0}")]
    InvalidJson(#[source] serde_json::Error),
    /// See [`Code::JsonTooDeep`].
    #[error("the JSON is nested more than {limit} deep")]
    JsonTooDeep {
        /// The most that is taken.
        limit: usize,
    },
    /// See [`Code::InvalidBase64`].
    #[error("`image` is not base64: {}", .0.to_string().trim_end_matches('.'))]
    InvalidBase64(#[source] base64::DecodeError),
    /// See [`Code::InvalidMultipart`].
    #[error("the body is not the multipart form that its content type announces")]
    InvalidMultipart(#[source] multer::Error),
    /// See [`Code::InvalidQuery`].
    #[error("`{name}`: expected {expected}, got `{got}`")]
    InvalidQuery {
        /// The parameter.
        name: &'static str,
        /// What it can be.
        expected: String,
        /// The beginning of the value sent.
        got: String,
    },
    /// See [`Code::Unauthorized`].
    #[error("this server needs a token")]
    Unauthorized,
    /// See [`Code::ForeignOrigin`].
    #[error("a page of another site cannot do this")]
    ForeignOrigin,
    /// See [`Code::ForeignHost`].
    #[error(
        "this server answers only to the names of this machine: expected `localhost` or a loopback address"
    )]
    ForeignHost,
    /// See [`Code::OutsideRoot`].
    #[error("the path leaves the folder that this server reads batches from")]
    OutsideRoot,
    /// One of the codes of status 404, which need no more than their sentence.
    #[error("{}", plain(*.0))]
    Missing(Code),
    /// See [`Code::MethodNotAllowed`]; the `Allow` header lists what is.
    #[error("the address does not take this method")]
    MethodNotAllowed,
    /// See [`Code::RequestTimeout`].
    #[error("the body did not arrive within {0:?}")]
    RequestTimeout(Duration),
    /// One of the codes of status 409, which need no more than their sentence.
    #[error("{}", plain(*.0))]
    Conflict(Code),
    /// See [`Code::ModelRefused`].
    #[error("the model failed the gate of its evaluation: {reason}")]
    ModelRefused {
        /// What the gate says.
        reason: String,
    },
    /// See [`Code::BodyTooLarge`].
    #[error("the body is larger than {limit} bytes")]
    BodyTooLarge {
        /// The most that is taken.
        limit: usize,
    },
    /// See [`Code::NotAnImage`], [`Code::CorruptImage`] and [`Code::ImageTooLarge`].
    #[error(transparent)]
    Image(#[from] DecodeError),
    /// See [`Code::TooManyImages`].
    #[error("expected at most {limit} images")]
    TooManyImages {
        /// The most that are taken.
        limit: usize,
    },
    /// See [`Code::DecompressedTooLarge`].
    #[error("the zip file unpacks to more than {limit} bytes")]
    DecompressedTooLarge {
        /// The most that is taken.
        limit: u64,
    },
    /// See [`Code::UnsupportedContentType`].
    #[error("expected content type {expected}, got {got}")]
    UnsupportedContentType {
        /// The content types that the address takes.
        expected: &'static str,
        /// The content type sent, in backticks, or `none`.
        got: String,
    },
    /// See [`Code::UnsupportedEncoding`].
    #[error("the body is compressed")]
    UnsupportedEncoding,
    /// See [`Code::MissingField`].
    #[error("expected {expected}")]
    MissingField {
        /// What the address takes.
        expected: &'static str,
    },
    /// See [`Code::InvalidHeader`]; its value is not repeated.
    #[error("`{name}`: expected {expected}")]
    InvalidHeader {
        /// The header.
        name: &'static str,
        /// What it can be.
        expected: &'static str,
    },
    /// See [`Code::InvalidField`].
    #[error("the JSON body cannot be used: {0}")]
    InvalidField(#[source] serde_json::Error),
    /// See [`Code::UnreadableFile`].
    #[error("the file cannot be read")]
    UnreadableFile,
    /// See [`Code::NotAZip`].
    #[error("the file is no zip file that can be read")]
    NotAZip,
    /// See [`Code::UnusableModel`]; the source goes to the log only.
    #[error("the model cannot be used: {reason}")]
    UnusableModel {
        /// What a client may read.
        reason: String,
        /// The whole story.
        source: BoxError,
    },
    /// See [`Code::Overloaded`].
    #[error("too many requests are waiting")]
    Overloaded {
        /// When there will be room, by the measured rate.
        retry_after: Duration,
    },
    /// See [`Code::TooManyBytes`].
    #[error("the bodies of other requests take the memory that this one would need")]
    TooManyBytes,
    /// See [`Code::DeadlineExceeded`].
    #[error("no answer within {within:?}")]
    DeadlineExceeded {
        /// The time it had.
        within: Duration,
        /// When there will be room, by the measured rate.
        retry_after: Duration,
    },
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
    /// See [`Code::NotReady`].
    #[error("the server is starting or stopping, or has no model")]
    NotReady,
    /// See [`Code::StoreUnavailable`]; the source goes to the log only. Without one it was told before: a fault
    /// that is known refuses whoever comes, as fast as they come.
    #[error("predictions cannot be recorded now, so none are made")]
    StoreUnavailable(#[source] Option<BoxError>),
}

/// An error and its sources in a line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let link = error.to_string();
        // An error whose text ends with its source's says it once.
        if !text.ends_with(&link) {
            text.push_str(": ");
            text.push_str(&link);
        }
        next = error.source();
    }
    text
}

/// The sentence of a code in the form of an error.
fn plain(code: Code) -> String {
    let sentence = code.sentence().trim_end_matches('.');
    let mut letters = sentence.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

impl From<ServingError> for ApiError {
    fn from(error: ServingError) -> Self {
        match error {
            ServingError::Image(error) => Self::Image(error),
            ServingError::Deadline { within, retry_after } => Self::DeadlineExceeded { within, retry_after },
            ServingError::Model(error) => Self::Internal(error),
            other => Self::Internal(other.into()),
        }
    }
}

impl From<Overloaded> for ApiError {
    fn from(Overloaded { retry_after, .. }: Overloaded) -> Self {
        Self::Overloaded { retry_after }
    }
}

/// The JSON of every error.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    pub(crate) error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ErrorDetail {
    /// One of a closed set.
    pub(crate) code: &'static str,
    /// What happened, for a person.
    pub(crate) message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) hint: Option<String>,
}

impl ApiError {
    /// The code it is sent with.
    pub fn code(&self) -> Code {
        match self {
            Self::InvalidJson(_) => Code::InvalidJson,
            Self::JsonTooDeep { .. } => Code::JsonTooDeep,
            Self::InvalidBase64(_) => Code::InvalidBase64,
            Self::InvalidMultipart(_) => Code::InvalidMultipart,
            Self::InvalidQuery { .. } => Code::InvalidQuery,
            Self::InvalidHeader { .. } => Code::InvalidHeader,
            Self::Unauthorized => Code::Unauthorized,
            Self::ForeignOrigin => Code::ForeignOrigin,
            Self::ForeignHost => Code::ForeignHost,
            Self::OutsideRoot => Code::OutsideRoot,
            Self::Missing(code) | Self::Conflict(code) => *code,
            Self::MethodNotAllowed => Code::MethodNotAllowed,
            Self::RequestTimeout(_) => Code::RequestTimeout,
            Self::ModelRefused { .. } => Code::ModelRefused,
            Self::BodyTooLarge { .. } => Code::BodyTooLarge,
            Self::Image(DecodeError::Empty | DecodeError::UnknownFormat { .. }) => Code::NotAnImage,
            Self::Image(DecodeError::TooLarge { .. }) => Code::ImageTooLarge,
            Self::Image(_) => Code::CorruptImage,
            Self::TooManyImages { .. } => Code::TooManyImages,
            Self::DecompressedTooLarge { .. } => Code::DecompressedTooLarge,
            Self::UnsupportedContentType { .. } => Code::UnsupportedContentType,
            Self::UnsupportedEncoding => Code::UnsupportedEncoding,
            Self::MissingField { .. } => Code::MissingField,
            Self::InvalidField(_) => Code::InvalidField,
            Self::UnreadableFile => Code::UnreadableFile,
            Self::NotAZip => Code::NotAZip,
            Self::UnusableModel { .. } => Code::UnusableModel,
            Self::Overloaded { .. } => Code::Overloaded,
            Self::TooManyBytes => Code::TooManyBytes,
            Self::DeadlineExceeded { .. } => Code::DeadlineExceeded,
            Self::Internal(_) => Code::Internal,
            Self::TrainingFailed { .. } => Code::TrainingFailed,
            Self::TrainingUnavailable => Code::TrainingUnavailable,
            Self::NoModel => Code::NoModel,
            Self::NotReady => Code::NotReady,
            Self::StoreUnavailable(_) => Code::StoreUnavailable,
        }
    }

    /// The JSON's content.
    pub(crate) fn detail(&self) -> ErrorDetail {
        ErrorDetail { code: self.code().as_str(), message: self.to_string(), hint: self.hint() }
    }

    /// The chain of sources, for the log; `None` for what a client did.
    pub(crate) fn chain(&self) -> Option<String> {
        let ours = self.code().status().is_server_error() || matches!(self, Self::UnusableModel { .. });
        // A server that starts or has no model yet says so to whoever asks, again and again.
        if !ours || matches!(self, Self::NotReady | Self::StoreUnavailable(None)) {
            return None;
        }
        Some(chain(self))
    }

    /// When to come again, where that is known.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Overloaded { retry_after } | Self::DeadlineExceeded { retry_after, .. } => {
                Some(*retry_after)
            }
            Self::TooManyBytes => Some(Duration::from_secs(2)),
            Self::StoreUnavailable(_) => Some(Duration::from_secs(5)),
            _ => None,
        }
    }
}

impl Hint for ApiError {
    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Unauthorized => "send `Authorization: Bearer` with the value of the server's NEPHROS_TOKEN",
            Self::ForeignHost => {
                "start the server with NEPHROS_TOKEN set to reach it by another name or through a proxy"
            }
            Self::Conflict(Code::TrainingRunning | Code::BatchRunning) => "try again when it has ended",
            Self::Missing(Code::NoBatches) => "start it with `nephros serve --batch-root FOLDER`",
            Self::Missing(Code::NoModels) => "start it in a project folder made by `nephros init`",
            Self::ModelRefused { .. } => {
                "`\"force\": true` serves it all the same, and its bundle records that"
            }
            Self::UnreadableFile => {
                "look whether the server's user may read it; in a zip file it has to be whole and without a password"
            }
            Self::UnsupportedEncoding => "leave `Content-Encoding` out",
            Self::Overloaded { .. }
            | Self::TooManyBytes
            | Self::DeadlineExceeded { .. }
            | Self::StoreUnavailable(_) => "try again after the seconds of `Retry-After`",
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

/// Longest time that a client is sent away for.
const LONGEST_RETRY_S: u64 = 600;

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let code = self.code();
        let mut response = (code.status(), Json(ErrorBody { error: self.detail() })).into_response();
        let headers = response.headers_mut();
        if code == Code::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"nephros\""));
        }
        if let Some(time) = self.retry_after() {
            let seconds = (time.as_secs_f64().ceil() as u64).clamp(1, LONGEST_RETRY_S);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(Logged { code, chain: self.chain() });
        response
    }
}
