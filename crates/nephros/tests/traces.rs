//! Spans of a running server, as a collector gets them by OTLP, and a server whose collector is gone.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests may fail as tests do"
)]
#![cfg(unix)]

mod common;

use std::{
    collections::HashMap,
    env,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use common::{
    Folder,
    model::{bitmap, save_bundle},
    server::{Server, ask},
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{Span, span::SpanKind},
};
use prost::Message as _;
use serde_json::Value as Json;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A folder with a model in it, and the store of a project.
fn prepared() -> Folder {
    let folder = Folder::project();
    save_bundle(&folder.path("artifacts/training/bundle"));
    folder
}

fn start(folder: &Folder, variables: &[(&str, &str)]) -> Server {
    let mut command = folder.command(&["serve", "--port", "0"]);
    command.envs(variables.iter().copied());
    let server = Server::spawn(command);
    let begun = Instant::now();
    while server.ask("GET", "/health/ready", "text/plain", b"").0 != 200 {
        assert!(begun.elapsed() < Duration::from_mins(1), "not ready");
        // Each question is a span, and the exporter holds 2048.
        thread::sleep(Duration::from_millis(10));
    }
    server
}

/// What is sent to the server: two good images, one of which is another's trace, and a bad one.
fn questions(server: &Server) -> [String; 3] {
    let headers = format!(
        "Content-Type: image/bmp\r\nX-Nephros-Subject: patient-17\r\ntraceparent: 00-{TRACE}-{PARENT}-01\r\n"
    );
    let own = "Content-Type: image/bmp\r\n";
    let address = "POST /api/v1/predictions?similar=1";
    let image = bitmap(32, [10, 90, 200]);
    [(&*headers, &*image), (own, &*image), (own, b"no image")]
        .map(|(headers, body)| ask(&server.address, address, headers, body))
}

/// What the collector was sent, with the headers.
#[derive(Debug, Default)]
struct Received {
    heads: Vec<String>,
    resources: Vec<Resource>,
    spans: Vec<Span>,
}

/// A collector of its own, at this address.
fn collector() -> (String, Arc<Mutex<Received>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let received = Arc::new(Mutex::new(Received::default()));
    let list = Arc::clone(&received);
    thread::spawn(move || {
        for connection in listener.incoming() {
            let list = Arc::clone(&list);
            thread::spawn(move || while take(&mut BufReader::new(connection.as_ref().unwrap()), &list) {});
        }
    });
    (address, received)
}

/// One export; whether there was one.
fn take(connection: &mut BufReader<&TcpStream>, list: &Mutex<Received>) -> bool {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if connection.read_line(&mut head).unwrap() == 0 {
            return false;
        }
    }
    let head = head.to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    connection.read_exact(&mut body).unwrap();
    let mut list = list.lock().unwrap();
    list.heads.push(head);
    for group in ExportTraceServiceRequest::decode(&*body).unwrap().resource_spans {
        list.resources.extend(group.resource);
        list.spans.extend(group.scope_spans.into_iter().flat_map(|scope| scope.spans));
    }
    let answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n";
    let mut back: &TcpStream = connection.get_ref();
    back.write_all(answer).unwrap();
    true
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn attributes(span: &Span) -> HashMap<&str, String> {
    let text = |value: &Option<AnyValue>| match value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    span.attributes.iter().map(|pair| (pair.key.as_str(), text(&pair.value))).collect()
}

#[test]
fn a_collector_gets_a_span_of_each_request_with_its_parts() {
    let folder = prepared();
    let (address, received) = collector();
    let server = start(
        &folder,
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &address),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=sesame"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=ward"),
            // Nothing is sent before the end, which has to send it.
            ("OTEL_BSP_SCHEDULE_DELAY", "3600000"),
        ],
    );
    let answers = questions(&server);
    let log = server.stop();
    let received = received.lock().unwrap();
    assert!(received.heads.iter().all(|head| head.starts_with("post /v1/traces ")), "{:?}", received.heads);
    assert!(received.heads.iter().all(|head| head.contains("x-key: sesame")), "{:?}", received.heads);
    let resource = format!("{:?}", received.resources);
    for expected in
        ["service.name", "\"nephros\"", "service.version", "deployment.environment.name", "\"ward\""]
    {
        assert!(resource.contains(expected), "{expected}: {resource}");
    }

    let server_spans: Vec<&Span> =
        received.spans.iter().filter(|span| span.name == "POST /api/v1/predictions").collect();
    assert_eq!(server_spans.len(), 3);
    for (span, answer) in server_spans.iter().zip(&answers) {
        let found = attributes(span);
        assert_eq!(span.kind(), SpanKind::Server);
        assert_eq!(found["http.request.method"], "POST");
        assert_eq!(found["http.route"], "/api/v1/predictions");
        let status = answer.split(' ').nth(1).unwrap();
        assert_eq!(found["http.response.status_code"], status);
        let id = answer.split("x-request-id: ").nth(1).unwrap().lines().next().unwrap();
        assert_eq!(found["nephros.request.id"], id);
        let line = log.lines().find(|line| line.contains(id)).unwrap();
        assert!(line.contains(&hex(&span.trace_id)), "{line}");
    }
    let [continued, own, refused] = server_spans.as_slice() else { panic!("{server_spans:?}") };
    assert_eq!((hex(&continued.trace_id), hex(&continued.parent_span_id)), (TRACE.into(), PARENT.into()));
    assert!(own.parent_span_id.is_empty() && own.trace_id != refused.trace_id);
    assert_eq!(attributes(refused)["nephros.refusal"], "not_an_image");
    for span in [continued, own] {
        parts(span, &received.spans);
    }
    assert!(!received.spans.iter().any(|part| part.parent_span_id == refused.span_id));
    let all = format!("{:?}", received.spans);
    for secret in ["patient-17", "similar", "no image", "artifacts", "bundle"] {
        assert!(!all.contains(secret), "`{secret}` is in a span");
    }
}

