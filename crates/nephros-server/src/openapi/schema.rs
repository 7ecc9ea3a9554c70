//! Schemas of what is written by hand, or by crates that know no OpenAPI.

#![allow(dead_code, reason = "these types are only described, never built")]

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr, Schema,
        schema::{KnownFormat, Object, ObjectBuilder, OneOfBuilder, SchemaFormat, Type},
    },
};

use crate::predict::{Answer, Answers};

/// Bytes of a file.
pub(crate) struct File;

impl PartialSchema for File {
    fn schema() -> RefOr<Schema> {
        let bytes = ObjectBuilder::new().schema_type(Type::String);
        bytes.format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary))).build().into()
    }
}

impl ToSchema for File {}

/// Any JSON object.
pub(crate) struct AnyObject;

impl PartialSchema for AnyObject {
    fn schema() -> RefOr<Schema> {
        Object::with_type(Type::Object).into()
    }
}

impl ToSchema for AnyObject {}

/// The body of the reference's prediction.
#[derive(ToSchema)]
pub(crate) struct ReferenceImage {
    /// The encoded image, in base64.
    image: String,
}

/// The reference's answer.
#[derive(ToSchema)]
pub(crate) struct ReferenceLabel {
    /// The most probable class.
    image: String,
}

/// One image, or several.
pub(crate) struct Images;

impl PartialSchema for Images {
    fn schema() -> RefOr<Schema> {
        one_of([OneImage::name(), ManyImages::name()])
    }
}

impl ToSchema for Images {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((OneImage::name().into(), OneImage::schema()));
        schemas.push((ManyImages::name().into(), ManyImages::schema()));
    }
}

/// One of these schemas.
fn one_of(names: [std::borrow::Cow<'static, str>; 2]) -> RefOr<Schema> {
    let schemas = names.into_iter().fold(OneOfBuilder::new(), |schemas, name| {
        schemas.item(utoipa::openapi::Ref::from_schema_name(name))
    });
    RefOr::T(Schema::OneOf(schemas.build()))
}

/// A server-sent event.
#[derive(ToSchema)]
pub(crate) struct ServerSentEvent {
    /// Number of the event.
    id: String,
    /// `stage`, `progress`, `epoch`, `log` or `end`.
    event: String,
    /// A TrainingEvent in JSON.
    data: String,
}

/// One image.
#[derive(ToSchema)]
pub(crate) struct OneImage {
    /// The file in base64; a data URL is taken too.
    image: String,
}

/// Several images.
#[derive(ToSchema)]
pub(crate) struct ManyImages {
    /// The files in base64.
    #[schema(min_items = 1, max_items = 32)]
    images: Vec<String>,
}

/// A form with files; every file is an image.
#[derive(ToSchema)]
pub(crate) struct Form {
    /// The files.
    #[schema(min_items = 1, max_items = 32)]
    images: Vec<File>,
}

/// A prediction, or a list of them.
pub(crate) struct OneOrMany;

impl PartialSchema for OneOrMany {
    fn schema() -> RefOr<Schema> {
        one_of([Answer::name(), Answers::name()])
    }
}

impl ToSchema for OneOrMany {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((Answer::name().into(), Answer::schema()));
        schemas.push((Answers::name().into(), Answers::schema()));
        Answer::schemas(schemas);
        Answers::schemas(schemas);
    }
}

/// The calibrated probability of the label, or `refer`.
pub(crate) struct Confidence;

impl PartialSchema for Confidence {
    fn schema() -> RefOr<Schema> {
        let number = ObjectBuilder::new().schema_type(Type::Number).minimum(Some(0)).maximum(Some(1));
        let refer = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["refer"]));
        RefOr::T(Schema::OneOf(OneOfBuilder::new().item(number).item(refer).build()))
    }
}

impl ToSchema for Confidence {}

/// What speaks against giving an image a label, or is to be known about it.
#[derive(ToSchema)]
pub(crate) struct Reason {
    /// One of a closed set; all but `near_copy` refuse the label.
    #[schema(inline)]
    code: ReasonCode,
    /// With the figures.
    sentence: String,
}

/// Codes of the input gate.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum ReasonCode {
    TooSmall,
    Empty,
    Coloured,
    NotCt,
    WrongWindow,
    Saturated,
    Blurred,
    BodyShape,
    Orientation,
    OutOfRange,
    NearCopy,
}

/// A training slice that resembles the image.
#[derive(ToSchema)]
pub(crate) struct Similar {
    /// As in the manifest of the training.
    path: String,
    /// Its class.
    class: String,
    /// Its patient, by a number that holds within the bundle; absent where patients are not known.
    #[schema(nullable = false)]
    patient: Option<u32>,
    /// The group that stands for its patient where patients are not known.
    #[schema(nullable = false)]
    group: Option<u32>,
    /// In standard deviations of the network's features.
    distance: f64,
}

/// Whether the server can predict.
#[derive(ToSchema)]
pub(crate) struct Health {
    /// `ok` or `no model`.
    status: String,
    /// What is kept of a prediction.
    #[schema(inline)]
    records: Records,
    /// What the model is called.
    model: Option<String>,
    /// Of this server.
    version: String,
    /// In what the model is not as the one before.
    #[schema(nullable = false)]
    notice: Option<String>,
    /// Why the model trained last is not the current one.
    #[schema(nullable = false)]
    refused: Option<String>,
}

/// What is kept of a prediction.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum Records {
    /// Nothing.
    Nothing,
    /// What was predicted, and the hash of the image.
    Predictions,
    /// The image, too, encrypted.
    Images,
}

/// The server is there.
#[derive(ToSchema)]
pub(crate) struct Status {
    /// `live` or `ready`.
    status: String,
}

/// An image to try.
#[derive(ToSchema)]
pub(crate) struct Sample {
    /// Its address.
    url: String,
    /// What it is called.
    name: String,
    /// The true class, where known.
    label: Option<String>,
}
