//! The closed set of codes.

use axum::http::StatusCode;

macro_rules! codes {
    ($($name:ident $text:literal $status:ident $sentence:literal,)*) => {
        /// What went wrong, as clients and monitors read it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(#[doc = $sentence] $name,)*
        }

        impl Code {
            /// Every code, by status.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code as the JSON carries it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The status it is sent with.
            pub fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            /// Whether it is sent with `Retry-After`.
            pub(crate) fn says_when(self) -> bool {
                [Self::Overloaded, Self::TooManyBytes, Self::DeadlineExceeded, Self::StoreUnavailable].contains(&self)
            }

            /// When it is sent, for the OpenAPI document.
            pub fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence,)* }
            }
        }
    };
}

codes! {
    InvalidJson "invalid_json" BAD_REQUEST "The body is not JSON.",
    JsonTooDeep "json_too_deep" BAD_REQUEST "The JSON is nested deeper than the limit.",
    InvalidBase64 "invalid_base64" BAD_REQUEST "The image is not base64.",
    InvalidMultipart "invalid_multipart" BAD_REQUEST "The body is not the multipart form that its content type announces.",
    InvalidQuery "invalid_query" BAD_REQUEST "A parameter after the `?` of the address has a value that it cannot have.",
    InvalidHeader "invalid_header" BAD_REQUEST "A header has a value that it cannot have.",
    Unauthorized "unauthorized" UNAUTHORIZED "A token is needed and was not sent, or is not the server's.",
    ForeignOrigin "foreign_origin" FORBIDDEN "A page of another site called what only this server's own page may call.",
    ForeignHost "foreign_host" FORBIDDEN "The request names a host that an open server on loopback does not answer to.",
    OutsideRoot "outside_root" FORBIDDEN "The path leaves the folder that this server reads batches from.",
    NotFound "not_found" NOT_FOUND "No such address.",
    NoSuchModel "no_such_model" NOT_FOUND "No model has this name.",
    NoSuchJob "no_such_job" NOT_FOUND "No training or batch has this id, or it is forgotten already.",
    NoSuchHeatmap "no_such_heatmap" NOT_FOUND "No heat map has this id: it was never offered, its time is over, or its model is no longer served.",
    NoSuchReceipt "no_such_receipt" NOT_FOUND "No prediction has this receipt.",
    NoSuchBatch "no_such_batch" NOT_FOUND "There is no such folder or zip file of images.",
    NoHistory "no_history" NOT_FOUND "This server keeps no history.",
    NoBatches "no_batches" NOT_FOUND "This server was started without a folder to read batches from.",
    NoModels "no_models" NOT_FOUND "This server was started without a place to load models from.",
    MethodNotAllowed "method_not_allowed" METHOD_NOT_ALLOWED "The address does not take this method; `Allow` lists those it takes.",
    RequestTimeout "request_timeout" REQUEST_TIMEOUT "The body did not arrive in time.",
    TrainingRunning "training_running" CONFLICT "A training is running already.",
    BatchRunning "batch_running" CONFLICT "As many batches as this server runs at once are running.",
    JobEnded "job_ended" CONFLICT "The job has ended and cannot be cancelled.",
    NoPrevious "no_previous" CONFLICT "No model was served before the current one.",
    ModelRefused "model_refused" CONFLICT "The model failed the gate of its evaluation.",
    BodyTooLarge "body_too_large" PAYLOAD_TOO_LARGE "The body is larger than the limit.",
    ImageTooLarge "image_too_large" PAYLOAD_TOO_LARGE "The image has more pixels than the limit.",
    TooManyImages "too_many_images" PAYLOAD_TOO_LARGE "The request or batch has more images than the limit.",
    DecompressedTooLarge "decompressed_too_large" PAYLOAD_TOO_LARGE "The zip file unpacks to more bytes than the limit.",
    UnsupportedContentType "unsupported_content_type" UNSUPPORTED_MEDIA_TYPE "The body's content type is none that the address takes.",
    UnsupportedEncoding "unsupported_encoding" UNSUPPORTED_MEDIA_TYPE "The body is compressed; it has to be sent as it is.",
    MissingField "missing_field" UNPROCESSABLE_ENTITY "The body has no usable image.",
    InvalidField "invalid_field" UNPROCESSABLE_ENTITY "A key of the JSON body is missing, unknown, or has a value that it cannot have.",
    NotAnImage "not_an_image" UNPROCESSABLE_ENTITY "The bytes are no known image format.",
    CorruptImage "corrupt_image" UNPROCESSABLE_ENTITY "The image cannot be decoded.",
    UnreadableFile "unreadable_file" UNPROCESSABLE_ENTITY "The file, or this one of a batch, cannot be read: it is gone or torn, or closed to the server, or packed with a password or in an unknown way.",
    NotAZip "not_a_zip" UNPROCESSABLE_ENTITY "The file is no zip file that can be read.",
    UnusableModel "unusable_model" UNPROCESSABLE_ENTITY "The model cannot be loaded or fails its own check.",
    Overloaded "overloaded" TOO_MANY_REQUESTS "Too many images are waiting; `Retry-After` says when to come again.",
    TooManyBytes "too_many_bytes" TOO_MANY_REQUESTS "The bodies of the requests under way take all the memory that there is for them; `Retry-After` says when to come again.",
    DeadlineExceeded "deadline_exceeded" TOO_MANY_REQUESTS "The turn of the image did not come in time; `Retry-After` says when to come again.",
    Internal "internal" INTERNAL_SERVER_ERROR "A bug.",
    TrainingFailed "training_failed" INTERNAL_SERVER_ERROR "The training failed; the model stays as it was.",
    TrainingUnavailable "training_unavailable" NOT_IMPLEMENTED "This server was started without a project to train.",
    NoModel "no_model" SERVICE_UNAVAILABLE "No model is loaded.",
    NotReady "not_ready" SERVICE_UNAVAILABLE "The server is starting or stopping, or has no model.",
    StoreUnavailable "store_unavailable" SERVICE_UNAVAILABLE "Predictions cannot be recorded now, so none are made; `Retry-After` says when to come again.",
}
