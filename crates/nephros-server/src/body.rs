//! Request bodies: read within limits, and the images inside.

use std::{borrow::Cow, sync::Arc};

use axum::{
    body::{Body, Bytes, HttpBody},
    http::{HeaderMap, header},
};
use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http_body_util::BodyExt;
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    budget::{Budget, Share},
    error::ApiError,
    state::{AppState, Limits},
};

/// How the body carries images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Form {
    /// `{"image": "<base64>"}` or `{"images": ["<base64>", …]}`.
    Json,
    /// The image file itself.
    Raw,
    /// Files in a form, between these boundaries.
    Multipart(String),
}

/// The form that `Content-Type` announces.
pub(crate) fn form(headers: &HeaderMap) -> Option<Form> {
    let content_type = content_type(headers)?;
    let essence = essence(content_type);
    match essence.as_str() {
        "application/octet-stream" => Some(Form::Raw),
        "multipart/form-data" => multer::parse_boundary(content_type).ok().map(Form::Multipart),
        _ if is_json(&essence) => Some(Form::Json),
        other if other.starts_with("image/") => Some(Form::Raw),
        _ => None,
    }
}

fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn is_json(essence: &str) -> bool {
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// Whether the body is a zip file.
pub(crate) fn is_zip(headers: &HeaderMap) -> bool {
    content_type(headers).is_some_and(|text| essence(text) == "application/zip")
}

/// The answer to a content type that is not among `expected`.
pub(crate) fn unsupported(headers: &HeaderMap, expected: &'static str) -> ApiError {
    let got = content_type(headers).map_or_else(|| "none".to_owned(), |text| format!("`{text}`"));
    ApiError::UnsupportedContentType { expected, got }
}

fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::CONTENT_TYPE)?.to_str().ok()
}

/// A body that has arrived.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) bytes: Bytes,
    /// To be held as long as the bytes, or what was made of them, are in memory.
    pub(crate) share: Arc<Share>,
}

/// Reads a whole body.
///
/// What comes after a limit is read and thrown away, as much again at most: a client that is
/// still sending would otherwise see a reset connection instead of the answer.
///
/// # Errors
/// [`ApiError::UnsupportedEncoding`], [`ApiError::BodyTooLarge`], [`ApiError::TooManyBytes`] and
/// [`ApiError::RequestTimeout`].
pub(crate) async fn read(headers: &HeaderMap, body: Body, state: &AppState) -> Result<Arrived, ApiError> {
    read_within(headers, body, state.limits(), state.budget()).await
}

async fn read_within(
    headers: &HeaderMap,
    body: Body,
    limits: &Limits,
    budget: &Arc<Budget>,
) -> Result<Arrived, ApiError> {
    let encoding = headers.get(header::CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(ApiError::UnsupportedEncoding);
    }
    let limit = limits.body_bytes;
    // Of what is announced as so much more the end is not waited for.
    if HttpBody::size_hint(&body).lower() > most_read(limit) as u64 {
        return Err(ApiError::BodyTooLarge { limit });
    }
    match tokio::time::timeout(limits.body_time, read_untimed(body, limit, budget.share())).await {
        Ok(result) => result,
        Err(_) => Err(ApiError::RequestTimeout(limits.body_time)),
    }
}

/// Bytes that are read of a body that is too large.
fn most_read(limit: usize) -> usize {
    limit.saturating_mul(2)
}

async fn read_untimed(mut body: Body, limit: usize, mut share: Share) -> Result<Arrived, ApiError> {
    let mut bytes = Vec::new();
    let (mut received, mut has_room) = (0_usize, true);
    while let Some(frame) = body.frame().await {
        // The client has gone; nobody reads this answer.
        let frame = frame.map_err(|error| ApiError::Internal(error.into()))?;
        let Ok(data) = frame.into_data() else { continue };
        received += data.len();
        has_room = has_room && (received > limit || share.grow(data.len()));
        if received <= limit && has_room {
            bytes.extend_from_slice(&data);
        } else {
            bytes = Vec::new();
            share.give_back();
        }
        if received > most_read(limit) {
            break;
        }
    }
    match (received > limit, has_room) {
        (true, _) => Err(ApiError::BodyTooLarge { limit }),
        (false, false) => Err(ApiError::TooManyBytes),
        (false, true) => Ok(Arrived { bytes: bytes.into(), share: Arc::new(share) }),
    }
}

