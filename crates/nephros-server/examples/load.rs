//! Asks a server for predictions as fast as it answers, and prints how long that took as one JSON line.
//!
//! ```text
//! cargo run --release -p nephros-server --example load -- 127.0.0.1:8080 /predict slice.jpg CLIENTS REQUESTS
//! ```
//!
//! `/predict` gets the image as the JSON of the reference, every other address as the body. Each client
//! has one connection and sends its next request when it has read the answer to the one before.

use std::{
    env,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::json;

/// What is sent, again and again.
struct Load {
    address: String,
    request: Vec<u8>,
    requests: usize,
    sent: AtomicUsize,
}

impl Load {
    /// The times and statuses of one client.
    fn client(&self) -> io::Result<Vec<(Duration, u16)>> {
        let mut answers = Vec::new();
        let mut connection: Option<BufReader<TcpStream>> = None;
        while self.sent.fetch_add(1, Ordering::Relaxed) < self.requests {
            let begun = Instant::now();
            let mut stream = match connection.take() {
                Some(stream) => stream,
                None => self.connect()?,
            };
            stream.get_mut().write_all(&self.request)?;
            let (status, stays) = read_answer(&mut stream)?;
            answers.push((begun.elapsed(), status));
            connection = stays.then_some(stream);
        }
        Ok(answers)
    }

    fn connect(&self) -> io::Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect(&self.address)?;
        stream.set_nodelay(true)?;
        Ok(BufReader::new(stream))
    }
}

/// Reads one answer; its status, and whether the connection stays open.
fn read_answer(stream: &mut BufReader<TcpStream>) -> io::Result<(u16, bool)> {
    let broken = |what: &str| io::Error::other(format!("the answer has no {what}"));
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|text| text.parse().ok());
    let status = status.ok_or_else(|| broken("status"))?;
    let (mut length, mut stays) = (None, line.starts_with("HTTP/1.1"));
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        let line = line.trim_end().to_ascii_lowercase();
        match line.split_once(": ") {
            Some(("content-length", value)) => length = value.parse().ok(),
            Some(("connection", value)) => stays = value == "keep-alive",
            None if line.is_empty() => break,
            _ => {}
        }
    }
    let mut body = vec![0; length.ok_or_else(|| broken("length"))?];
    stream.read_exact(&mut body)?;
    Ok((status, stays))
}

fn request(address: &str, path: &str, image: Vec<u8>) -> Vec<u8> {
    let (content_type, body) = match path {
        "/predict" => {
            ("application/json", json!({"image": BASE64_STANDARD.encode(image)}).to_string().into_bytes())
        }
        _ => ("application/octet-stream", image),
    };
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"
    );
    [head.into_bytes(), body].concat()
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [address, path, image, clients, requests] = arguments.as_slice() else {
        return Err(io::Error::other("expected ADDRESS PATH IMAGE CLIENTS REQUESTS"));
    };
    let number = |text: &str| text.parse::<usize>().map_err(io::Error::other);
    let (clients, requests) = (number(clients)?, number(requests)?);
    let load = Load {
        address: address.clone(),
        request: request(address, path, fs_err::read(Path::new(image))?),
        requests,
        sent: AtomicUsize::new(0),
    };
    let begun = Instant::now();
    let answers = thread::scope(|scope| {
        let clients: Vec<_> = (0..clients).map(|_| scope.spawn(|| load.client())).collect();
        let panicked = |_| io::Error::other("a client panicked");
        clients.into_iter().map(|client| client.join().map_err(panicked)?).collect::<io::Result<Vec<_>>>()
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    let mut answers = answers.concat();
    answers.sort_unstable();
    let good = answers.iter().filter(|(_, status)| *status == 200).count();
    let share = |share: f64| {
        let index = ((answers.len() as f64 - 1.0) * share).round() as usize;
        answers.get(index).map_or(0.0, |(time, _)| (time.as_secs_f64() * 1e5).round() / 1e2)
    };
    let line = json!({
        "clients": clients, "requests": answers.len(), "failed": answers.len() - good,
        "requests_per_s": (good as f64 / seconds * 1e3).round() / 1e3,
        "p50_ms": share(0.5), "p95_ms": share(0.95), "p99_ms": share(0.99), "max_ms": share(1.0),
    });
    writeln!(io::stdout(), "{line}")
}
