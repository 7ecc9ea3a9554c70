//! Zip files of images, as batch jobs of the server.

use std::time::Duration;

use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};
use serde_json::Value;

use super::service::send;

const BATCHES: &str = "/api/v1/batches";

/// Sends `data` as a batch, waits for its end and reads the results.
pub fn run(data: &[u8]) {
    let request = Request::post(BATCHES).header(header::CONTENT_TYPE, "application/zip");
    let (status, answer) = send(request.body(Body::from(data.to_vec())).expect("a request"));
    if status != StatusCode::ACCEPTED {
        return;
    }
    let batch: Value = serde_json::from_slice(&answer).expect("a batch");
    let address = format!("{BATCHES}/{}", batch["id"].as_str().expect("an id"));
    let ended = loop {
        let batch: Value = serde_json::from_slice(&get(&address)).expect("a batch");
        match batch["state"].as_str() {
            Some("running") => std::thread::sleep(Duration::from_micros(200)),
            _ => break batch,
        }
    };
    // A row that failed is of one image; a batch that failed is of us.
    assert_eq!(ended["state"], "done", "{ended}");
    assert_eq!(ended["done"], batch["total"], "{ended}");
    let lines = get(&format!("{address}/results.jsonl"));
    let lines = String::from_utf8(lines).expect("JSON is UTF-8");
    assert_eq!(lines.lines().count() as u64, batch["total"].as_u64().expect("a number"));
    for line in lines.lines() {
        let row: Value = serde_json::from_str(line).expect("a row");
        assert!(row["path"].is_string(), "{row}");
    }
    get(&format!("{address}/results.csv"));
}

fn get(address: &str) -> Vec<u8> {
    let (status, answer) = send(Request::get(address).body(Body::empty()).expect("a request"));
    assert_eq!(status, StatusCode::OK, "{address}");
    answer.to_vec()
}
