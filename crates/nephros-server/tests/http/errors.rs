//! Each code, once, as a client gets it.

use std::{collections::BTreeSet, fmt::Write as _, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode, header},
};
use nephros_core::pixels::RgbImage;
use nephros_server::{Access, AppState, BoxError, Classifier, Code, Limits, Service, app};

use crate::support::{
    Answer, RedModel, Stalled, get, held_trainer, image_json, local, png, post, predict, send, with_model,
};

/// Breaks its promises.
struct BrokenModel(Vec<f32>);

impl Classifier for BrokenModel {
    fn id(&self) -> &'static str {
        "broken"
    }

    fn labels(&self) -> &[String] {
        &[]
    }

    fn classify(&self, _: &RgbImage) -> Result<Vec<f32>, BoxError> {
        if self.0.is_empty() { Err("secret path /srv/model".into()) } else { Ok(self.0.clone()) }
    }
}

fn limited(change: impl FnOnce(&mut Limits)) -> Router {
    let mut service = with_model();
    change(&mut service.limits);
    local(service)
}

fn with_header(mut request: Request<Body>, name: header::HeaderName, value: &'static str) -> Request<Body> {
    request.headers_mut().insert(name, header::HeaderValue::from_static(value));
    request
}

fn json(body: impl Into<Body>) -> Request<Body> {
    post("/predict", "application/json", body)
}