/// The images of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Images {
    /// One, to be answered by itself. An error stands for an image that cannot be read.
    One(Bytes),
    /// Any number, to be answered by a list.
    Many(Vec<Result<Bytes, base64::DecodeError>>),
}

/// The encoded images in a body of this form, which hold its share of the memory.
///
/// # Errors
/// Those of the form, and [`ApiError::TooManyImages`].
pub(crate) async fn images(
    form: Form,
    body: Arrived,
    limits: &Limits,
) -> Result<(Images, Arc<Share>), ApiError> {
    let Arrived { bytes, share } = body;
    let images = match form {
        Form::Raw => Images::One(bytes),
        Form::Json => parse(bytes, &share, limits.images, limits.json_depth).await?,
        Form::Multipart(boundary) => images_in_form(&boundary, bytes, limits.images).await?,
    };
    Ok((images, share))
}

/// Works through every byte, on a thread that goes on when the client leaves.
async fn parse(bytes: Bytes, share: &Arc<Share>, most: usize, depth: usize) -> Result<Images, ApiError> {
    let share = Arc::clone(share);
    let work = tokio::task::spawn_blocking(move || {
        let images = images_in_json(&bytes, most, depth);
        drop((bytes, share));
        images
    });
    work.await.map_err(|error| ApiError::Internal(error.into()))?
}

/// The image of `{"image": "<base64>"}`, the reference's only form. As [`images`].
pub(crate) async fn image_in_json(body: Arrived, limits: &Limits) -> Result<(Bytes, Arc<Share>), ApiError> {
    let Arrived { bytes, share } = body;
    match parse(bytes, &share, 0, limits.json_depth).await? {
        Images::One(image) => Ok((image, share)),
        Images::Many(_) => Err(NO_IMAGE),
    }
}

const NO_IMAGE: ApiError =
    ApiError::MissingField { expected: "a JSON object with the key `image` and a base64 text as its value" };

/// Keys beside these are left to clients' own use.
#[derive(Deserialize)]
struct ImageFields<'a> {
    #[serde(borrow, default)]
    image: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    images: Option<Vec<Text<'a>>>,
}

#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn images_in_json(body: &[u8], most: usize, depth: usize) -> Result<Images, ApiError> {
    check_depth(body, depth)?;
    let parsed: Result<ImageFields<'_>, _> = serde_json::from_slice(body);
    // Serde reads a struct from an array too; the contract says object.
    let is_object = body.trim_ascii_start().first() == Some(&b'{');
    match parsed {
        Ok(ImageFields { image: Some(image), images: None }) if is_object => {
            decode_base64(&image).map(|image| Images::One(image.into())).map_err(ApiError::InvalidBase64)
        }
        Ok(ImageFields { image: None, images: Some(images) }) if is_object && most > 0 => {
            check_count(images.len(), most)?;
            let decoded = images.iter().map(|image| decode_base64(&image.0).map(Bytes::from));
            Ok(Images::Many(decoded.collect()))
        }
        Ok(_) => Err(NO_IMAGE),
        Err(error) if error.is_data() => Err(NO_IMAGE),
        Err(error) => Err(ApiError::InvalidJson(error)),
    }
}

fn check_count(images: usize, limit: usize) -> Result<(), ApiError> {
    match images {
        0 => Err(ApiError::MissingField { expected: "at least one image" }),
        images if images > limit => Err(ApiError::TooManyImages { limit }),
        _ => Ok(()),
    }
}

/// Files of the form, in its order; fields without a file are left to clients' own use.
async fn images_in_form(boundary: &str, body: Bytes, most: usize) -> Result<Images, ApiError> {
    let whole = futures_util::stream::once(async { Ok::<_, std::convert::Infallible>(body) });
    let mut form = multer::Multipart::new(whole, boundary);
    let mut images = Vec::new();
    while let Some(field) = form.next_field().await.map_err(ApiError::InvalidMultipart)? {
        if field.file_name().is_none() {
            continue;
        }
        images.push(Ok(field.bytes().await.map_err(ApiError::InvalidMultipart)?));
        if images.len() > most {
            break;
        }
    }
    check_count(images.len(), most)?;
    Ok(Images::Many(images))
}

