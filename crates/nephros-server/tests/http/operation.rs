//! For whoever runs the server: health, metrics, request ids.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::http::{HeaderValue, StatusCode, header};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use nephros_server::{
    Access, AppState, Feedback, HistoryEntry, HistoryPage, Ledger, LedgerError, LedgerFuture,
    PredictionRecord, Service, app,
};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::support::{FullDisk, get, local, png, post, predict, send, with_model};

#[tokio::test]
async fn a_server_is_live_at_once_and_ready_when_its_model_is_warm() {
    let state = AppState::new(with_model(), Access::loopback());
    let app = app(state.clone());
    assert_eq!(send(&app, get("/health/live")).await.json(), json!({"status": "live"}));
    assert_eq!(send(&app, get("/health/ready")).await.code(), "not_ready");
    state.warm_up().unwrap();
    assert_eq!(send(&app, get("/health/ready")).await.json(), json!({"status": "ready"}));
}

#[tokio::test]
async fn without_a_model_nobody_should_be_sent_here() {
    let state = AppState::new(Service::default(), Access::loopback());
    state.warm_up().unwrap();
    assert_eq!(send(&app(state), get("/health/ready")).await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn nobody_should_be_sent_where_nothing_can_be_recorded() {
    let state =
        AppState::new(Service { ledger: Some(Arc::new(FullDisk)), ..with_model() }, Access::loopback());
    state.warm_up().unwrap();
    let app = app(state);
    let gauge = async || send(&app, get("/metrics")).await.text().contains("\nnephros_ready 1\n");
    assert!(gauge().await);
    let answer = send(&app, get("/health/ready")).await;
    assert_eq!((answer.status, &*answer.code()), (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"));
    assert_eq!(answer.header(header::RETRY_AFTER), Some("5"));
    assert!(!gauge().await && !answer.text().contains("no space left"));
    // It answers all the same, and a restart would not help.
    assert_eq!(send(&app, get("/health/live")).await.status, StatusCode::OK);
}

/// A ledger whose database is gone for the first record, and then answers nobody until it is let.
struct Gone {
    records: AtomicUsize,
    back: Semaphore,
}

impl Ledger for Gone {
    fn keeps_images(&self) -> bool {
        false
    }

    fn check(&self) -> LedgerFuture<'_, ()> {
        Box::pin(async {
            drop(self.back.acquire().await.unwrap());
            Ok(())
        })
    }

    fn record<'a>(&'a self, _: &'a PredictionRecord) -> LedgerFuture<'a, String> {
        Box::pin(async {
            match self.records.fetch_add(1, Ordering::Relaxed) {
                0 => Err(LedgerError::Unavailable("connection refused".into())),
                number => Ok(format!("r{number}")),
            }
        })
    }

    fn history<'a>(&'a self, _: &'a HistoryPage) -> LedgerFuture<'a, Vec<HistoryEntry>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn feedback<'a>(&'a self, _: &'a str, _: &'a Feedback) -> LedgerFuture<'a, ()> {
        Box::pin(async { Ok(()) })
    }
}

#[tokio::test]
async fn a_dead_database_is_waited_for_by_nobody_who_could_know() {
    let gone = Arc::new(Gone { records: AtomicUsize::new(0), back: Semaphore::new(0) });
    let state = AppState::new(Service { ledger: Some(gone.clone()), ..with_model() }, Access::loopback());
    state.warm_up().unwrap();
    let app = app(state);
    // The first finds out; the others would wait for ever, were they to ask.
    let two = [png(1), png(2)].map(|image| BASE64_STANDARD.encode(image));
    let many = json!({ "images": two });
    for request in [
        predict(10),
        predict(11),
        post("/api/v1/predictions", "application/json", many.to_string()),
        post("/api/v1/history/r0/feedback", "application/json", r#"{"verdict": "agrees"}"#),
        get("/health/ready"),
    ] {
        let answer = send(&app, request).await;
        assert_eq!((answer.status, &*answer.code()), (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"));
    }
    assert_eq!(gone.records.load(Ordering::Relaxed), 1);
    assert!(send(&app, get("/metrics")).await.text().contains("\nnephros_ready 0\n"));
    // What only reads is not refused for it.
    assert_eq!(send(&app, get("/api/v1/history")).await.status, StatusCode::OK);

    gone.back.add_permits(1);
    while send(&app, get("/health/ready")).await.status != StatusCode::OK {
        tokio::task::yield_now().await;
    }
    assert_eq!(send(&app, predict(12)).await.status, StatusCode::OK);
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let app = local(with_model());
    for red in [10, 250, 251] {
        assert_eq!(send(&app, predict(red)).await.status, StatusCode::OK);
    }
    send(&app, post("/api/v1/predictions", "image/png", "no image")).await;
    send(&app, get("/Mustermann")).await;
    let metrics = send(&app, get("/metrics")).await;
    let kind = metrics.header(header::CONTENT_TYPE).unwrap();
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    let text = metrics.text();
    for line in [
        r#"nephros_requests_total{route="/predict",method="POST",status="200"} 3"#,
        r#"nephros_requests_total{route="/api/v1/predictions",method="POST",status="422"} 1"#,
        r#"nephros_requests_total{route="unmatched",method="GET",status="404"} 1"#,
        r#"nephros_errors_total{code="not_an_image"} 1"#,
        r#"nephros_predictions_total{model="red-1",label="Normal",refused="false"} 1"#,
        r#"nephros_predictions_total{model="red-1",label="Tumor",refused="false"} 2"#,
        r#"nephros_model{model="red-1"} 1"#,
        "nephros_batch_images_count 3",
        "nephros_queue_images 0",
        "nephros_ready 0",
    ] {
        assert!(text.lines().any(|own| own == line), "{line} in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
    assert!(!text.contains("Mustermann"));
}

#[tokio::test]
async fn metrics_ask_for_the_token() {
    let app = app(AppState::new(with_model(), Access::token("right")));
    assert_eq!(send(&app, get("/metrics")).await.code(), "unauthorized");
}

#[tokio::test]
async fn a_well_formed_id_is_kept_and_nothing_that_could_be_a_name() {
    let app = local(with_model());
    let id = async |sent: &str| {
        let mut request = get("/health");
        request.headers_mut().insert("x-request-id", HeaderValue::from_str(sent).unwrap());
        send(&app, request).await.header("x-request-id").unwrap().to_owned()
    };
    for good in ["0af7651916cd43dd8448eb211c80319c", "123e4567-e89b-12d3-a456-426614174000", "ABCDEF01"] {
        assert_eq!(id(good).await, good);
    }
    for bad in ["", "abc", "Mustermann_Erika", "0af76519 16cd", &"a".repeat(65), "g0000000"] {
        assert_ne!(id(bad).await, bad);
    }
}

#[tokio::test]
async fn a_heat_map_is_there_for_who_asked_and_as_long_as_its_model() {
    let state = AppState::new(with_model(), Access::loopback());
    let app = app(state.clone());
    let asked = send(&app, post("/api/v1/predictions?heatmap=true", "image/png", png(9))).await.json();
    let link = asked["heatmap"].as_str().unwrap();
    let map = send(&app, get(link)).await;
    assert_eq!((map.status, map.header(header::CONTENT_TYPE)), (StatusCode::OK, Some("image/png")));
    assert_eq!(map.body.as_ref(), png(9));
    let unasked = send(&app, post("/api/v1/predictions", "image/png", png(9))).await.json();
    assert_eq!(unasked.get("heatmap"), None);
    // The model before the current one is kept for a roll back; the one before that is gone.
    for id in ["red-2", "red-3"] {
        let state = state.clone();
        let model = crate::support::RedModel::shared(id);
        tokio::task::spawn_blocking(move || state.replace_model(model, None)).await.unwrap().unwrap();
    }
    assert_eq!(send(&app, get(link)).await.code(), "no_such_heatmap");
}
