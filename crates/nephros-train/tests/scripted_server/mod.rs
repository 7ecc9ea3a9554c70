//! An HTTP/1.1 server on a local port whose every answer is written by the test.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

use nephros_train::ingest::download::Downloader;

/// A request as far as tests look at it.
pub struct Request {
    /// Path and query.
    pub target: String,
    headers: Vec<(String, String)>,
    /// How many requests came before.
    pub number: usize,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// First byte asked for.
    pub fn range_start(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.trim_end_matches('-').parse().ok()
    }
}

/// An answer; `Content-Length` is always that of the whole body.
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    sent: Option<usize>,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), sent: None }
    }

    pub fn page(status: u16, html: impl Into<String>) -> Self {
        Self::new(status, html.into()).header("Content-Type", "text/html; charset=utf-8")
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Closes the connection after `bytes` of the body.
    pub fn cut(self, bytes: usize) -> Self {
        Self { sent: Some(bytes), ..self }
    }
}

pub struct Server {
    pub base: String,
    log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Serves until the test process ends.
    pub fn start(answer: impl Fn(&Request, &str) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let (own_base, own_log) = (base.clone(), Arc::clone(&log));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Some((request, stream)) = read_request(stream.unwrap(), own_log.lock().unwrap().len())
                else {
                    continue;
                };
                let range = request.header("range").map(|range| format!(" [{range}]")).unwrap_or_default();
                own_log.lock().unwrap().push(format!("{}{range}", request.target));
                write_reply(stream, &answer(&request, &own_base));
            }
        });
        Self { base, log }
    }

    /// Targets in order, each with its range.
    pub fn requests(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

/// Three attempts without waiting.
pub fn impatient() -> Downloader {
    Downloader { attempts: 3, first_pause: Duration::ZERO, read_timeout: Duration::from_secs(10) }
}

fn read_request(stream: TcpStream, number: usize) -> Option<(Request, TcpStream)> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let target = lines.first()?.split(' ').nth(1)?.to_owned();
    let headers = lines[1..]
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    Some((Request { target, headers, number }, reader.into_inner()))
}

fn write_reply(mut stream: TcpStream, reply: &Reply) {
    let mut head = format!("HTTP/1.1 {} Scripted\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    let _ = write!(head, "Content-Length: {}\r\n\r\n", reply.body.len());
    let body = &reply.body[..reply.sent.unwrap_or(reply.body.len())];
    // A client that has seen enough may close first.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}
