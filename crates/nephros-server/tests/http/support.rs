//! Requests, answers and a model whose answer can be read off the image.

use std::{
    io::{self, Cursor},
    pin::Pin,
    sync::{Arc, Mutex, mpsc},
    task::{Context, Poll},
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    http::{HeaderMap, Request, StatusCode, header},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use http_body::Frame;
use http_body_util::BodyExt;
use nephros_core::{input_gate::Similar, pixels::RgbImage};
use nephros_server::{
    Access, AppState, BoxError, Classified, Classifier, Service, TrainFailure, Trained, Trainer, app,
};
use serde_json::{Value, json};
use tower::ServiceExt;

/// Says `Tumor` with the red of the first pixel over 255 as its probability, and refers what
/// is as good as half red.
pub struct RedModel {
    id: &'static str,
    labels: Vec<String>,
}

impl RedModel {
    pub fn shared(id: &'static str) -> Arc<dyn Classifier> {
        Arc::new(Self { id, labels: vec!["Normal".to_owned(), "Tumor".to_owned()] })
    }
}

impl Classifier for RedModel {
    fn id(&self) -> &str {
        self.id
    }

    fn labels(&self) -> &[String] {
        &self.labels
    }

    fn classify(&self, image: &RgbImage) -> Result<Vec<f32>, BoxError> {
        let tumor = f32::from(image.pixels()[0]) / 255.0;
        Ok(vec![1.0 - tumor, tumor])
    }

    fn classify_gated(&self, image: &RgbImage, similar: usize) -> Result<Classified, BoxError> {
        let slice = |number: usize| Similar {
            path: format!("Tumor/{number}.png"),
            class: "Tumor".to_owned(),
            patient: Some(number as u32),
            group: None,
            distance: 0.25 * number as f64,
        };
        let similar = (1..=similar).map(slice).collect();
        Ok(Classified { probabilities: self.classify(image)?, similar, ..Classified::default() })
    }

    fn refer(&self, probabilities: &[f32]) -> Option<String> {
        let torn = (probabilities[1] - 0.5).abs() < 0.01;
        torn.then(|| "Normal and Tumor are possible".to_owned())
    }
}

/// A 3×2 PNG of one red value.
pub fn png(red: u8) -> Vec<u8> {
    let image = image::RgbImage::from_pixel(3, 2, image::Rgb([red, 7, 9]));
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

pub fn image_json(bytes: &[u8]) -> String {
    json!({"image": BASE64_STANDARD.encode(bytes)}).to_string()
}

pub fn with_model() -> Service {
    Service { model: Some(RedModel::shared("red-1")), ..Service::default() }
}

/// A server on loopback without a token.
pub fn local(service: Service) -> Router {
    app(AppState::new(service, Access::loopback()))
}

pub fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

pub fn post(path: &str, content_type: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path).header(header::CONTENT_TYPE, content_type).body(body.into()).unwrap()
}

pub fn predict(red: u8) -> Request<Body> {
    post("/predict", "application/json", image_json(&png(red)))
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The code of an error.
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

pub async fn send(app: &Router, request: Request<Body>) -> Answer {
    let response = app.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: parts.status, headers: parts.headers, body }
}

/// A body of which nothing ever arrives.
pub struct Stalled;

impl HttpBody for Stalled {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Pending
    }
}

/// A trainer that waits until the test sends its outcome.
pub fn held_trainer() -> (Trainer, mpsc::Sender<Result<&'static str, &'static str>>) {
    let (sender, receiver) = mpsc::channel::<Result<&'static str, &'static str>>();
    let receiver = Mutex::new(receiver);
    let trainer: Trainer = Arc::new(move || match receiver.lock().unwrap().recv().unwrap() {
        Ok(id) if id.starts_with("worse") => Ok(Trained::Refused {
            model: id.to_owned(),
            reason: "all 8 images were called `Normal`".to_owned(),
        }),
        Ok(id) => Ok(Trained::Serve {
            model: RedModel::shared(id),
            notice: id.ends_with("f32").then(|| "8 bits were asked for".to_owned()),
        }),
        Err(message) => Err(TrainFailure {
            message: message.to_owned(),
            hint: Some("look at the data".to_owned()),
            source: Some("disk quota exceeded".into()),
        }),
    });
    (trainer, sender)
}
