//! The contract of the reference, and what stands beside it.

use std::sync::Arc;

use axum::http::{StatusCode, header};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use nephros_server::Service;
use serde_json::json;

use crate::support::{get, held_trainer, image_json, local, png, post, predict, send, with_model};

#[tokio::test]
async fn predict_answers_byte_for_byte_as_the_reference() {
    let app = local(with_model());
    for (red, expected) in [(10, br#"[{"image": "Normal"}]"#.as_slice()), (250, br#"[{"image": "Tumor"}]"#)] {
        let answer = send(&app, predict(red)).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.body.as_ref(), expected);
        assert_eq!(answer.header(header::CONTENT_TYPE), Some("application/json"));
    }
}

#[tokio::test]
async fn a_data_url_and_a_charset_are_taken() {
    let app = local(with_model());
    let body = image_json(&png(250)).replace("{\"image\":\"", "{\"image\":\"data:image/png;base64,");
    assert!(body.contains("data:"));
    let answer = send(&app, post("/predict", "application/json; charset=utf-8", body)).await;
    assert_eq!(answer.text(), r#"[{"image": "Tumor"}]"#);
}

#[tokio::test]
async fn predictions_takes_a_file_or_json() {
    let app = local(with_model());
    let raw = png(204);
    for request in [
        post("/api/v1/predictions", "image/png", raw.clone()),
        post("/api/v1/predictions", "application/octet-stream", raw.clone()),
        post("/api/v1/predictions", "application/json", image_json(&raw)),
    ] {
        let answer = send(&app, request).await;
        assert_eq!(answer.status, StatusCode::OK);
        let mut json = answer.json();
        let milliseconds = json.as_object_mut().unwrap().remove("milliseconds").unwrap();
        assert!(milliseconds.as_f64().unwrap() >= 0.0);
        let timings = json.as_object_mut().unwrap().remove("timings").unwrap();
        assert_eq!(timings["batch"], 1);
        let parts = ["prepare_ms", "queue_ms", "compute_ms"].map(|part| timings[part].as_f64().unwrap());
        assert!(parts.iter().sum::<f64>() <= milliseconds.as_f64().unwrap() + 0.01, "{timings}");
        // 204/255 = 0.8; 1 - 0.8 in f32 is 0.19999999, and both are written as the shortest text of an f32.
        let probabilities = json!({"Normal": 0.199_999_99, "Tumor": 0.8});
        assert_eq!(
            json,
            json!({"label": "Tumor", "probability": 0.8, "probabilities": probabilities, "model": "red-1"})
        );
    }
}

#[tokio::test]
async fn what_is_for_a_radiologist_says_so_beside_the_contract_of_the_reference() {
    let app = local(with_model());
    let answer = send(&app, post("/api/v1/predictions", "image/png", png(128))).await.json();
    assert_eq!(answer["refer"], "Normal and Tumor are possible");
    assert_eq!(send(&app, predict(128)).await.text(), r#"[{"image": "Tumor"}]"#);
}

#[tokio::test]
async fn similar_slices_are_named_where_they_are_asked_for() {
    let app = local(with_model());
    let asked = async |query: &str| {
        send(&app, post(&format!("/api/v1/predictions{query}"), "image/png", png(204))).await.json()
    };
    let slice = |number: u32, distance: f64| json!({"path": format!("Tumor/{number}.png"), "class": "Tumor", "patient": number, "distance": distance});
    assert_eq!(asked("?similar=2").await["similar"], json!([slice(1, 0.25), slice(2, 0.5)]));
    for query in ["", "?similar=0", "?other=2"] {
        assert_eq!(asked(query).await.get("similar"), None, "{query}");
    }
    for query in ["?similar=", "?similar=-1", "?similar=21", "?similar=two"] {
        assert_eq!(asked(query).await["error"]["code"], "invalid_query", "{query}");
    }
    let contract = post("/predict?similar=2", "application/json", image_json(&png(250)));
    assert_eq!(send(&app, contract).await.text(), r#"[{"image": "Tumor"}]"#);
}

#[tokio::test]
async fn several_images_are_one_patient_where_that_is_asked() {
    let app = local(with_model());
    let asked = async |query: &str, images: &[Vec<u8>]| {
        let images: Vec<String> = images.iter().map(|image| BASE64_STANDARD.encode(image)).collect();
        let body = json!({"images": images}).to_string();
        send(&app, post(&format!("/api/v1/predictions{query}"), "application/json", body)).await.json()
    };
    let slices = [png(51), png(204), b"no picture".to_vec(), png(255)];
    let answer = asked("?patient=true", &slices).await;
    assert_eq!(answer["predictions"].as_array().unwrap().len(), 4);
    // (0.2 + 0.8 + 1) / 3
    let patient = &answer["patient"];
    let tumor = patient["probabilities"]["Tumor"].as_f64().unwrap();
    assert!((tumor - 2.0 / 3.0).abs() < 1e-6, "{patient}");
    assert_eq!(patient["probability"], patient["probabilities"]["Tumor"]);
    let told = ["label", "model", "images", "left_out"].map(|key| patient[key].clone());
    assert_eq!(told, [json!("Tumor"), json!("red-1"), json!(3), json!(1)]);
    assert_eq!(patient.get("refer"), None);
    // The mean is torn, though neither slice is.
    let torn = asked("?patient=true", &[png(0), png(255)]).await;
    assert_eq!(torn["patient"]["refer"], "Normal and Tumor are possible");
    assert_eq!(asked("", &slices).await.get("patient"), None);
    let none = asked("?patient=true", &[b"no picture".to_vec(), b"nor this".to_vec()]).await;
    assert_eq!(none.get("patient"), Some(&serde_json::Value::Null));
    assert_eq!(asked("?patient=yes", &slices).await["error"]["code"], "invalid_query");
}

#[tokio::test]
async fn a_model_that_is_not_as_the_one_before_says_so_until_the_next() {
    let (trainer, outcome) = held_trainer();
    let app = local(Service { trainer: Some(trainer), ..with_model() });
    for (id, expected) in [("red-f32", Some("8 bits were asked for")), ("red-3", None)] {
        outcome.send(Ok(id)).unwrap();
        send(&app, post("/train", "text/plain", "")).await;
        let health = send(&app, get("/health")).await.json();
        assert_eq!((health["model"].as_str(), health["notice"].as_str()), (Some(id), expected));
    }
}

#[tokio::test]
async fn health_tells_whether_there_is_a_model() {
    let version = env!("CARGO_PKG_VERSION");
    let empty = send(&local(Service::default()), get("/health")).await;
    assert_eq!(empty.status, StatusCode::OK);
    assert_eq!(
        empty.json(),
        json!({"status": "no model", "model": null, "records": "nothing", "version": version})
    );
    let ready = send(&local(with_model()), get("/health")).await;
    assert_eq!(
        ready.json(),
        json!({"status": "ok", "model": "red-1", "records": "nothing", "version": version})
    );
}

#[tokio::test]
async fn train_answers_as_the_reference_and_swaps_the_model() {
    let (trainer, outcome) = held_trainer();
    let app = local(Service { trainer: Some(trainer), ..Service::default() });
    outcome.send(Ok("red-2")).unwrap();
    let answer = send(&app, post("/train", "application/json", "")).await;
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, "Training done successfully!"));
    assert_eq!(send(&app, get("/health")).await.json()["model"], "red-2");
    assert_eq!(send(&app, predict(250)).await.text(), r#"[{"image": "Tumor"}]"#);
}

#[tokio::test]
async fn a_refused_model_leaves_the_current_one_and_says_why() {
    let (trainer, outcome) = held_trainer();
    let app = local(Service { trainer: Some(trainer), ..with_model() });
    outcome.send(Ok("worse-2")).unwrap();
    let answer = send(&app, post("/train", "application/json", "")).await;
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, "Training done successfully!"));
    let health = send(&app, get("/health")).await.json();
    assert_eq!((&health["model"], &health["status"]), (&json!("red-1"), &json!("ok")));
    assert_eq!(health["refused"], "all 8 images were called `Normal`");
    outcome.send(Ok("red-3")).unwrap();
    send(&app, post("/train", "application/json", "")).await;
    let health = send(&app, get("/health")).await.json();
    assert_eq!((&health["model"], health.get("refused")), (&json!("red-3"), None));
}

