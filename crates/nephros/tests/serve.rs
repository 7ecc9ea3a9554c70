//! The built binary as a service: registered models, batches, heat maps, and trainings that are watched.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]
#![cfg(unix)]

mod common;

use common::{Folder, server::Server};
use serde_json::{Value, json};

fn trained() -> Folder {
    let folder = Folder::drawn_project(2, "NOISE_RANGE: 0.02\nGAMMA_RANGE: 0.2\n");
    for stage in ["ingest", "prepare", "train", "evaluate"] {
        let run = folder.run(&[stage]);
        assert_eq!(run.code, 0, "{run:?}");
    }
    // So few patients never pass the gate.
    assert_eq!(folder.run(&["models", "register", "--force"]).code, 0);
    folder
}

/// The job once it has ended.
fn ended(server: &Server, path: &str) -> Value {
    loop {
        let job = server.get(path);
        if !["running", "cancelling"].contains(&job["state"].as_str().unwrap()) {
            return job;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

const SLICE: &str = "cohort/Tumor/Tumor- (1).jpg";

#[test]
fn a_project_is_served_with_all_that_it_has() {
    let folder = trained();
    let server = Server::start(&folder, &["--force", "--batch-root", "cohort"]);
    while server.ask("GET", "/health/ready", "text/plain", b"").0 != 200 {
        std::thread::yield_now();
    }
    models(&server);
    predictions(&folder, &server);
    batch(&folder, &server);
    training(&server);
    let log = server.stop();
    assert!(!log.contains("Tumor- ("), "a file's name is in the log:\n{log}");
    assert!(!log.contains("ERROR"), "{log}");
}

/// The bundle and the registered version are loaded, and a refused one is not.
fn models(server: &Server) {
    let list = server.get("/api/v1/models");
    assert_eq!((&list[0]["name"], &list[0]["kind"]), (&json!("bundle"), &json!("bundle")));
    let version = list[1]["name"].as_str().unwrap();
    assert!(version.starts_with("models:/"), "{list}");
    let (status, refused) = server.post("/api/v1/models/load", &json!({"model": version}));
    assert_eq!((status, &refused["error"]["code"]), (409, &json!("model_refused")), "{refused}");
    let (status, current) = server.post("/api/v1/models/promote", &json!({"model": version, "force": true}));
    assert_eq!((status, &current["explains"]), (200, &json!(true)), "{current}");
    assert_eq!(server.get("/api/v1/models")[1]["aliases"], json!(["champion"]));
    let (status, _) = server.post("/api/v1/models/rollback", &json!({}));
    assert_eq!(status, 200);
    for unknown in ["models:/Other/1", "runs:/0/model", "../bundle", "/etc/passwd"] {
        let (status, answer) = server.post("/api/v1/models/load", &json!({"model": unknown}));
        assert_eq!((status, &answer["error"]["code"]), (404, &json!("no_such_model")), "{unknown}");
    }
}

/// The answer is the command line's to the last bit, and its heat map is a picture.
fn predictions(folder: &Folder, server: &Server) {
    let bytes = fs_err::read(folder.path(SLICE)).unwrap();
    let (status, body) = server.ask("POST", "/api/v1/predictions?heatmap=true", "image/jpeg", &bytes);
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(status, 200, "{answer}");
    let predicted = folder.run(&["predict", "--json", SLICE]);
    let expected: Value = serde_json::from_str(predicted.stdout.trim()).unwrap();
    assert_eq!(answer["probabilities"], expected["probabilities"]);
    let (status, map) = server.ask("GET", answer["heatmap"].as_str().unwrap(), "text/plain", b"");
    assert_eq!((status, &map[1..4]), (200, &b"PNG"[..]));
}

fn batch(folder: &Folder, server: &Server) {
    let (status, begun) = server.post("/api/v1/batches", &json!({"path": "Tumor"}));
    assert_eq!(status, 202, "{begun}");
    let address = format!("/api/v1/batches/{}", begun["id"].as_str().unwrap());
    let job = ended(server, &address);
    assert_eq!((&job["state"], &job["failed"], &job["done"]), (&json!("done"), &json!(0), &job["total"]));
    let (_, lines) = server.ask("GET", &format!("{address}/results.jsonl"), "text/plain", b"");
    let lines = String::from_utf8(lines).unwrap();
    let predicted = folder.run(&["predict", "--json", "cohort/Tumor"]);
    let probabilities = |text: &str, below: &str| {
        let row = |line: &str| {
            let row: Value = serde_json::from_str(line).unwrap();
            let path = row["path"].as_str().unwrap().trim_start_matches(below).to_owned();
            (path, row["probabilities"].to_string())
        };
        text.lines().map(row).collect::<std::collections::BTreeMap<_, _>>()
    };
    assert_eq!(probabilities(&lines, ""), probabilities(&predicted.stdout, "cohort/Tumor/"));
}

fn training(server: &Server) {
    let (status, begun) = server.post("/api/v1/trainings", &json!({}));
    assert_eq!(status, 202, "{begun}");
    let address = format!("/api/v1/trainings/{}", begun["id"].as_str().unwrap());
    let (status, events) = server.ask("GET", &format!("{address}/events"), "text/plain", b"");
    let events = String::from_utf8(events).unwrap();
    assert_eq!(status, 200);
    assert_eq!(events.matches("event: stage").count(), 4, "{events}");
    assert!(events.contains("event: epoch") && events.contains("event: end"), "{events}");
    let job = ended(server, &address);
    assert_eq!((&job["state"], &job["outcome"]["served"]), (&json!("done"), &json!(true)), "{job}");
    let (status, _) = server.ask("POST", &format!("{address}/cancel"), "text/plain", b"");
    assert_eq!(status, 409);
}
