//! `nephros serve`, and questions to it.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::Child,
    thread::JoinHandle,
};

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
}

/// The whole answer to a POST of JSON.
pub fn request(address: &str, path: &str, body: &str) -> String {
    post(address, path, "application/json", body.as_bytes())
}

/// The whole answer to a POST.
pub fn post(address: &str, path: &str, kind: &str, body: &[u8]) -> String {
    ask(address, &format!("POST {path}"), &format!("Content-Type: {kind}\r\n"), body)
}

/// The whole answer to a request; `asked` is its method and path, `headers` its own header lines.
pub fn ask(address: &str, asked: &str, headers: &str, body: &[u8]) -> String {
    let mut connection = TcpStream::connect(address).unwrap();
    let length = body.len();
    write!(
        connection,
        "{asked} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n"
    )
    .unwrap();
    connection.write_all(body).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
}
