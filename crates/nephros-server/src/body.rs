//! Request bodies: read within limits, and the image inside.

use std::borrow::Cow;

use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http_body_util::BodyExt;
use serde::Deserialize;

use crate::{
    error::ApiError,
    state::Limits,
};

/// How the body carries the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// `{"image": "<base64>"}`.
    Json,
    /// The image file itself.
    Raw,
}

/// The form that `Content-Type` announces.
pub(crate) fn form(headers: &HeaderMap) -> Option<Form> {
    let essence = content_type(headers)?.split(';').next()?.trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/json" => Some(Form::Json),
        "application/octet-stream" => Some(Form::Raw),
        other if other.starts_with("application/") && other.ends_with("+json") => Some(Form::Json),
        other if other.starts_with("image/") => Some(Form::Raw),
        _ => None,
    }
}

/// The answer to a content type that is not among `expected`.
pub(crate) fn unsupported(headers: &HeaderMap, expected: &'static str) -> ApiError {
    let got = content_type(headers).map_or_else(|| "none".to_owned(), |text| format!("`{text}`"));
    ApiError::UnsupportedContentType { expected, got }
}

fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::CONTENT_TYPE)?.to_str().ok()
}

/// Reads a whole body.
///
/// What comes after the limit is read and thrown away, as much again at most: a client that is
/// still sending would otherwise see a reset connection instead of the answer.
///
/// # Errors
/// [`ApiError::BodyTooLarge`], [`ApiError::RequestTimeout`], and [`ApiError::InvalidJson`] never.
pub(crate) async fn read(body: Body, limits: &Limits) -> Result<Vec<u8>, ApiError> {
    match tokio::time::timeout(limits.body_time, read_untimed(body, limits.body_bytes)).await {
        Ok(result) => result,
        Err(_) => Err(ApiError::RequestTimeout(limits.body_time)),
    }
}

async fn read_untimed(mut body: Body, limit: usize) -> Result<Vec<u8>, ApiError> {
    let mut bytes = Vec::new();
    let mut received = 0_usize;
    while let Some(frame) = body.frame().await {
        // The client has gone; nobody reads this answer.
        let frame = frame.map_err(|error| ApiError::Internal(error.into()))?;
        let Ok(data) = frame.into_data() else { continue };
        received += data.len();
        if received <= limit {
            bytes.extend_from_slice(&data);
        } else {
            bytes = Vec::new();
        }
        if received > limit.saturating_mul(2) {
            break;
        }
    }
    if received > limit { Err(ApiError::BodyTooLarge { limit }) } else { Ok(bytes) }
}

/// The encoded image in a body of this form. Works through every byte: not for an async thread.
///
/// # Errors
/// [`ApiError::InvalidJson`], [`ApiError::MissingField`] and [`ApiError::InvalidBase64`].
pub(crate) fn image_bytes(form: Form, body: Vec<u8>) -> Result<Vec<u8>, ApiError> {
    match form {
        Form::Raw => Ok(body),
        Form::Json => image_in_json(&body),
    }
}

/// Keys beside `image` are left to clients' own use.
#[derive(Deserialize)]
struct ImageField<'a> {
    #[serde(borrow)]
    image: Cow<'a, str>,
}

fn image_in_json(body: &[u8]) -> Result<Vec<u8>, ApiError> {
    let parsed: Result<ImageField<'_>, _> = serde_json::from_slice(body);
    // Serde reads a struct from an array too; the contract says object.
    let is_object = body.trim_ascii_start().first() == Some(&b'{');
    match parsed {
        Ok(field) if is_object => decode_base64(&field.image).map_err(ApiError::InvalidBase64),
        Ok(_) => Err(ApiError::MissingField),
        Err(error) if error.is_data() => Err(ApiError::MissingField),
        Err(error) => Err(ApiError::InvalidJson(error)),
    }
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
        for text in
            ["+//+", "-__-", " +/\n/+\r\n", "data:image/png;base64,+//+", "DATA:image/jpeg;base64, -__-", "+_/-"]
        {
            assert_eq!(decode_base64(text).unwrap(), [0xfb, 0xff, 0xfe], "{text:?}");
        }
        for text in ["Zm8=", "Zm8"] {
            assert_eq!(decode_base64(text).unwrap(), b"fo", "{text:?}");
        }
        for text in ["Zm8*", "Z", "é", "data", "=Zm8"] {
            assert!(decode_base64(text).is_err(), "{text:?}");
        }
        assert_eq!(decode_base64("data:image/png;base64").unwrap(), b"");
    }

    #[test]
    fn only_an_object_with_a_text_has_an_image() {
        let image = |body: &str| image_in_json(body.as_bytes());
        assert_eq!(image(r#" {"other": [1], "image": "Zm9v", "more": null}"#).unwrap(), b"foo");
        assert_eq!(image(r#"{"image": "Zm\u0039v"}"#).unwrap(), b"foo");
        for body in ["{}", "[]", r#"["Zm9v"]"#, "5", "null", r#"{"image": 5}"#, r#"{"image": null}"#] {
            assert!(matches!(image(body), Err(ApiError::MissingField)), "{body}");
        }
        for body in ["", "{", r#"{"image": "Zm9v""#, "image=Zm9v", r#"{"image": "Zm9v"} x"#] {
            assert!(matches!(image(body), Err(ApiError::InvalidJson(_))), "{body}");
        }
        let deep = format!("{{\"image\": {}", "[".repeat(100_000));
        assert!(image(&deep).is_err());
    }

    #[tokio::test]
    async fn a_body_of_exactly_the_limit_is_taken() {
        let limits = Limits { body_bytes: 10, ..Limits::default() };
        assert_eq!(read(Body::from(vec![1; 10]), &limits).await.unwrap(), [1; 10]);
        let refused = read(Body::from(vec![1; 11]), &limits).await.unwrap_err();
        assert!(matches!(refused, ApiError::BodyTooLarge { limit: 10 }));
    }
}
