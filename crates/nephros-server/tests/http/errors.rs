//! Each code, once, as a client gets it.

use std::{collections::BTreeSet, fmt::Write as _, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode, header},
};
use nephros_core::{pixels::RgbImage, predictor::Prepared};
use nephros_server::{Access, AppState, BoxError, Classified, Classifier, Code, Limits, Service, app};

use crate::support::{
    Answer, FullDisk, RedModel, Stalled, equipped, get, held_trainer, image_json, local, png, post, predict,
    send, with_model, zip_of,
};

const SUBJECT: header::HeaderName = header::HeaderName::from_static("x-nephros-subject");

/// Breaks its promises.
struct BrokenModel(Vec<f32>);

impl Classifier for BrokenModel {
    fn id(&self) -> &'static str {
        "broken"
    }

    fn labels(&self) -> &[String] {
        &[]
    }

    fn prepare(&self, _: &RgbImage, similar: usize) -> Prepared {
        Prepared { input: Vec::new(), traits: None, similar }
    }

    fn classify(&self, batch: &[Prepared]) -> Result<Vec<Classified>, BoxError> {
        if self.0.is_empty() {
            return Err("secret path /srv/model".into());
        }
        let classified = Classified { probabilities: self.0.clone(), ..Classified::default() };
        Ok(vec![classified; batch.len()])
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

/// What an address is asked, and the code that it answers with.
type Case<'a> = (Code, &'a Router, Request<Body>);

fn post_json(path: &str, body: &str) -> Request<Body> {
    post(path, "application/json", body.to_owned())
}

