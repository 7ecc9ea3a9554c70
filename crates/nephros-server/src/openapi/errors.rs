//! Which errors an address can answer with.

use std::collections::BTreeMap;

use utoipa::{
    Modify, PartialSchema, ToSchema,
    openapi::{
        ContentBuilder, HeaderBuilder, OpenApi as Document, Ref, RefOr, ResponseBuilder, Schema,
        path::Operation,
        schema::{Object, Type},
        security::SecurityRequirement,
    },
};

use crate::error::{Code, ErrorBody, ErrorDetail};

/// Codes that every address can answer with; the first two of addresses and methods that are not in the
/// document.
pub(crate) const EVERYWHERE: [Code; 4] =
    [Code::NotFound, Code::MethodNotAllowed, Code::ForeignHost, Code::Internal];

const READS_A_BODY: [Code; 5] = [
    Code::RequestTimeout,
    Code::BodyTooLarge,
    Code::UnsupportedContentType,
    Code::UnsupportedEncoding,
    Code::TooManyBytes,
];
const READS_JSON: [Code; 4] = [Code::InvalidJson, Code::JsonTooDeep, Code::MissingField, Code::InvalidField];
const PREDICTS: [Code; 12] = [
    Code::InvalidJson,
    Code::JsonTooDeep,
    Code::InvalidBase64,
    Code::MissingField,
    Code::NotAnImage,
    Code::CorruptImage,
    Code::ImageTooLarge,
    Code::Overloaded,
    Code::DeadlineExceeded,
    Code::NoModel,
    Code::StoreUnavailable,
    Code::Unauthorized,
];
/// Of what changes the server.
const CHANGES: [Code; 2] = [Code::Unauthorized, Code::ForeignOrigin];
const LOADS: [Code; 4] = [Code::NoModels, Code::NoSuchModel, Code::ModelRefused, Code::UnusableModel];

/// Codes of an address beside [`EVERYWHERE`].
pub(crate) fn codes(method: &str, path: &str) -> Vec<Code> {
    let (only, parts): (&[Code], &[&[Code]]) = match (method, path) {
        ("post", "/predict") => (&[], &[&READS_A_BODY, &PREDICTS]),
        ("post", "/api/v1/predictions") => {
            let only =
                &[Code::InvalidQuery, Code::InvalidHeader, Code::InvalidMultipart, Code::TooManyImages];
            (only, &[&READS_A_BODY, &PREDICTS])
        }
        ("get", "/api/v1/heatmaps/{id}") => {
            (&[Code::Unauthorized, Code::NoSuchHeatmap, Code::Overloaded], &[])
        }
        ("post", "/train") => {
            (&[Code::TrainingRunning, Code::TrainingFailed, Code::TrainingUnavailable], &[&CHANGES])
        }
        ("post", "/api/v1/trainings") => (&[Code::TrainingRunning, Code::TrainingUnavailable], &[&CHANGES]),
        ("post", "/api/v1/trainings/{id}/cancel" | "/api/v1/batches/{id}/cancel") => {
            (&[Code::NoSuchJob, Code::JobEnded], &[&CHANGES])
        }
        ("post", "/api/v1/batches") => (
            &[
                Code::OutsideRoot,
                Code::NoSuchBatch,
                Code::NoBatches,
                Code::BatchRunning,
                Code::TooManyImages,
                Code::DecompressedTooLarge,
                Code::UnreadableFile,
                Code::NotAZip,
                Code::NoModel,
            ],
            &[&CHANGES, &READS_A_BODY, &READS_JSON],
        ),
        ("get", path) if path.starts_with("/api/v1/trainings/") || path.starts_with("/api/v1/batches/") => {
            (&[Code::NoSuchJob, Code::Unauthorized], &[])
        }
        ("get", "/api/v1/trainings" | "/api/v1/batches" | "/metrics") => (&[Code::Unauthorized], &[]),
        ("get", "/api/v1/models") => (&[Code::Unauthorized, Code::NoModels, Code::UnusableModel], &[]),
        ("get", "/api/v1/models/current") => (&[Code::Unauthorized, Code::NoModel], &[]),
        ("post", "/api/v1/models/load" | "/api/v1/models/promote") => {
            (&[], &[&CHANGES, &LOADS, &READS_A_BODY, &READS_JSON])
        }
        ("post", "/api/v1/models/rollback") => (&[Code::NoPrevious, Code::NoModel], &[&CHANGES]),
        ("get", "/api/v1/history") => {
            (&[Code::InvalidQuery, Code::NoHistory, Code::StoreUnavailable, Code::Unauthorized], &[])
        }
        ("post", "/api/v1/history/{receipt}/feedback") => (
            &[Code::NoHistory, Code::NoSuchReceipt, Code::StoreUnavailable],
            &[&CHANGES, &READS_A_BODY, &READS_JSON],
        ),
        ("get", "/health/ready") => (&[Code::NotReady, Code::StoreUnavailable], &[]),
        _ => (&[], &[]),
    };
    let mut codes: Vec<Code> = only.iter().chain(parts.iter().copied().flatten()).copied().collect();
    codes.sort_unstable();
    codes.dedup();
    codes
}

/// Adds the errors of each address to the document.
pub(super) struct Errors;

impl Modify for Errors {
    fn modify(&self, document: &mut Document) {
        let components = document.components.get_or_insert_default();
        components.schemas.insert(ErrorBody::name().into_owned(), ErrorBody::schema());
        components.schemas.insert(ErrorDetail::name().into_owned(), detail());
        for (path, item) in &mut document.paths.paths {
            let methods = [("get", &mut item.get), ("post", &mut item.post)];
            for (method, operation) in methods {
                if let Some(operation) = operation {
                    add(operation, method, path);
                }
            }
        }
    }
}

/// The error's schema, with the closed set of codes.
fn detail() -> RefOr<Schema> {
    let RefOr::T(Schema::Object(mut object)) = ErrorDetail::schema() else { return ErrorDetail::schema() };
    let names = Code::ALL.iter().map(|code| serde_json::Value::from(code.as_str()));
    let mut code = Object::with_type(Type::String);
    code.enum_values = Some(names.collect());
    code.description = Some("One of a closed set.".to_owned());
    object.properties.insert("code".to_owned(), RefOr::T(Schema::Object(code)));
    RefOr::T(Schema::Object(object))
}

fn add(operation: &mut Operation, method: &str, path: &str) {
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    let codes = codes(method, path);
    if codes.contains(&Code::Unauthorized) {
        let token = SecurityRequirement::new("token", [] as [&str; 0]);
        operation.security = Some(vec![token]);
    }
    for code in codes.into_iter().chain(EVERYWHERE) {
        by_status.entry(code.status().as_u16()).or_default().push(code);
    }
    for (status, codes) in by_status {
        let lines: Vec<String> =
            codes.iter().map(|code| format!("- `{}`: {}", code.as_str(), code.sentence())).collect();
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(ErrorBody::name()))).build();
        let mut response =
            ResponseBuilder::new().description(lines.join("\n")).content("application/json", content);
        if codes.iter().any(|code| code.says_when()) {
            let seconds = HeaderBuilder::new().schema(Object::with_type(Type::Integer));
            let seconds = seconds.description(Some("Seconds after which to come again".to_owned())).build();
            response = response.header("Retry-After", seconds);
        }
        operation.responses.responses.insert(status.to_string(), RefOr::T(response.build()));
    }
}