/// One answer for each code that a single request can bring about.
async fn simple_errors() -> Vec<(Code, Answer)> {
    let plain = local(with_model());
    let guarded = app(AppState::new(with_model(), Access::token("right")));
    let (failing, outcome) = held_trainer();
    outcome.send(Err("no images in the class `Tumor`")).unwrap();
    let failing = local(Service { trainer: Some(failing), ..with_model() });
    let broken = local(Service { model: Some(Arc::new(BrokenModel(vec![]))), ..Service::default() });
    let mut truncated = png(1);
    truncated.truncate(40);
    let cases = [
        (Code::InvalidJson, &plain, json(r#"{"image": "#)),
        (Code::InvalidBase64, &plain, json(r#"{"image": "!!!!"}"#)),
        (Code::InvalidQuery, &plain, post("/api/v1/predictions?similar=many", "image/png", png(1))),
        (Code::MissingField, &plain, json(r#"{"picture": "AAAA"}"#)),
        (Code::NotAnImage, &plain, json(image_json(b"hello, world"))),
        (Code::CorruptImage, &plain, json(image_json(&truncated))),
        (Code::UnsupportedContentType, &plain, post("/predict", "text/plain", "x")),
        (Code::NotFound, &plain, get("/nowhere")),
        (Code::MethodNotAllowed, &plain, get("/predict")),
        (Code::Unauthorized, &guarded, predict(1)),
        (Code::ForeignHost, &plain, with_header(predict(1), header::HOST, "evil.example")),
        (
            Code::ForeignOrigin,
            &plain,
            with_header(post("/train", "text/plain", ""), header::ORIGIN, "https://evil.example"),
        ),
        (Code::TrainingUnavailable, &plain, post("/train", "text/plain", "")),
        (Code::TrainingFailed, &failing, post("/train", "text/plain", "")),
        (Code::NoModel, &local(Service::default()), predict(1)),
        (Code::Internal, &broken, predict(1)),
        (Code::BodyTooLarge, &limited(|limits| limits.body_bytes = 20), predict(1)),
        (Code::ImageTooLarge, &limited(|limits| limits.pixels = 5), predict(1)),
        (Code::RequestTimeout, &limited(|limits| limits.body_time = Duration::from_millis(20)), {
            json(Body::new(Stalled))
        }),
    ];
    let mut answers = Vec::new();
    for (code, app, request) in cases {
        answers.push((code, send(app, request).await));
    }
    answers
}

/// The answers that need another request to be running.
async fn errors_beside_another_request() -> Vec<(Code, Answer)> {
    let (trainer, outcome) = held_trainer();
    let mut service = Service { trainer: Some(trainer), ..with_model() };
    service.limits.requests = 1;
    let app = local(service);
    let training = tokio::spawn({
        let app = app.clone();
        async move { send(&app, post("/train", "text/plain", "")).await }
    });
    let stalled = tokio::spawn({
        let app = app.clone();
        async move { send(&app, json(Body::new(Stalled))).await }
    });
    // Both run up to the point where they wait.
    tokio::task::yield_now().await;
    let answers = vec![
        (Code::TrainingRunning, send(&app, post("/train", "text/plain", "")).await),
        (Code::Overloaded, send(&app, predict(1)).await),
    ];
    stalled.abort();
    outcome.send(Ok("red-2")).unwrap();
    assert_eq!(training.await.unwrap().status, StatusCode::OK);
    answers
}

fn describe(answer: &Answer) -> String {
    let mut text = format!("{}\n", answer.status);
    for name in [header::WWW_AUTHENTICATE, header::ALLOW, header::RETRY_AFTER] {
        if let Some(value) = answer.header(&name) {
            writeln!(text, "{name}: {value}").unwrap();
        }
    }
    write!(text, "{}", serde_json::to_string_pretty(&answer.json()).unwrap()).unwrap();
    text
}

#[tokio::test]
async fn every_code_occurs_with_its_status_and_shape() {
    let mut answers = simple_errors().await;
    answers.extend(errors_beside_another_request().await);
    answers.sort_by_key(|(code, _)| *code);
    for (code, answer) in &answers {
        assert_eq!((answer.code().as_str(), answer.status), (code.as_str(), code.status()), "{answer:?}");
        assert_eq!(answer.header(header::CONTENT_TYPE), Some("application/json"));
        assert!(answer.headers.contains_key("x-request-id"));
    }
    let seen: BTreeSet<Code> = answers.iter().map(|(code, _)| *code).collect();
    assert_eq!(seen, BTreeSet::from(Code::ALL));
    let texts: Vec<String> = answers.iter().map(|(_, answer)| describe(answer)).collect();
    insta::assert_snapshot!("every_error", texts.join("\n\n"));
}

#[tokio::test]
async fn a_model_that_breaks_its_promise_is_an_internal_error() {
    for values in [vec![1.0], vec![f32::NAN], vec![f32::INFINITY, 0.0]] {
        let app = local(Service { model: Some(Arc::new(BrokenModel(values))), ..Service::default() });
        assert_eq!(send(&app, predict(1)).await.code(), "internal");
    }
}

#[tokio::test]
async fn a_body_that_lies_about_its_type_is_refused_as_what_it_is() {
    let app = local(with_model());
    let request = |content_type, body: &'static str| post("/api/v1/predictions", content_type, body);
    assert_eq!(send(&app, request("image/png", "<html>")).await.code(), "not_an_image");
    assert_eq!(send(&app, request("image/png", "")).await.code(), "not_an_image");
    assert_eq!(send(&app, request("application/json", "")).await.code(), "invalid_json");
    assert_eq!(send(&app, request("multipart/form-data", "")).await.code(), "unsupported_content_type");
    let untyped = Request::post("/predict").body(Body::from("{}")).unwrap();
    let answer = send(&app, untyped).await;
    assert_eq!(answer.json()["error"]["message"], "expected content type `application/json`, got none");
}

#[tokio::test]
async fn after_an_overload_the_place_is_free_again() {
    let app = limited(|limits| limits.requests = 1);
    for _ in 0..3 {
        assert_eq!(send(&app, json("{")).await.code(), "invalid_json");
    }
    assert_eq!(send(&app, predict(250)).await.status, StatusCode::OK);
}

#[test]
fn the_module_doc_lists_every_code_with_its_status() {
    let doc = include_str!("../../src/lib.rs");
    for code in Code::ALL {
        let row = format!("//! | `{}` | {} |", code.as_str(), code.status().as_u16());
        assert!(doc.contains(&row), "{row}");
    }
}

#[tokio::test]
async fn a_panic_is_an_internal_error_without_its_text() {
    struct Panicking;
    impl Classifier for Panicking {
        fn id(&self) -> &str {
            panic!("secret")
        }
        fn labels(&self) -> &[String] {
            &[]
        }
        fn classify(&self, _: &RgbImage) -> Result<Vec<f32>, BoxError> {
            panic!("secret")
        }
    }
    let app = local(Service { model: Some(Arc::new(Panicking)), ..Service::default() });
    // `/health` asks for the id on the async thread, `/predict` classifies on another.
    for request in [get("/health"), predict(1)] {
        let answer = send(&app, request).await;
        assert_eq!(answer.code(), "internal");
        assert!(!answer.text().contains("secret"));
    }
    let working = local(Service { model: Some(RedModel::shared("red-1")), ..Service::default() });
    assert_eq!(send(&working, predict(1)).await.status, StatusCode::OK);
}