/// Bodies of a prediction that cannot be used.
fn bad_bodies(plain: &Router) -> Vec<Case<'_>> {
    let mut truncated = png(1);
    truncated.truncate(40);
    let many = r#"{"images": ["", "", "", ""]}"#;
    vec![
        (Code::InvalidJson, plain, json(r#"{"image": "#)),
        (Code::JsonTooDeep, plain, json("[".repeat(40))),
        (Code::InvalidBase64, plain, json(r#"{"image": "!!!!"}"#)),
        (Code::InvalidMultipart, plain, post("/api/v1/predictions", "multipart/form-data; boundary=B", "x")),
        (Code::InvalidQuery, plain, post("/api/v1/predictions?similar=many", "image/png", png(1))),
        (Code::MissingField, plain, json(r#"{"picture": "AAAA"}"#)),
        (Code::NotAnImage, plain, json(image_json(b"hello, world"))),
        (Code::CorruptImage, plain, json(image_json(&truncated))),
        (Code::UnsupportedContentType, plain, post("/predict", "text/plain", "x")),
        (Code::UnsupportedEncoding, plain, with_header(predict(1), header::CONTENT_ENCODING, "gzip")),
        (Code::TooManyImages, plain, post_json("/api/v1/predictions", many)),
        (Code::InvalidHeader, plain, with_header(post_json("/api/v1/predictions", "{}"), SUBJECT, "")),
    ]
}

/// What is not there, or not as it is asked for.
fn bad_requests<'a>(plain: &'a Router, equipped: &'a Router) -> Vec<Case<'a>> {
    let batch = |path: &str| post_json("/api/v1/batches", &format!("{{\"path\": \"{path}\"}}"));
    let load = |model: &str| post_json("/api/v1/models/load", &format!("{{\"model\": \"{model}\"}}"));
    let zip = |bytes: Vec<u8>| post("/api/v1/batches", "application/zip", bytes);
    vec![
        (Code::NotFound, plain, get("/nowhere")),
        (Code::MethodNotAllowed, plain, get("/predict")),
        (Code::NoBatches, plain, batch("scans")),
        (Code::OutsideRoot, equipped, batch("../scans")),
        (Code::NoSuchBatch, equipped, batch("nowhere")),
        (Code::NotAZip, equipped, zip(b"PK".to_vec())),
        (Code::DecompressedTooLarge, equipped, zip(zip_of(&[("a.png", &[0; 2000])]))),
        (Code::NoModels, plain, get("/api/v1/models")),
        (Code::NoSuchModel, equipped, load("nothing")),
        (Code::ModelRefused, equipped, load("worse")),
        (Code::UnusableModel, equipped, load("broken")),
        (Code::InvalidField, equipped, post_json("/api/v1/models/load", r#"{"path": "x"}"#)),
        (Code::NoPrevious, plain, post("/api/v1/models/rollback", "text/plain", "")),
        (Code::NoHistory, plain, get("/api/v1/history")),
        (Code::NoSuchReceipt, equipped, {
            post_json("/api/v1/history/unknown/feedback", r#"{"verdict": "agrees"}"#)
        }),
        (Code::NoSuchHeatmap, plain, get("/api/v1/heatmaps/0")),
        (Code::NoSuchJob, plain, get("/api/v1/trainings/0")),
        (Code::TrainingUnavailable, plain, post("/train", "text/plain", "")),
        (Code::NotReady, plain, get("/health/ready")),
    ]
}

/// One answer for each code that a single request can bring about.
async fn simple_errors() -> Vec<(Code, Answer)> {
    let plain = limited(|limits| limits.images = 3);
    let mut service = equipped();
    service.limits.unpacked_bytes = 1000;
    let folder = tempfile::tempdir().unwrap();
    service.batch_root = Some(folder.path().to_owned());
    let equipped = local(service);
    let guarded = app(AppState::new(with_model(), Access::token("right")));
    let (failing, outcome) = held_trainer();
    outcome.send(Err("no images in the class `Tumor`")).unwrap();
    let failing = local(Service { trainer: Some(failing), ..with_model() });
    let broken = local(Service { model: Some(Arc::new(BrokenModel(vec![]))), ..Service::default() });
    let empty = local(Service::default());
    let full = local(Service { ledger: Some(Arc::new(FullDisk)), ..with_model() });
    let small = limited(|limits| limits.body_bytes = 20);
    let tight = tight().await;
    let few = limited(|limits| limits.pixels = 5);
    let hasty = limited(|limits| limits.body_time = Duration::from_millis(20));
    let late = limited(|limits| limits.deadline = Duration::ZERO);
    let mut cases = bad_bodies(&plain);
    cases.extend(bad_requests(&plain, &equipped));
    cases.extend([
        (Code::Unauthorized, &guarded, predict(1)),
        (Code::ForeignHost, &plain, with_header(predict(1), header::HOST, "evil.example")),
        (
            Code::ForeignOrigin,
            &plain,
            with_header(post("/train", "text/plain", ""), header::ORIGIN, "https://evil.example"),
        ),
        (Code::TrainingFailed, &failing, post("/train", "text/plain", "")),
        (Code::NoModel, &empty, predict(1)),
        (Code::Internal, &broken, predict(1)),
        (Code::StoreUnavailable, &full, predict(1)),
        (Code::BodyTooLarge, &small, predict(1)),
        (Code::ImageTooLarge, &few, predict(1)),
        (Code::TooManyBytes, &tight, predict(1)),
        (Code::RequestTimeout, &hasty, json(Body::new(Stalled))),
        (Code::DeadlineExceeded, &late, predict(1)),
    ]);
    // A file that even root cannot read from its begin; the other systems have none.
    let memory = local(Service { batch_root: Some("/proc/self".into()), ..with_model() });
    if cfg!(target_os = "linux") {
        cases.push((Code::UnreadableFile, &memory, post_json("/api/v1/batches", r#"{"path": "mem"}"#)));
    }
    let mut answers = Vec::new();
    for (code, app, request) in cases {
        answers.push((code, documented(app, request).await));
    }
    answers
}

/// A server whose memory for bodies is taken, by a zip file that cannot be recorded and so stays.
async fn tight() -> Router {
    let mut service = Service { ledger: Some(Arc::new(FullDisk)), ..with_model() };
    let files = zip_of(&[("a.png", &png(7))]);
    service.limits.body_bytes = files.len();
    service.limits.held_bytes = 0;
    let app = local(service);
    let begun = send(&app, post("/api/v1/batches", "application/zip", files)).await;
    assert_eq!(begun.status, StatusCode::ACCEPTED);
    app
}

/// Sends a request; its answer has to be one that the OpenAPI document has for its address.
async fn documented(app: &Router, request: Request<Body>) -> Answer {
    let (method, path) = (request.method().as_str().to_ascii_lowercase(), request.uri().path().to_owned());
    let answer = send(app, request).await;
    let document = send(app, get("/api/v1/openapi.json")).await.json();
    let paths = document["paths"].as_object().unwrap();
    let fits = |pattern: &str| {
        let (pattern, path): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), path.split('/').collect());
        pattern.len() == path.len()
            && pattern.iter().zip(&path).all(|(part, own)| part.starts_with('{') || part == own)
    };
    let found = paths.iter().find(|(pattern, item)| fits(pattern) && item.get(&method).is_some());
    // What is not in the document is `not_found` or `method_not_allowed`.
    let Some((_, item)) = found else {
        assert!(["not_found", "method_not_allowed"].contains(&answer.code().as_str()), "{method} {path}");
        return answer;
    };
    let status = answer.status.as_u16().to_string();
    let told = item[&method]["responses"][&status]["description"].as_str().unwrap_or_default();
    assert!(told.contains(&format!("`{}`", answer.code())), "{method} {path} {}: {told}", answer.code());
    answer
}

/// The answers that need another request to be running.
async fn errors_beside_another_request() -> Vec<(Code, Answer)> {
    let (trainer, outcome) = held_trainer();
    let mut service = Service { trainer: Some(trainer), ..with_model() };
    service.limits.requests = 1;
    service.limits.jobs = 1;
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
    let batch = || post("/api/v1/batches", "application/zip", zip_of(&[("a.png", &png(7))]));
    let answers = vec![
        (Code::TrainingRunning, documented(&app, post("/train", "text/plain", "")).await),
        (Code::Overloaded, documented(&app, predict(1)).await),
        (Code::BatchRunning, {
            assert_eq!(send(&app, batch()).await.status, StatusCode::ACCEPTED);
            documented(&app, batch()).await
        }),
        (Code::JobEnded, {
            stalled.abort();
            let id = send(&app, get("/api/v1/trainings")).await.json()[0]["id"].as_str().unwrap().to_owned();
            outcome.send(Ok("red-2")).unwrap();
            assert_eq!(training.await.unwrap().status, StatusCode::OK);
            documented(&app, post(&format!("/api/v1/trainings/{id}/cancel"), "text/plain", "")).await
        }),
    ];
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
    let mut seen: BTreeSet<Code> = answers.iter().map(|(code, _)| *code).collect();
    if cfg!(not(target_os = "linux")) {
        seen.insert(Code::UnreadableFile);
    }
    assert_eq!(seen, Code::ALL.iter().copied().collect::<BTreeSet<Code>>());
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
        fn prepare(&self, _: &RgbImage, _: usize) -> Prepared {
            panic!("secret")
        }
        fn classify(&self, _: &[Prepared]) -> Result<Vec<Classified>, BoxError> {
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

/// Found by fuzzing: the framework answered in its own words.
#[tokio::test]
async fn an_id_that_is_no_text_names_nothing() {
    let app = local(with_model());
    for address in
        ["/api/v1/batches/%99", "/api/v1/trainings/%ff/log", "/api/v1/heatmaps/%c0", "/samples/%80"]
    {
        let answer = send(&app, get(address)).await;
        let plain = send(&app, get(&address.replace('%', ""))).await;
        assert_eq!((answer.status, answer.code()), (plain.status, plain.code()), "{address}");
        assert_eq!(answer.status, 404, "{address}");
    }
}
