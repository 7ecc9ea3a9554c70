//! Nothing of one request is visible to another.

use axum::http::StatusCode;
use tokio::task::JoinSet;

use crate::support::{image_json, local, png, post, send, with_model};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_mixed_requests_each_get_their_own_answer() {
    let mut service = with_model();
    service.limits.requests = 2048;
    service.limits.queue = 2048;
    let app = local(service);
    let mut running = JoinSet::new();
    for round in 0..4 {
        for red in 0..=255_u8 {
            let app = app.clone();
            running.spawn(async move {
                if (round + usize::from(red)).is_multiple_of(7) {
                    let bad = send(&app, post("/predict", "application/json", "{")).await;
                    assert_eq!(bad.code(), "invalid_json");
                }
                let own = send(&app, post("/api/v1/predictions", "image/png", png(red))).await;
                let probability = own.json()["probabilities"]["Tumor"].as_f64().unwrap() as f32;
                assert_eq!(probability.to_bits(), (f32::from(red) / 255.0).to_bits());
                let contract = send(&app, post("/predict", "application/json", image_json(&png(red)))).await;
                // 127/255 is below a half, 128/255 above.
                let label = if red < 128 { "Normal" } else { "Tumor" };
                assert_eq!(contract.text(), format!("[{{\"image\": \"{label}\"}}]"));
                assert_eq!(contract.status, StatusCode::OK);
            });
        }
    }
    while let Some(finished) = running.join_next().await {
        finished.unwrap();
    }
}
