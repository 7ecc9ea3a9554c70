//! Several images in one request, and what is recorded of them.

use axum::http::StatusCode;
use base64::{Engine, prelude::BASE64_STANDARD};
use nephros_core::digest::sha256;
use serde_json::{Value, json};

use crate::support::{Answer, equipped, get, local, png, post, send, with_model};

fn form(files: &[Vec<u8>]) -> Vec<u8> {
    let mut body = Vec::new();
    for file in files {
        body.extend(
            b"--B\r\nContent-Disposition: form-data; name=\"images\"; filename=\"Mustermann.png\"\r\n\r\n",
        );
        body.extend(file);
        body.extend(b"\r\n");
    }
    body.extend(b"--B--\r\n");
    body
}

fn tumor(prediction: &Value) -> f64 {
    (prediction["probabilities"]["Tumor"].as_f64().unwrap() * 255.0).round()
}

fn check(answer: &Answer) {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let json = answer.json();
    let predictions = json["predictions"].as_array().unwrap();
    assert_eq!(predictions.len(), 3);
    assert_eq!((tumor(&predictions[0]), tumor(&predictions[2])), (10.0, 250.0));
    assert_eq!(predictions[1]["error"]["code"], "not_an_image");
    assert!(!answer.text().contains("Mustermann"));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_image_has_its_answer_or_its_error_in_its_place() {
    let app = local(with_model());
    let files = [png(10), b"no image".to_vec(), png(250)];
    let base64: Vec<String> = files.iter().map(|file| BASE64_STANDARD.encode(file)).collect();
    let body = json!({"images": base64}).to_string();
    check(&send(&app, post("/api/v1/predictions", "application/json", body)).await);
    check(&send(&app, post("/api/v1/predictions", "multipart/form-data; boundary=B", form(&files))).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn predictions_are_recorded_listed_and_judged() {
    let app = local(equipped());
    let one = send(&app, post("/api/v1/predictions", "image/png", png(250))).await.json();
    assert_eq!(one["receipt"], "r0");
    send(&app, post("/api/v1/predictions", "multipart/form-data; boundary=B", form(&[png(1), png(2)]))).await;
    let history = send(&app, get("/api/v1/history?limit=2")).await.json();
    assert_eq!((&history[0]["receipt"], &history[1]["receipt"]), (&json!("r2"), &json!("r1")));
    let rest = send(&app, get("/api/v1/history?before=r1")).await.json();
    let digest = sha256(&png(250));
    assert_eq!((&rest[0]["label"], &rest[0]["image_sha256"]), (&json!("Tumor"), &json!(digest)));
    let judge = async |body: Value| {
        send(&app, post("/api/v1/history/r0/feedback", "application/json", body.to_string())).await
    };
    let corrected = json!({"verdict": "corrects", "label": "Normal", "reader": "Müller, 2nd reader"});
    assert_eq!(judge(corrected.clone()).await.status, StatusCode::NO_CONTENT);
    for bad in [
        json!({"verdict": "corrects"}),
        json!({"verdict": "perhaps"}),
        json!({"verdict": "agrees", "extra": 1}),
        json!({"verdict": "agrees", "comment": "x".repeat(2001)}),
        json!({"verdict": "agrees", "reader": "x".repeat(201)}),
        json!({"verdict": "agrees", "reader": " "}),
        json!({"verdict": "agrees", "reader": "a\nb"}),
        json!({"verdict": "agrees", "reader": "a\u{0}"}),
        json!({"verdict": "agrees", "reader": 5}),
    ] {
        assert_eq!(judge(bad.clone()).await.code(), "invalid_field", "{bad}");
    }
    let judged = send(&app, get("/api/v1/history?before=r1")).await.json();
    assert_eq!(judged[0]["feedback"], json!([corrected]));
}