/// A JSON body as a value of its own.
///
/// # Errors
/// Those of [`read`], [`ApiError::UnsupportedContentType`], [`ApiError::InvalidJson`],
/// [`ApiError::JsonTooDeep`] and [`ApiError::InvalidField`].
pub(crate) async fn json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
    state: &AppState,
) -> Result<T, ApiError> {
    if !content_type(headers).is_some_and(|text| is_json(&essence(text))) {
        return Err(unsupported(headers, "`application/json`"));
    }
    // What is told in words needs no more than this.
    let limits = Limits { body_bytes: state.limits().body_bytes.min(1 << 20), ..*state.limits() };
    let Arrived { bytes: body, share: _share } = read_within(headers, body, &limits, state.budget()).await?;
    check_depth(&body, limits.json_depth)?;
    let is_object = body.trim_ascii_start().first() == Some(&b'{');
    match serde_json::from_slice(&body) {
        Ok(value) if is_object => Ok(value),
        Ok(_) => Err(ApiError::MissingField { expected: "a JSON object" }),
        Err(error) if error.is_data() => Err(ApiError::InvalidField(error)),
        Err(error) => Err(ApiError::InvalidJson(error)),
    }
}

/// Refuses what is nested too deep before a parser looks at it.
fn check_depth(body: &[u8], limit: usize) -> Result<(), ApiError> {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for &byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'[' | b'{' => {
                depth += 1;
                if depth > limit {
                    return Err(ApiError::JsonTooDeep { limit });
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// Padding and leftover bits may be as sloppy as Python's `base64.b64decode` takes them.
const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Standard or URL-safe alphabet, with or without padding, whitespace and a data-URL prefix.
fn decode_base64(text: &str) -> Result<Vec<u8>, base64::DecodeError> {
    let text = text.trim_start();
    let is_data_url = text.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("data:"));
    let payload = if is_data_url { text.split_once(',').map_or("", |(_, payload)| payload) } else { text };
    let symbols: Vec<u8> = payload
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            other => other,
        })
        .collect();
    ENGINE.decode(symbols)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_in_all_its_dresses() {
        // 0xfb 0xff 0xfe is `+//+` in the standard alphabet and `-__-` in the URL-safe one.
        for text in [
            "+//+",
            "-__-",
            " +/\n/+\r\n",
            "data:image/png;base64,+//+",
            "DATA:image/jpeg;base64, -__-",
            "+_/-",
        ] {
            assert_eq!(decode_base64(text).unwrap(), [0xfb, 0xff, 0xfe], "{text:?}");
        }
        for text in ["Zm8=", "Zm8"] {
            assert_eq!(decode_base64(text).unwrap(), b"fo", "{text:?}");
        }
        for text in ["Zm8*", "Z", "é", "=Zm8"] {
            assert!(decode_base64(text).is_err(), "{text:?}");
        }
        assert_eq!(decode_base64("data:image/png;base64").unwrap(), b"");
    }

    fn limits() -> Limits {
        Limits { body_bytes: 10, images: 3, json_depth: 8, ..Limits::default() }
    }

    #[test]
    fn only_an_object_with_a_text_has_an_image() {
        let image = |body: &str| match images_in_json(body.as_bytes(), 0, limits().json_depth)? {
            Images::One(image) => Ok(image),
            Images::Many(_) => Err(NO_IMAGE),
        };
        assert_eq!(image(r#" {"other": [1], "image": "Zm9v", "more": null}"#).unwrap(), "foo");
        assert_eq!(image(r#"{"image": "Zm\u0039v"}"#).unwrap(), "foo");
        for body in [
            "{}",
            "[]",
            r#"["Zm9v"]"#,
            "5",
            "null",
            r#"{"image": 5}"#,
            r#"{"image": null}"#,
            r#"{"images": ["Zm9v"]}"#,
        ] {
            assert!(matches!(image(body), Err(ApiError::MissingField { .. })), "{body}");
        }
        for body in ["", "{", r#"{"image": "Zm9v""#, "image=Zm9v", r#"{"image": "Zm9v"} x"#] {
            assert!(matches!(image(body), Err(ApiError::InvalidJson(_))), "{body}");
        }
    }

    #[test]
    fn many_images_are_a_list_and_a_bad_one_stands_for_itself() {
        let images = |body: &str| images_in_json(body.as_bytes(), 3, 8);
        let Images::Many(list) = images(r#"{"images": ["Zm9v", "*", "Zm8="]}"#).unwrap() else { panic!() };
        assert_eq!(list[0].as_deref(), Ok(&b"foo"[..]));
        assert!(list[1].is_err());
        assert_eq!(list[2].as_deref(), Ok(&b"fo"[..]));
        assert!(matches!(images(r#"{"images": []}"#), Err(ApiError::MissingField { .. })));
        assert!(matches!(images(r#"{"images": ["","","",""]}"#), Err(ApiError::TooManyImages { limit: 3 })));
        for both in [r#"{"image": "", "images": [""]}"#, r#"{"images": "Zm9v"}"#, r#"{"images": [5]}"#] {
            assert!(matches!(images(both), Err(ApiError::MissingField { .. })), "{both}");
        }
    }

    #[test]
    fn depth_is_counted_outside_of_texts() {
        for (body, deep) in [
            (r#"[[["[[[["]]]"#, false),
            ("[[[[]]]]", true),
            ("[[[]], [[]]]", false),
            (r#"["\"[[[[", {"a": {}}]"#, false),
            (r#"["\\", [[{}]]]"#, true),
            ("]]]]]][[[", false),
        ] {
            assert_eq!(check_depth(body.as_bytes(), 3).is_err(), deep, "{body}");
        }
        let deep = format!("{{\"image\": {}", "[".repeat(100_000));
        assert!(matches!(images_in_json(deep.as_bytes(), 0, 8), Err(ApiError::JsonTooDeep { limit: 8 })));
    }

    #[tokio::test]
    async fn a_body_of_exactly_the_limit_is_taken_and_a_compressed_one_is_not() {
        let budget = Arc::new(Budget::new(&limits()));
        let read = async |bytes: Vec<u8>, headers| {
            let arrived = read_within(&headers, Body::from(bytes), &limits(), &budget).await;
            arrived.map(|arrived| arrived.bytes)
        };
        assert_eq!(read(vec![1; 10], HeaderMap::new()).await.unwrap(), vec![1; 10]);
        let refused = read(vec![1; 11], HeaderMap::new()).await.unwrap_err();
        assert!(matches!(refused, ApiError::BodyTooLarge { limit: 10 }));
        let encoded = |name: &'static str| {
            HeaderMap::from_iter([(header::CONTENT_ENCODING, header::HeaderValue::from_static(name))])
        };
        assert!(matches!(read(vec![1], encoded("gzip")).await, Err(ApiError::UnsupportedEncoding)));
        assert!(read(vec![1], encoded("Identity")).await.is_ok());
    }

    #[tokio::test]
    async fn files_of_a_form_are_images_and_its_fields_are_not() {
        let part = |head: &str, body: &str| {
            format!("--B\r\nContent-Disposition: form-data; {head}\r\n\r\n{body}\r\n")
        };
        let form =
            async |parts: &[String]| images_in_form("B", (parts.concat() + "--B--\r\n").into(), 2).await;
        let note = part("name=\"note\"", "hello");
        let file = part("name=\"scan\"; filename=\"a.png\"", "foo");
        let named = part("name=\"image\"; filename=\"\"", "bar");
        let images = form(&[note.clone(), file.clone(), named.clone()]).await.unwrap();
        assert_eq!(images, Images::Many(vec![Ok("foo".into()), Ok("bar".into())]));
        assert!(matches!(form(&[note]).await, Err(ApiError::MissingField { .. })));
        assert!(matches!(
            form(&[file.clone(), named, file]).await,
            Err(ApiError::TooManyImages { limit: 2 })
        ));
        for torn in
            ["", "--B\r\n", "hello", "--B\r\nContent-Disposition: form-data; name=\"image\"\r\n\r\nfoo"]
        {
            let torn = images_in_form("B", torn.into(), 2).await;
            assert!(matches!(torn, Err(ApiError::InvalidMultipart(_))), "{torn:?}");
        }
    }
}
