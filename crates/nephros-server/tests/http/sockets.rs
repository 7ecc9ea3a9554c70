//! Real sockets: listening, stopping, and clients that misbehave.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use nephros_core::hint::Hint;
use nephros_server::{ServeError, ServeOptions, Server, Service, Trainer, TrainingRun};
use tokio::{
    sync::oneshot,
    task::{JoinHandle, spawn_blocking},
};

use crate::support::{held_trainer, image_json, png, with_model};

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<(), ServeError>>,
}

async fn start(service: Service, drain: Duration) -> Running {
    let options =
        ServeOptions { address: ([127, 0, 0, 1], 0).into(), drain, service, ..ServeOptions::default() };
    let server = Server::bind(options).await.unwrap();
    let address = server.address();
    let (stop, stopped) = oneshot::channel::<()>();
    let ended = tokio::spawn(server.run(async {
        // Dropping the sender stops the server as well.
        let _ = stopped.await;
    }));
    Running { address, stop, ended }
}

fn request(path: &str, content_type: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {content_type}\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
}

async fn exchange(address: SocketAddr, request: impl Into<Vec<u8>>) -> String {
    let request = request.into();
    let exchange = move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&request).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8(answer).unwrap()
    };
    spawn_blocking(exchange).await.unwrap()
}

#[tokio::test]
async fn serves_and_stops() {
    let server = start(with_model(), Duration::from_secs(30)).await;
    let answer =
        exchange(server.address, request("/predict", "application/json", &image_json(&png(250)))).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n[{\"image\": \"Tumor\"}]"), "{answer}");
    server.stop.send(()).unwrap();
    server.ended.await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_taken_is_finished_after_the_signal() {
    let (held, outcome) = held_trainer();
    let (start_signal, started) = mpsc::channel();
    let start_signal = Mutex::new(start_signal);
    let trainer: Trainer = Arc::new(move |run: &TrainingRun| {
        start_signal.lock().unwrap().send(()).unwrap();
        held(run)
    });
    let server = start(Service { trainer: Some(trainer), ..with_model() }, Duration::from_mins(1)).await;
    let address = server.address;
    let training = tokio::spawn(async move { exchange(address, request("/train", "text/plain", "")).await });
    spawn_blocking(move || started.recv()).await.unwrap().unwrap();
    server.stop.send(()).unwrap();
    outcome.send(Ok("red-2")).unwrap();
    assert!(training.await.unwrap().ends_with("Training done successfully!"));
    server.ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_stalls_does_not_keep_the_server_from_stopping() {
    let server = start(with_model(), Duration::from_millis(50)).await;
    let mut stalled = TcpStream::connect(server.address).unwrap();
    let head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    stalled.write_all(head.as_bytes()).unwrap();
    // A whole exchange on another connection: by then the stalled one has been taken.
    exchange(server.address, request("/predict", "application/json", "{")).await;
    server.stop.send(()).unwrap();
    server.ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_sends_too_much_reads_why() {
    let mut service = with_model();
    service.limits.body_bytes = 1 << 20;
    let server = start(service, Duration::from_secs(30)).await;
    // More than the socket's buffers hold: without draining, the answer would be lost to a reset.
    let body = "x".repeat((2 << 20) - 10);
    let answer = exchange(server.address, request("/predict", "application/json", &body)).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("body_too_large"));
}

#[tokio::test]
async fn metrics_on_a_port_of_their_own_are_nowhere_else() {
    let options = ServeOptions {
        address: ([127, 0, 0, 1], 0).into(),
        metrics_port: Some(0),
        service: with_model(),
        ..ServeOptions::default()
    };
    let server = Server::bind(options).await.unwrap();
    let (address, metrics) = (server.address(), server.metrics_address().unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let ended = tokio::spawn(server.run(async {
        let _ = stopped.await;
    }));
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(exchange(metrics, get("/metrics")).await.contains("nephros_model{model=\"red-1\"} 1"));
    assert!(exchange(metrics, get("/health")).await.starts_with("HTTP/1.1 404"));
    assert!(exchange(address, get("/metrics")).await.starts_with("HTTP/1.1 404"));
    // The model is warmed up beside the first requests.
    while !exchange(address, get("/health/ready")).await.starts_with("HTTP/1.1 200") {
        tokio::task::yield_now().await;
    }
    stop.send(()).unwrap();
    ended.await.unwrap().unwrap();
    assert!(TcpStream::connect(metrics).is_err());
}

#[tokio::test]
async fn garbage_on_the_socket_ends_only_its_own_connection() {
    let server = start(with_model(), Duration::from_secs(30)).await;
    for garbage in ["\0\x01\x02\r\n\r\n", "GET\r\n\r\n", "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"] {
        // Either a 400 or a closed connection.
        let answer = exchange(server.address, garbage).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{garbage:?}: {answer}");
    }
    let answer =
        exchange(server.address, request("/predict", "application/json", &image_json(&png(1)))).await;
    assert!(answer.contains("200 OK"));
}

#[tokio::test]
async fn an_address_in_use_is_told_with_advice() {
    let first = start(with_model(), Duration::from_secs(30)).await;
    let options = ServeOptions { address: first.address, ..ServeOptions::default() };
    let error = Server::bind(options).await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen on `{}`", first.address));
    assert!(error.hint().unwrap().contains("--port"));
}
