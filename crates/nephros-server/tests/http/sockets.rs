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

/// A client that has sent `sent` of a body of `announced` bytes, and now waits.
fn slow(address: SocketAddr, announced: usize, sent: usize) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST /api/v1/predictions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: image/png\r\n\
         Content-Length: {announced}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&vec![0; sent]).unwrap();
    stream
}

#[tokio::test]
async fn a_body_that_is_announced_as_a_tebibyte_is_not_waited_for() {
    let server = start(with_model(), Duration::from_secs(30)).await;
    let mut waiting = slow(server.address, 1 << 40, 100);
    let read = move || {
        let mut answer = String::new();
        waiting.read_to_string(&mut answer).unwrap();
        answer
    };
    let answer = spawn_blocking(read).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("body_too_large"), "{answer}");
}

/// Waits until the server holds so many bytes of bodies; a minute is more than it ever takes.
async fn holds(address: SocketAddr, bytes: usize) {
    let line = format!("nephros_bodies_bytes {bytes}");
    let waited = tokio::time::timeout(Duration::from_mins(1), async {
        let get = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        while !exchange(address, get).await.lines().any(|own| own == line) {
            tokio::task::yield_now().await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("never {bytes} bytes"));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_share_their_memory_and_large_ones_keep_no_small_one_out() {
    const MIB: usize = 1 << 20;
    let mut service = with_model();
    // 9 MiB for bodies of more than 1 MiB, and 3 more for small ones.
    (service.limits.body_bytes, service.limits.held_bytes) = (4 * MIB, 12 * MIB);
    let server = start(service, Duration::from_secs(30)).await;
    let address = server.address;
    let large: Vec<TcpStream> = [4, 4].map(|sent| slow(address, 4 * MIB, sent * MIB - 1)).into();
    let third = slow(address, 4 * MIB, MIB);
    holds(address, 9 * MIB - 2).await;
    let whole = |bytes: usize| {
        let mut request =
            request("/api/v1/predictions", "image/png", "").replace("Length: 0", &format!("Length: {bytes}"));
        request.push_str(&"x".repeat(bytes));
        request
    };
    // One large body more is one too many; it is refused at once, and nothing of it is held.
    let refused = exchange(address, whole(2 * MIB)).await;
    assert!(refused.starts_with("HTTP/1.1 429 ") && refused.contains("too_many_bytes"), "{refused}");
    assert!(refused.contains("retry-after: 2\r\n"), "{refused}");
    holds(address, 9 * MIB - 2).await;
    // Small ones pass.
    for red in 0..20 {
        let small = exchange(address, request("/predict", "application/json", &image_json(&png(red)))).await;
        assert!(small.contains("200 OK"), "{small}");
    }
    // A client that goes gives back what was held for it, and another that is answered, too.
    drop(third);
    holds(address, 8 * MIB - 2).await;
    let ended = large.into_iter().map(|mut stream| {
        spawn_blocking(move || {
            stream.write_all(&[0]).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        })
    });
    for ended in ended.collect::<Vec<_>>() {
        let answer = ended.await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 422 ") && answer.contains("not_an_image"), "{answer}");
    }
    holds(address, 0).await;
    let answer = exchange(address, whole(4 * MIB)).await;
    assert!(answer.starts_with("HTTP/1.1 422 "), "{answer}");
    server.stop.send(()).unwrap();
    server.ended.await.unwrap().unwrap();
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
