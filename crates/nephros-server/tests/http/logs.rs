//! What a log line says, and what it never says.

use std::{
    io,
    sync::{Arc, Mutex, Once},
};

use axum::http::header;
use nephros_core::predictor::Prepared;
use nephros_server::{Access, AppState, BoxError, Classified, Classifier, Service, app};

use crate::support::{get, post, predict, send, with_model};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

thread_local! {
    static LINES: Lines = Lines::default();
}

/// Collects the lines of this thread, where a test's handlers run.
///
/// One subscriber stays for the whole process: while some come and go, a line that another test logs
/// for the first time at that moment can be lost to all.
fn collect() -> Lines {
    static SUBSCRIBER: Once = Once::new();
    SUBSCRIBER.call_once(|| {
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::TRACE)
            .with_writer(|| LINES.with(Lines::clone))
            .finish();
        tracing::subscriber::set_global_default(subscriber).unwrap();
    });
    let lines = LINES.with(Lines::clone);
    lines.0.lock().unwrap().clear();
    lines
}

#[tokio::test]
async fn a_line_has_the_route_and_nothing_that_a_client_wrote() {
    let lines = collect();
    let guarded = app(AppState::new(with_model(), Access::token("tok3n")));
    let mut request = predict(1);
    request.headers_mut().insert(header::AUTHORIZATION, "Bearer tok3n".parse().unwrap());
    send(&guarded, request).await;
    send(&guarded, get("/Mustermann_Erika.png?name=Mustermann")).await;
    let mut request = post("/api/v1/predictions", "image/png", "Mustermann pixels");
    request.headers_mut().insert(header::AUTHORIZATION, "Bearer tok3n".parse().unwrap());
    send(&guarded, request).await;
    let text = lines.text();
    for (route, status) in [("/predict", 200), ("unmatched", 404), ("/api/v1/predictions", 422)] {
        let found = text.lines().any(|line| {
            line.contains(&format!("route=\"{route}\"")) && line.contains(&format!("status={status}"))
        });
        assert!(found, "{route} {status} in\n{text}");
    }
    for secret in ["tok3n", "Mustermann", "pixels"] {
        assert!(!text.contains(secret), "{secret} in\n{text}");
    }
}

#[tokio::test]
async fn an_internal_error_is_logged_once_with_its_chain_and_id() {
    struct Failing;
    impl Classifier for Failing {
        fn id(&self) -> &'static str {
            "failing"
        }
        fn labels(&self) -> &[String] {
            &[]
        }
        fn prepare(&self, _: &nephros_core::pixels::RgbImage, similar: usize) -> Prepared {
            Prepared { input: Vec::new(), traits: None, similar }
        }
        fn classify(&self, _: &[Prepared]) -> Result<Vec<Classified>, BoxError> {
            Err(Box::new(io::Error::other("engine stopped")))
        }
    }
    let lines = collect();
    let service = Service { model: Some(Arc::new(Failing)), ..Service::default() };
    let answer = send(&app(AppState::new(service, Access::loopback())), predict(1)).await;
    let text = lines.text();
    assert_eq!(text.matches("engine stopped").count(), 1, "{text}");
    let line = text.lines().find(|line| line.contains("engine stopped")).unwrap();
    assert!(
        line.contains("ERROR") && line.contains("the server failed to answer this request: engine stopped")
    );
    assert!(line.contains(answer.header("x-request-id").unwrap()));
}
