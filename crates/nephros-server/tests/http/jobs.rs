//! Trainings, batches and changes of model, from outside.

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode, header},
};
use nephros_server::{Metrics, Service, TrainFailure, Trained, TrainingEvent};
use serde_json::{Value, json};

use crate::support::{RedModel, equipped, get, local, png, post, predict, send, with_model, zip_of};

fn post_json(path: &str, body: &Value) -> Request<Body> {
    post(path, "application/json", body.to_string())
}

/// The job once it is no longer at work; a minute is more than it ever takes.
async fn ended(app: &Router, address: &str) -> Value {
    let waited = tokio::time::timeout(Duration::from_mins(1), async {
        loop {
            let job = send(app, get(address)).await.json();
            if !["running", "cancelling"].contains(&job["state"].as_str().unwrap()) {
                return job;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    waited.await.unwrap()
}

/// Tells two epochs and a long task, and goes on until it is cancelled if `endless`.
fn trained(endless: bool) -> Service {
    let trainer = move |run: &nephros_server::TrainingRun| {
        run.tell(TrainingEvent::Stage { name: "train".to_owned() });
        run.tell(TrainingEvent::Log { line: "40 images".to_owned() });
        let task = run.task("images", Some(1000));
        (0..1000).for_each(|_| task.advance(1));
        for epoch in 1..=2 {
            run.tell(TrainingEvent::Epoch(Metrics {
                epoch,
                learning_rate: 0.5,
                train_loss: 0.75,
                train_accuracy: 0.5,
                validation_loss: 0.25,
                validation_accuracy: 1.0,
                validation_auroc: None,
                seconds: 0.0,
            }));
        }
        while endless && !run.is_cancelled() {
            std::thread::sleep(Duration::from_millis(1));
        }
        if endless {
            return Err(TrainFailure { message: "stopped on request".to_owned(), hint: None, source: None });
        }
        Ok(Trained::Serve { model: RedModel::shared("red-2"), notice: None })
    };
    Service { trainer: Some(std::sync::Arc::new(trainer)), ..with_model() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_is_watched_from_its_begin_to_its_end() {
    let app = local(trained(false));
    let begun = send(&app, post("/api/v1/trainings", "text/plain", "")).await;
    assert_eq!(begun.status, StatusCode::ACCEPTED);
    let address = begun.header(header::LOCATION).unwrap().to_owned();
    // The stream ends with the training.
    let events = send(&app, get(&format!("{address}/events"))).await;
    assert_eq!(events.header(header::CONTENT_TYPE), Some("text/event-stream"));
    let names: Vec<&str> = events.text().lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(names, ["stage", "log", "progress", "epoch", "epoch", "end"]);
    assert!(events.text().contains(r#""event":"progress","task":"images","done":1000,"total":1000"#));
    assert!(events.text().contains(r#""validation_loss":0.25"#));
    assert!(events.text().contains(r#""event":"end","state":"done","model":"red-2","served":true"#));
    let mut again = get(&format!("{address}/events"));
    again.headers_mut().insert("last-event-id", "3".parse().unwrap());
    let rest = send(&app, again).await;
    let names: Vec<&str> = rest.text().lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(names, ["epoch", "end"]);
    let log = send(&app, get(&format!("{address}/log"))).await;
    assert_eq!(log.text().lines().take(2).collect::<Vec<_>>(), ["stage train started", "40 images"]);
    let job = ended(&app, &address).await;
    assert_eq!(
        (&job["state"], &job["stage"], &job["epoch"]["epoch"]),
        (&json!("done"), &json!("train"), &json!(2))
    );
    assert_eq!(send(&app, get("/health")).await.json()["model"], "red-2");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_training_at_a_time_and_each_can_be_stopped() {
    let app = local(trained(true));
    let begun = send(&app, post("/api/v1/trainings", "text/plain", "")).await;
    let address = begun.header(header::LOCATION).unwrap().to_owned();
    for path in ["/train", "/api/v1/trainings"] {
        assert_eq!(send(&app, post(path, "text/plain", "")).await.code(), "training_running", "{path}");
    }
    let cancel = format!("{address}/cancel");
    assert_eq!(send(&app, post(&cancel, "text/plain", "")).await.status, StatusCode::ACCEPTED);
    let job = ended(&app, &address).await;
    assert_eq!(
        (&job["state"], &job["outcome"]["message"]),
        (&json!("cancelled"), &json!("stopped on request"))
    );
    assert_eq!(send(&app, post(&cancel, "text/plain", "")).await.code(), "job_ended");
    assert_eq!(send(&app, get("/health")).await.json()["model"], "red-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zip_file_becomes_a_table_and_json_lines() {
    let app = local(equipped());
    let files = zip_of(&[
        ("b/2.png", &png(250)),
        ("a, \"1\".png", &png(10)),
        ("notes.txt", b"hello"),
        ("c.jpg", b"no image"),
    ]);
    let begun = send(&app, post("/api/v1/batches", "application/zip", files)).await;
    assert_eq!((begun.status, &begun.json()["total"]), (StatusCode::ACCEPTED, &json!(3)));
    let address = begun.header(header::LOCATION).unwrap().to_owned();
    let job = ended(&app, &address).await;
    assert_eq!((&job["state"], &job["done"], &job["failed"]), (&json!("done"), &json!(3), &json!(1)));
    let csv = send(&app, get(&format!("{address}/results.csv"))).await;
    // The receipts are in the order in which the two images were answered.
    let text = csv.text().replace("r1", "r0");
    let expected = "path,label,probability,probability_Normal,probability_Tumor,refer,reasons,model,receipt,error\n\
                    b/2.png,Tumor,0.98039216,0.019607842,0.98039216,,,red-1,r0,\n\
                    \"a, \"\"1\"\".png\",Normal,0.9607843,0.9607843,0.039215688,,,red-1,r0,\n\
                    c.jpg,,,,,,,,,not_an_image\n";
    assert_eq!(text, expected);
    let lines = send(&app, get(&format!("{address}/results.jsonl"))).await;
    let rows: Vec<Value> = lines.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&rows[0]["path"], &rows[0]["label"]), (&json!("b/2.png"), &json!("Tumor")));
    assert_eq!(rows[2]["error"]["code"], "not_an_image");
    // The predictions of a batch are recorded as all others.
    assert_eq!(send(&app, get("/api/v1/history")).await.json().as_array().unwrap().len(), 2);
}

/// Changes bytes of an entry's two headers; the offsets are those after the signature in each.
fn patch(archive: &mut [u8], name: &str, [local, central]: [usize; 2], value: u16) {
    let ends: Vec<usize> =
        (0..archive.len()).filter(|&start| archive[start..].starts_with(name.as_bytes())).collect();
    // A local header has 30 bytes before the name, the central one 46.
    for (end, (length, offset)) in ends.into_iter().zip([(30, local), (46, central)]) {
        archive[end - length + offset..][..2].copy_from_slice(&value.to_le_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_a_batch_that_cannot_be_read_is_named_as_that_and_the_others_go_on() {
    let names = ["1.png", "torn.png", "locked.png", "packed.png", "text.png", "2.png"];
    let png = png(250);
    let files = names.map(|name| (name, if name == "text.png" { &b"hello"[..] } else { &png[..] }));
    let mut archive = zip_of(&files);
    // Source: APPNOTE.TXT 4.3.7 and 4.3.12: flags, of which bit 0 is a password, and the method.
    patch(&mut archive, "locked.png", [6, 8], 1);
    patch(&mut archive, "packed.png", [8, 10], 93);
    let torn = archive.windows(8).position(|window| window == b"torn.png").unwrap();
    // The checksum of the bytes no longer fits.
    archive[torn + 8 + 20] ^= 0xff;
    let app = local(with_model());
    let begun = send(&app, post("/api/v1/batches", "application/zip", archive)).await;
    assert_eq!(begun.status, StatusCode::ACCEPTED, "{}", begun.text());
    let address = begun.header(header::LOCATION).unwrap().to_owned();
    let job = ended(&app, &address).await;
    assert_eq!((&job["state"], &job["done"], &job["failed"]), (&json!("done"), &json!(6), &json!(4)));
    let lines = send(&app, get(&format!("{address}/results.jsonl"))).await;
    let rows: Vec<Value> = lines.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> = rows
        .iter()
        .map(|row| {
            (row["path"].as_str().unwrap(), row["error"]["code"].as_str().or(row["label"].as_str()).unwrap())
        })
        .collect();
    let codes = ["Tumor", "unreadable_file", "unreadable_file", "unreadable_file", "not_an_image", "Tumor"];
    assert_eq!(told, names.into_iter().zip(codes).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_below_the_root_is_a_batch_and_what_lies_outside_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    fs_err::create_dir_all(root.join("scans/deep")).unwrap();
    fs_err::create_dir_all(folder.path().join("secret")).unwrap();
    fs_err::write(folder.path().join("secret/s.png"), png(1)).unwrap();
    for (name, red) in [("scans/1.png", 10), ("scans/deep/2.PNG", 250)] {
        fs_err::write(root.join(name), png(red)).unwrap();
    }
    fs_err::write(root.join("scans.zip"), zip_of(&[("x.png", &png(77))])).unwrap();
    fs_err::write(root.join("empty.txt"), "").unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(folder.path().join("secret"), root.join("link")).unwrap();
    let app = local(Service { batch_root: Some(root), ..with_model() });
    let ask = async |path: &str| send(&app, post_json("/api/v1/batches", &json!({"path": path}))).await;
    for (path, total) in [("scans", 2), ("./scans/deep", 1), ("scans.zip", 1)] {
        let begun = ask(path).await;
        assert_eq!((begun.status, &begun.json()["total"]), (StatusCode::ACCEPTED, &json!(total)), "{path}");
        let job = ended(&app, begun.header(header::LOCATION).unwrap()).await;
        assert_eq!((&job["state"], &job["failed"]), (&json!("done"), &json!(0)), "{path}");
    }
    for path in ["../secret", "/etc", "scans/../../secret", "link", "link/s.png"] {
        assert_eq!(ask(path).await.code(), "outside_root", "{path}");
    }
    assert_eq!(ask("nowhere").await.code(), "no_such_batch");
    assert_eq!(ask("empty.txt").await.code(), "not_a_zip");
    assert_eq!(ask("a\u{0}b").await.code(), "outside_root");
    assert_eq!(send(&app, post_json("/api/v1/batches", &json!({}))).await.code(), "invalid_field");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_stopped_and_keeps_what_is_done() {
    let mut service = with_model();
    // No place in the queue for longer than the test: the batch waits, and does not fail.
    service.ledger = Some(std::sync::Arc::new(crate::support::FullDisk));
    let app = local(service);
    let begun = send(&app, post("/api/v1/batches", "application/zip", zip_of(&[("x.png", &png(7))]))).await;
    let address = begun.header(header::LOCATION).unwrap().to_owned();
    let cancel = send(&app, post(&format!("{address}/cancel"), "text/plain", "")).await;
    assert_eq!((cancel.status, &cancel.json()["state"]), (StatusCode::ACCEPTED, &json!("cancelling")));
    let job = ended(&app, &address).await;
    assert_eq!((&job["state"], &job["done"]), (&json!("cancelled"), &json!(0)));
    assert_eq!(send(&app, get(&format!("{address}/results.jsonl"))).await.text(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_listed_loaded_promoted_and_rolled_back() {
    let app = local(equipped());
    let ask =
        async |what: &str, body: Value| send(&app, post_json(&format!("/api/v1/models/{what}"), &body)).await;
    let current = async || send(&app, get("/api/v1/models/current")).await.json()["id"].clone();
    let list = send(&app, get("/api/v1/models")).await.json();
    assert_eq!((&list[0]["name"], &list[0]["aliases"]), (&json!("red-5"), &json!([])));
    assert_eq!(ask("load", json!({"model": "red-5"})).await.json()["previous"], "red-1");
    assert_eq!(ask("load", json!({"model": "worse"})).await.code(), "model_refused");
    let broken = ask("load", json!({"model": "broken"})).await;
    assert!(!broken.text().contains("secret"), "{}", broken.text());
    assert_eq!(current().await, "red-5");
    assert_eq!(ask("promote", json!({"model": "red-6"})).await.json()["id"], "red-6");
    assert_eq!(send(&app, get("/api/v1/models")).await.json()[1]["aliases"], json!(["champion"]));
    // What cannot become champion is not served either.
    assert_eq!(ask("promote", json!({"model": "worse", "force": true})).await.code(), "model_refused");
    assert_eq!(current().await, "red-6");
    assert_eq!(send(&app, predict(250)).await.text(), r#"[{"image": "Tumor"}]"#);
    let app = local(equipped());
    send(&app, post_json("/api/v1/models/load", &json!({"model": "red-5"}))).await;
    for expected in ["red-1", "red-5"] {
        let back = send(&app, post("/api/v1/models/rollback", "text/plain", "")).await;
        assert_eq!(back.json()["id"], expected);
    }
}
