//! Requests, answers and a model whose answer can be read off the image.

use std::{
    io::{self, Cursor, Write as _},
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
use nephros_core::{
    abstention,
    input_gate::Similar,
    patient::{self, PatientAnswer},
    pixels::RgbImage,
    predictor::Prepared,
};
use nephros_server::{
    Access, AppState, BoxError, Classified, Classifier, Feedback, HistoryEntry, HistoryPage, Ledger,
    LedgerError, LedgerFuture, ModelEntry, ModelKind, ModelStore, ModelsError, PredictionRecord, Service,
    TrainFailure, Trained, Trainer, TrainingRun, app,
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

    fn prepare(&self, image: &RgbImage, similar: usize) -> Prepared {
        Prepared { input: vec![f32::from(image.pixels()[0])], traits: None, similar }
    }

    fn classify(&self, batch: &[Prepared]) -> Result<Vec<Classified>, BoxError> {
        let slice = |number: usize| Similar {
            path: format!("Tumor/{number}.png"),
            class: "Tumor".to_owned(),
            patient: Some(number as u32),
            group: None,
            distance: 0.25 * number as f64,
        };
        let answer = |image: &Prepared| {
            let tumor = image.input[0] / 255.0;
            let similar = (1..=image.similar).map(slice).collect();
            Classified { probabilities: vec![1.0 - tumor, tumor], similar, ..Classified::default() }
        };
        Ok(batch.iter().map(answer).collect())
    }

    fn explains(&self) -> bool {
        true
    }

    /// The picture itself.
    fn explain(&self, image: &RgbImage) -> Option<Result<Vec<u8>, BoxError>> {
        Some(Ok(png(image.pixels()[0])))
    }

    /// The mean; a patient that is torn is for a radiologist.
    fn patient(&self, images: &[&[f32]]) -> Option<PatientAnswer> {
        let mut read = patient::answer(None, &self.labels, images.iter().copied())?;
        let reason = self.refer(&read.prediction.probabilities);
        read.answer = Some(abstention::Answer { set: Vec::new(), reason });
        Some(read)
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
    let trainer: Trainer = Arc::new(move |_: &TrainingRun| match receiver.lock().unwrap().recv().unwrap() {
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

/// Models by the names of a test: `worse` is refused, `broken` cannot be loaded, `red-…` is a red model.
pub struct Models(pub Mutex<Vec<String>>);

impl Models {
    fn entry(name: &str, champion: bool) -> ModelEntry {
        ModelEntry {
            name: name.to_owned(),
            kind: ModelKind::Registry,
            registered: Some("red".to_owned()),
            version: name.split_once('-').and_then(|(_, number)| number.parse().ok()),
            aliases: if champion { vec!["champion".to_owned()] } else { Vec::new() },
            gate: Some("passed".to_owned()),
            created: None,
        }
    }
}

impl ModelStore for Models {
    fn list(&self) -> Result<Vec<ModelEntry>, ModelsError> {
        let champions = self.0.lock().unwrap();
        Ok(["red-5", "red-6"].map(|name| Self::entry(name, champions.iter().any(|own| own == name))).into())
    }

    fn load(&self, name: &str, force: bool) -> Result<Arc<dyn Classifier>, ModelsError> {
        match name {
            "red-5" => Ok(RedModel::shared("red-5")),
            "red-6" => Ok(RedModel::shared("red-6")),
            "worse" if force => Ok(RedModel::shared("worse")),
            "worse" => Err(ModelsError::Refused { reason: "all images were called `Normal`".to_owned() }),
            "broken" => Err(ModelsError::Unusable {
                reason: "it fails its own check".to_owned(),
                source: "secret path /srv/model".into(),
            }),
            _ => Err(ModelsError::NoSuchModel),
        }
    }

    fn promote(&self, name: &str, _: bool) -> Result<ModelEntry, ModelsError> {
        if name == "worse" {
            return Err(ModelsError::Refused { reason: "it stays what it is".to_owned() });
        }
        *self.0.lock().unwrap() = vec![name.to_owned()];
        Ok(Self::entry(name, true))
    }
}

/// A ledger in memory; whether it says that it keeps images.
#[derive(Default)]
pub struct Notebook(pub Mutex<Vec<HistoryEntry>>, pub bool);

impl Ledger for Notebook {
    fn keeps_images(&self) -> bool {
        self.1
    }

    fn check(&self) -> LedgerFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn record<'a>(&'a self, record: &'a PredictionRecord) -> LedgerFuture<'a, String> {
        Box::pin(async move {
            let mut entries = self.0.lock().unwrap();
            let receipt = format!("r{}", entries.len());
            entries.push(HistoryEntry {
                receipt: receipt.clone(),
                time: "2026-11-27T08:00:00.000Z".to_owned(),
                model: record.model.clone(),
                label: record.labels[record.top].clone(),
                probability: record.probabilities[record.top],
                refer: record.refer.clone(),
                image_sha256: record.image_sha256.clone(),
                feedback: Vec::new(),
            });
            Ok(receipt)
        })
    }

    fn history<'a>(&'a self, page: &'a HistoryPage) -> LedgerFuture<'a, Vec<HistoryEntry>> {
        Box::pin(async move {
            let entries = self.0.lock().unwrap();
            let before =
                page.before.as_ref().and_then(|before| entries.iter().position(|own| own.receipt == *before));
            Ok(entries[..before.unwrap_or(entries.len())].iter().rev().take(page.limit).cloned().collect())
        })
    }

    fn feedback<'a>(&'a self, receipt: &'a str, feedback: &'a Feedback) -> LedgerFuture<'a, ()> {
        Box::pin(async move {
            let mut entries = self.0.lock().unwrap();
            let entry = entries.iter_mut().find(|entry| entry.receipt == receipt);
            entry.ok_or(LedgerError::NoSuchReceipt)?.feedback.push(feedback.clone());
            Ok(())
        })
    }
}

/// A ledger that can keep nothing.
pub struct FullDisk;

impl Ledger for FullDisk {
    fn keeps_images(&self) -> bool {
        false
    }

    fn check(&self) -> LedgerFuture<'_, ()> {
        Box::pin(async { Err(LedgerError::Unavailable("no space left on device".into())) })
    }

    fn record<'a>(&'a self, _: &'a PredictionRecord) -> LedgerFuture<'a, String> {
        Box::pin(async { Err(LedgerError::Unavailable("no space left on device".into())) })
    }

    fn history<'a>(&'a self, _: &'a HistoryPage) -> LedgerFuture<'a, Vec<HistoryEntry>> {
        Box::pin(async { Err(LedgerError::Unavailable("no space left on device".into())) })
    }

    fn feedback<'a>(&'a self, _: &'a str, _: &'a Feedback) -> LedgerFuture<'a, ()> {
        Box::pin(async { Err(LedgerError::Unavailable("no space left on device".into())) })
    }
}

/// A server with all that a server can have, but for a trainer and a folder of batches.
pub fn equipped() -> Service {
    Service {
        models: Some(Arc::new(Models(Mutex::default()))),
        ledger: Some(Arc::new(Notebook::default())),
        ..with_model()
    }
}

/// A zip file of these files.
pub fn zip_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        archive.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}