/// The parts follow one another within the request.
fn parts(request: &Span, spans: &[Span]) {
    let mut parts: Vec<&Span> = spans.iter().filter(|span| span.parent_span_id == request.span_id).collect();
    parts.sort_by_key(|span| span.start_time_unix_nano);
    let names: Vec<&str> = parts.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["prepare", "queue", "forward", "record"]);
    assert!(parts.iter().all(|part| part.trace_id == request.trace_id));
    assert!(parts[0].start_time_unix_nano >= request.start_time_unix_nano);
    for pair in parts.windows(2) {
        assert!(pair[0].end_time_unix_nano <= pair[1].start_time_unix_nano, "{pair:?}");
    }
    assert!(parts[2].end_time_unix_nano > parts[2].start_time_unix_nano);
    let found = attributes(parts[2]);
    assert_eq!(found["nephros.batch.size"], "1");
    assert!(found["nephros.model.id"].starts_with("compact-"), "{found:?}");
}

/// Labels and probabilities of the answers, and the codes of refusals: what does not depend on the time.
fn said(answers: &[String]) -> Vec<(String, String)> {
    let of = |answer: &String| {
        let body: Json = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        (body["probabilities"].to_string(), body["error"]["code"].to_string())
    };
    answers.iter().map(of).collect()
}

#[test]
fn a_collector_that_is_gone_or_hangs_changes_nothing() {
    let folder = prepared();
    let server = start(&folder, &[]);
    let expected = said(&questions(&server));
    let log = server.stop();
    assert!(!log.contains("trace_id"), "{log}");
    // Bound, so that nobody else listens there, and never answered.
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses = [&hanging, &gone].map(|listener| format!("http://{}", listener.local_addr().unwrap()));
    drop(gone);
    for address in &addresses {
        let server =
            start(&folder, &[("OTEL_EXPORTER_OTLP_ENDPOINT", address), ("OTEL_BSP_SCHEDULE_DELAY", "10")]);
        for _ in 0..5 {
            assert_eq!(said(&questions(&server)), expected);
        }
        let begun = Instant::now();
        let log = server.stop();
        // Up to 5 s for the collector and as long for the store; a hang would last for ever.
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
        assert!(log.matches("spans do not reach the collector").count() <= 1, "{log}");
    }
}

#[test]
fn what_turns_the_spans_off_or_cannot_be_done() {
    let folder = prepared();
    let (address, received) = collector();
    let endpoint = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &*address);
    for off in [
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_TRACES_EXPORTER", "none"),
        ("OTEL_TRACES_SAMPLER", "always_off"),
    ] {
        let server = start(&folder, &[endpoint, off]);
        questions(&server);
        server.stop();
        assert_eq!(received.lock().unwrap().spans, [], "{off:?}");
    }
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
    ] {
        let mut command = folder.command(&["serve", "--port", "0"]);
        let output = command.envs([endpoint, (name, value)]).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}: {text}");
        assert!(text.contains(name) && text.contains(value), "{text}");
    }
}

/// As the others, by a collector of another house; `scripts/setup-interop` installs it.
#[test]
fn rotel_understands_the_spans() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let program = root.join("target/interop/rotel/lib/python3.11/site-packages/rotel/rotel-agent");
    if !program.exists() {
        let missing = "no rotel in `target/interop` (run scripts/setup-interop)";
        assert!(env::var_os("CI").is_none(), "{missing}");
        println!("skipped: {missing}");
        return;
    }
    let folder = prepared();
    let [http, grpc] =
        [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string());
    let mut rotel = Command::new(program)
        .args([
            "start",
            "--exporter",
            "blackhole",
            "--debug-log",
            "traces",
            "--debug-log-verbosity",
            "detailed",
        ])
        .args(["--otlp-http-endpoint", &http, "--otlp-grpc-endpoint", &grpc])
        .current_dir(folder.root())
        .env("NO_COLOR", "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while TcpStream::connect(&http).is_err() {
        assert!(begun.elapsed() < Duration::from_mins(1), "the collector does not listen");
        thread::sleep(Duration::from_millis(20));
    }
    let server = start(&folder, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{http}"))]);
    questions(&server);
    server.stop();
    common::signal(&rotel, "TERM");
    let mut text = String::new();
    rotel.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    rotel.wait().unwrap();
    for expected in [TRACE, PARENT, "POST /api/v1/predictions", "prepare", "queue", "forward", "record"] {
        assert!(text.contains(expected), "`{expected}` is not in:\n{text}");
    }
}
