//! Requests with a body, through the server's routes.
//!
//! An input is a line and a body. The line's first byte chooses the address and form, and what follows is the
//! query, a part of the content type, or a part of the address.

use axum::{
    body::Body,
    http::{Request, header},
};
use serde_json::Value;

use super::service;

/// Sends the request that `data` describes, and reads the answer.
pub fn run(data: &[u8]) {
    let Some((&kind, rest)) = data.split_first() else { return };
    let end = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
    let (text, body) = (&rest[..end], rest.get(end + 1..).unwrap_or_default());
    let text = String::from_utf8_lossy(text);
    let predictions = "/api/v1/predictions";
    let json = "application/json";
    let (address, content_type) = match kind {
        b'p' => ("/predict".to_owned(), json.to_owned()),
        b'j' => (format!("{predictions}?{text}"), json.to_owned()),
        b'r' => (format!("{predictions}?{text}"), "image/png".to_owned()),
        b'm' => (predictions.to_owned(), format!("multipart/form-data{text}")),
        b'c' => (predictions.to_owned(), text.clone().into_owned()),
        b'f' => (format!("/api/v1/history/{text}/feedback"), json.to_owned()),
        b'b' => ("/api/v1/batches".to_owned(), json.to_owned()),
        b'l' => ("/api/v1/models/load".to_owned(), json.to_owned()),
        _ => return,
    };
    let request = Request::post(address)
        .header(header::CONTENT_TYPE, content_type.as_bytes())
        .header("x-nephros-subject", text.as_bytes());
    // What is no address or no header does not get through HTTP either.
    let Ok(request) = request.body(Body::from(body.to_vec())) else { return };
    let (status, answer) = service::send(request);
    let is_json = status.as_u16() == 204 || serde_json::from_slice::<Value>(&answer).is_ok();
    assert!(is_json, "{status} came with {:?}", String::from_utf8_lossy(&answer));
}
