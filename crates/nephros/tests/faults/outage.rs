//! A full disk and a dead database under the running server: told as what they are, and over when they are
//! over, without a restart.

use std::{
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::{
    bed::{Bed, PASSWORD, history},
    common::{
        model::bitmap,
        server::{Server, ask},
    },
    disk::SmallDisk,
};

const PREDICT: &str = "POST /api/v1/predictions";
const BITMAP: &str = "Content-Type: image/bmp\r\n";

/// The receipt of a prediction; or that there is none, in the only form that an outage may have.
fn predict(server: &Server, number: usize) -> Option<String> {
    let image = bitmap(32, [number as u8, (number >> 8) as u8, 7]);
    let answer = ask(&server.address, PREDICT, BITMAP, &image);
    if answer.starts_with("HTTP/1.1 200") {
        let body: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        return Some(body["receipt"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned());
    }
    unavailable(&answer);
    None
}

fn unavailable(answer: &str) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 503") && head.contains("retry-after: 5"), "{answer}");
    let error = &serde_json::from_str::<Value>(body).unwrap()["error"];
    assert_eq!(error["code"], "store_unavailable", "{answer}");
    assert_eq!(error["message"], "predictions cannot be recorded now, so none are made", "{answer}");
    assert!(error["hint"].as_str().unwrap().contains("Retry-After"), "{answer}");
}

fn is_ready(server: &Server) -> bool {
    let answer = ask(&server.address, "GET /health/ready", "", b"");
    let ready = answer.starts_with("HTTP/1.1 200");
    assert!(ready || answer.starts_with("HTTP/1.1 503"), "{answer}");
    ready
}

/// Waits for what the server says of itself; a minute is more than it ever takes.
fn until_ready(server: &Server) {
    let begun = Instant::now();
    while !is_ready(server) {
        assert!(begun.elapsed() < Duration::from_mins(1), "not ready");
        thread::sleep(Duration::from_millis(20));
    }
}

/// While nothing can be recorded: every prediction is refused in the same way, and all else goes on.
fn refuses(server: &Server) {
    let contract = json!({ "image": BASE64_STANDARD.encode(bitmap(32, [1, 2, 3])) }).to_string();
    let address = &server.address;
    // At once: a dead database is waited for by each.
    thread::scope(|scope| {
        for number in 0..8 {
            scope.spawn(move || assert_eq!(predict(server, number), None));
        }
        let json = "Content-Type: application/json\r\n";
        scope.spawn(move || unavailable(&ask(address, "POST /predict", json, contract.as_bytes())));
        for path in ["/health", "/health/live", "/"] {
            scope.spawn(move || assert_eq!(server.ask("GET", path, "text/plain", b"").0, 200, "{path}"));
        }
    });
    // A prediction has failed: it is known by now.
    unavailable(&ask(address, "GET /health/ready", "", b""));
}

/// The list is what was answered, in its order, and the server failed nobody.
fn end(bed: &Bed, server: Server, receipts: &[String]) {
    let listed = history(&server);
    let listed: Vec<&str> = listed.iter().rev().map(|entry| entry["receipt"].as_str().unwrap()).collect();
    assert_eq!(listed, receipts);
    bed.verify();
    let (_, metrics) = server.ask("GET", "/metrics", "text/plain", b"");
    let metrics = String::from_utf8(metrics).unwrap();
    assert!(metrics.contains(r#"status="503""#) && !metrics.contains(r#"status="500""#), "{metrics}");
    assert!(metrics.contains("nephros_ready 1\n"), "{metrics}");
    let log = server.stop();
    assert!(log.contains("store_unavailable") && !log.contains(PASSWORD), "{log}");
}

#[test]
fn a_full_disk_refuses_predictions_until_there_is_room() {
    let Some(disk) = SmallDisk::mount() else { return };
    let filler = disk.path().join("filler");
    fs_err::write(&filler, vec![0; 1 << 20]).unwrap();
    let bed = Bed::sqlite();
    let config = bed.folder.read("config/config.yaml");
    let path = disk.path().join("receipts.db");
    let moved = config.replace("path: store/receipts.db", &format!("path: {}", path.display()));
    assert_ne!(moved, config);
    bed.folder.write("config/config.yaml", moved);

    let server = bed.serve();
    until_ready(&server);
    let mut receipts: Vec<String> = (0..10_000).map_while(|number| predict(&server, number)).collect();
    assert!((5..10_000).contains(&receipts.len()), "{}", receipts.len());
    for _ in 0..3 {
        refuses(&server);
    }
    assert_eq!(history(&server).len(), receipts.len());
    fs_err::remove_file(&filler).unwrap();
    until_ready(&server);
    receipts.extend((0..5).map(|number| predict(&server, number).unwrap()));
    end(&bed, server, &receipts);
}

#[test]
fn a_dead_database_refuses_predictions_until_it_is_back() {
    let Some(bed) = Bed::postgres() else { return };
    let server = bed.serve();
    until_ready(&server);
    let mut receipts = vec![predict(&server, 1).unwrap()];
    bed.cluster().stop();
    thread::scope(|scope| {
        scope.spawn(|| refuses(&server));
        scope.spawn(|| unavailable(&ask(&server.address, "GET /api/v1/history", "", b"")));
    });
    bed.cluster().run();
    until_ready(&server);
    receipts.push(predict(&server, 2).unwrap());
    end(&bed, server, &receipts);
}

#[test]
fn a_server_does_not_start_without_its_database_and_says_what_to_do() {
    let Some(bed) = Bed::postgres() else { return };
    bed.cluster().stop();
    let run = bed.run(&["serve", "--port", "0"]);
    assert_eq!(run.code, 1, "{run:?}");
    let told = "error: cannot open the receipts in `postgres://127.0.0.1:";
    assert!(run.stderr.contains(told), "{}", run.stderr);
    assert!(run.stderr.contains("the database of receipts is not available: "), "{}", run.stderr);
    assert!(run.stderr.contains("hint: start the server again when the database answers"), "{}", run.stderr);
    assert!(!run.stderr.contains(PASSWORD) && !run.stderr.contains("listening"), "{}", run.stderr);
    bed.cluster().run();
    let server = bed.serve();
    until_ready(&server);
    assert!(predict(&server, 1).is_some());
    server.stop();
}
