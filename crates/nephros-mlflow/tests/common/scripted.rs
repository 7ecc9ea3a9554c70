//! An HTTP/1.1 server on a local port whose every answer is written by the test.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub authorization: Option<String>,
    pub content_type: Option<String>,
    pub body: Vec<u8>,
    /// How many requests came before.
    pub number: usize,
}

/// An answer: status, type and body.
pub struct Reply(pub u16, pub &'static str, pub String);

impl Reply {
    pub fn json(status: u16, body: &str) -> Self {
        Self(status, "application/json", body.to_owned())
    }

    pub fn text(status: u16, body: &str) -> Self {
        Self(status, "text/html; charset=utf-8", body.to_owned())
    }
}

/// The server; it ends with its process.
pub struct Scripted {
    pub url: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Scripted {
    /// `answer` may wait, or give `None` to close the connection.
    pub fn start(answer: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (Arc::clone(&requests), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                thread::spawn(move || serve(stream.unwrap(), &seen, answer.as_ref()));
            }
        });
        Self { url, requests }
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, seen: &Mutex<Vec<Request>>, answer: &dyn Fn(&Request) -> Option<Reply>) {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let Some(request) = read(&stream, seen) else { return };
    let Some(Reply(status, kind, body)) = answer(&request) else { return };
    let head = format!(
        "HTTP/1.1 {status} Status\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    // A client that gave up is what some tests are about.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
}

fn read(stream: &TcpStream, seen: &Mutex<Vec<Request>>) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut request =
        Request { method, target, authorization: None, content_type: None, body: Vec::new(), number: 0 };
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((key, value)) = line.trim().split_once(':') else { break };
        match key.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok()?,
            "authorization" => request.authorization = Some(value.trim().to_owned()),
            "content-type" => request.content_type = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    request.body = vec![0; length];
    reader.read_exact(&mut request.body).ok()?;
    let mut seen = seen.lock().unwrap();
    request.number = seen.len();
    seen.push(request.clone());
    Some(request)
}

/// Hands a request to the server at `url`, without the path that it is below here.
pub fn forward(url: &str, below: &str, request: &Request) -> Reply {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let target = format!("{url}{}", request.target.strip_prefix(below).unwrap());
    let mut handed = ureq::http::Request::builder().method(request.method.as_str()).uri(target);
    for (name, value) in [("content-type", &request.content_type), ("authorization", &request.authorization)]
    {
        if let Some(value) = value {
            handed = handed.header(name, value);
        }
    }
    let mut response = if request.method == "GET" {
        agent.run(handed.body(()).unwrap())
    } else {
        agent.run(handed.body(request.body.as_slice()).unwrap())
    }
    .unwrap();
    let status = response.status().as_u16();
    Reply(status, "application/json", response.body_mut().read_to_string().unwrap())
}
