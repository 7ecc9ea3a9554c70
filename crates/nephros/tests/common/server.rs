//! A running `serve`, and what it is asked.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::Child,
    thread::JoinHandle,
};

use serde_json::Value;

use super::{Folder, signal};

/// A running `serve`.
pub struct Server {
    child: Child,
    pub address: String,
    log: JoinHandle<String>,
}

impl Server {
    pub fn start(folder: &Folder, arguments: &[&str]) -> Self {
        let arguments = [&["serve", "--port", "0"], arguments].concat();
        let mut child = folder.command(&arguments).spawn().unwrap();
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
        let mut connection = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        write!(
            connection,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {content_type}\r\n\
             Content-Length: {length}\r\n\r\n"
        )
        .unwrap();
        connection.write_all(body).unwrap();
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).unwrap();
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

/// The whole answer to a POST.
pub fn request(address: &str, path: &str, body: &str) -> String {
    let mut connection = TcpStream::connect(address).unwrap();
    let length = body.len();
    write!(
        connection,
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
}