#[tokio::test]
async fn a_failed_training_leaves_the_model_and_can_be_repeated() {
    let (trainer, outcome) = held_trainer();
    let app = local(Service { trainer: Some(trainer), ..with_model() });
    outcome.send(Err("no images")).unwrap();
    let failed = send(&app, post("/train", "text/plain", "")).await;
    assert_eq!(failed.code(), "training_failed");
    assert!(!failed.text().contains("disk quota"), "the chain is for the log");
    assert_eq!(send(&app, get("/health")).await.json()["model"], "red-1");
    outcome.send(Ok("red-2")).unwrap();
    assert_eq!(send(&app, post("/train", "text/plain", "")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_trainer_that_panics_does_not_block_the_next_training() {
    let app = local(Service { trainer: Some(Arc::new(|_: &_| panic!("trainer bug"))), ..with_model() });
    for _ in 0..2 {
        assert_eq!(send(&app, post("/train", "text/plain", "")).await.code(), "internal");
    }
}

#[tokio::test]
async fn a_client_that_leaves_does_not_stop_the_training() {
    let (trainer, outcome) = held_trainer();
    let app = local(Service { trainer: Some(trainer), ..with_model() });
    let mut leaving = Box::pin(send(&app, post("/train", "text/plain", "")));
    let waited = tokio::time::timeout(std::time::Duration::from_millis(50), &mut leaving).await;
    assert!(waited.is_err(), "the trainer waits for its outcome");
    drop(leaving);
    assert_eq!(send(&app, post("/train", "text/plain", "")).await.code(), "training_running");
    outcome.send(Ok("red-2")).unwrap();
    while send(&app, get("/health")).await.json()["model"] != "red-2" {
        tokio::task::yield_now().await;
    }
}
