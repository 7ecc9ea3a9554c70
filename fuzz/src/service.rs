//! The routes of the server over a model that costs nothing.

use std::sync::{Arc, OnceLock};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{Request, Response, StatusCode},
};
use http_body_util::BodyExt;
use nephros_core::{pixels::RgbImage, predictor::Prepared};
use nephros_server::{
    Access, AppState, BoxError, Classified, Classifier, Limits, ModelEntry, ModelStore, ModelsError, Service,
    app,
};
use tokio::runtime::Runtime;
use tower::ServiceExt;

use super::MAX_PIXELS;

struct Model {
    id: String,
    labels: Vec<String>,
}

impl Classifier for Model {
    fn id(&self) -> &str {
        &self.id
    }

    fn labels(&self) -> &[String] {
        &self.labels
    }

    fn prepare(&self, image: &RgbImage, similar: usize) -> Prepared {
        Prepared { input: vec![f32::from(image.pixels()[0]) / 255.0], traits: None, similar }
    }

    fn classify(&self, batch: &[Prepared]) -> Result<Vec<Classified>, BoxError> {
        let answer = |image: &Prepared| Classified {
            probabilities: vec![1.0 - image.input[0], image.input[0]],
            ..Classified::default()
        };
        Ok(batch.iter().map(answer).collect())
    }
}

/// Models of which none is there.
struct Models;

impl ModelStore for Models {
    fn list(&self) -> Result<Vec<ModelEntry>, ModelsError> {
        Ok(Vec::new())
    }

    fn load(&self, _: &str, _: bool) -> Result<Arc<dyn Classifier>, ModelsError> {
        Err(ModelsError::NoSuchModel)
    }

    fn promote(&self, _: &str, _: bool) -> Result<ModelEntry, ModelsError> {
        Err(ModelsError::NoSuchModel)
    }
}

fn limits() -> Limits {
    Limits {
        body_bytes: 1 << 20,
        pixels: MAX_PIXELS,
        parallel: 2,
        job_images: 64,
        unpacked_bytes: 16 << 20,
        ..Limits::default()
    }
}

fn service() -> &'static (Runtime, Router) {
    static SERVICE: OnceLock<(Runtime, Router)> = OnceLock::new();
    SERVICE.get_or_init(|| {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_time().build().expect("threads can be started");
        let model =
            Arc::new(Model { id: "fuzz".to_owned(), labels: vec!["Normal".to_owned(), "Tumor".to_owned()] });
        let models = Some(Arc::new(Models) as Arc<dyn ModelStore>);
        let service = Service { model: Some(model), models, limits: limits(), ..Service::default() };
        let state = AppState::new(service, Access::open());
        state.warm_up().expect("the model answers");
        (runtime, app(state))
    })
}

/// The whole answer to a request.
pub fn send(request: Request<Body>) -> (StatusCode, Bytes) {
    let (runtime, app) = service();
    runtime.block_on(async {
        let Ok(response): Result<Response<Body>, _> = app.clone().oneshot(request).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("answers are in memory").to_bytes();
        let text = String::from_utf8_lossy(&body);
        assert!(!parts.status.is_server_error(), "a client got {}: {text}", parts.status);
        (parts.status, body)
    })
}
