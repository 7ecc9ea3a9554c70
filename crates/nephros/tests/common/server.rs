//! `nephros serve`, and questions to it.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, Command},
    thread::JoinHandle,
};

use serde_json::Value;

use super::{Folder, signal};

/// A running `serve`.
pub struct Server {
    child: Child,
    /// Host and port.
    pub address: String,
    log: JoinHandle<String>,
}

impl Server {
    /// Starts it on a free port.
    pub fn start(folder: &Folder, arguments: &[&str]) -> Self {
        Self::of(folder.command(&[&["serve", "--port", "0"], arguments].concat()))
    }

    /// Starts the command, which serves on a free port.
    pub fn of(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut seen = String::new();
        while !seen.contains("listening on http://") {
            assert!(stderr.read_line(&mut seen).unwrap() > 0, "it ended early: {seen}");
        }
        let address = seen.split("listening on http://").nth(1).unwrap().lines().next().unwrap().to_owned();
        // A log that nobody reads would stop the server once the pipe is full.
        let log = std::thread::spawn(move || {
            stderr.read_to_string(&mut seen).unwrap();
            seen
        });
        Self { child, address, log }
    }

    /// Ends it in good order and gives its log.
    pub fn stop(mut self) -> String {
        signal(&self.child, "TERM");
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        self.log.join().unwrap()
    }

    /// Status and body of an answer.
    pub fn ask(&self, method: &str, path: &str, content_type: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let headers = format!("Content-Type: {content_type}\r\n");
        let answer = exchange(&self.address, &format!("{method} {path}"), &headers, body);
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer[end + 4..].to_vec())
    }

    /// The JSON that a GET answers with.
    pub fn get(&self, path: &str) -> Value {
        serde_json::from_slice(&self.ask("GET", path, "text/plain", b"").1).unwrap()
    }

    /// Status and JSON that a POST of JSON answers with.
    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, body) = self.ask("POST", path, "application/json", body.to_string().as_bytes());
        (status, serde_json::from_slice(&body).unwrap())
    }
}

/// The whole answer to a POST of JSON.
pub fn request(address: &str, path: &str, body: &str) -> String {
    post(address, path, "application/json", body.as_bytes())
}

/// The whole answer to a POST.
pub fn post(address: &str, path: &str, kind: &str, body: &[u8]) -> String {
    ask(address, &format!("POST {path}"), &format!("Content-Type: {kind}\r\n"), body)
}

/// The whole answer to a request, of text; `asked` is its method and path, `headers` its own header lines.
pub fn ask(address: &str, asked: &str, headers: &str, body: &[u8]) -> String {
    String::from_utf8(exchange(address, asked, headers, body)).unwrap()
}

fn exchange(address: &str, asked: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut connection = TcpStream::connect(address).unwrap();
    let length = body.len();
    write!(
        connection,
        "{asked} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n"
    )
    .unwrap();
    connection.write_all(body).unwrap();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).unwrap();
    answer
}
