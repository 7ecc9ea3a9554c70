//! Whole trainings of the built binary on a small drawn cohort.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]
#![cfg(unix)]

mod common;

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use common::{
    Folder,
    server::{Server, request},
    signal,
};
use serde_json::{Value, json};

/// A project whose images are 40 drawn slices of 20 patients, ready to be trained on.
fn project(epochs: usize) -> Folder {
    Folder::drawn_project(epochs, "NOISE_RANGE: 0.02\nGAMMA_RANGE: 0.2\n")
}

/// Digest of the weights that a training left.
fn weights(folder: &Folder) -> String {
    let bundle: Value = serde_json::from_str(&folder.read("artifacts/training/bundle/bundle.json")).unwrap();
    bundle["weights_sha256"].as_str().unwrap().to_owned()
}

#[test]
fn a_training_killed_by_the_system_goes_on_to_the_same_model() {
    let folder = project(6);
    for stage in ["ingest", "prepare"] {
        assert_eq!(folder.run(&[stage]).code, 0, "{stage}");
    }
    let mut child = folder.command(&["train"]).stdout(Stdio::null()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut seen = String::new();
    // The third epoch's checkpoint is there, and the fourth epoch has begun or is about to.
    while !seen.contains("epoch 3/6") {
        assert!(stderr.read_line(&mut seen).unwrap() > 0, "it ended early: {seen}");
    }
    signal(&child, "KILL");
    assert!(!child.wait().unwrap().success());
    assert!(!folder.path("artifacts/training/bundle").exists(), "no model is whole yet");
    let resumed = folder.run(&["train"]);
    assert_eq!(resumed.code, 0, "{}", resumed.stderr);
    assert!(!resumed.stderr.contains("epoch 1/6"), "it began anew: {}", resumed.stderr);
    let killed = weights(&folder);
    let undisturbed = folder.run(&["train"]);
    assert_eq!(undisturbed.code, 0, "{}", undisturbed.stderr);
    assert!(undisturbed.stderr.contains("epoch 1/6"), "{}", undisturbed.stderr);
    assert_eq!(weights(&folder), killed);
}

/// `scores.json`, `gate.json` or a file of the bundle.
fn json_file(folder: &Folder, path: &str) -> Value {
    serde_json::from_str(&folder.read(path)).unwrap()
}

const FORCED: &str = "artifacts/training/bundle/forced.json";

/// Four test patients cannot pass the gate: even all of them right, 0.025^(1/4) = 0.398 is not above
/// the half of the larger class.
#[test]
fn a_model_that_fails_the_gate_is_trained_but_served_by_force_only() {
    let folder = project(2);
    let server = Server::start(&folder, &[]);
    let trained = request(&server.address, "/train", "");
    assert!(
        trained.starts_with("HTTP/1.1 200") && trained.ends_with("Training done successfully!"),
        "{trained}"
    );
    assert!(
        request(&server.address, "/predict", "{}").starts_with("HTTP/1.1 503"),
        "there was no model before"
    );
    let log = server.stop();
    assert!(log.contains("training done, model not served: compact-"), "{log}");
    let gate = json_file(&folder, "artifacts/evaluation/gate.json");
    assert_eq!((&gate["passed"], &gate["findings"][0]["code"]), (&json!(false), &json!("majority-class")));
    assert_eq!(json_file(&folder, "scores.json")["gate"], gate);
    assert_eq!(json_file(&folder, "artifacts/training/bundle/evaluation.json")["gate"], gate);
    assert!(!folder.path(FORCED).exists());
    let (scores, bundle) =
        (json_file(&folder, "scores.json"), json_file(&folder, "artifacts/training/bundle/bundle.json"));
    let patients = &scores["by_patient"];
    assert_eq!((&patients["n"], &patients["abstention"]["abstention_rate"]), (&json!(4), &json!(1.0)));
    let temperature = &bundle["patient"]["calibration"]["temperature"];
    assert!(temperature.is_number() && patients["calibration"]["temperature"] == *temperature, "{patients}");
    let refused = &scores["input_gate"];
    assert_eq!(
        (&refused["images"], &refused["groups"], &refused["unit"]),
        (&json!(8), &json!(4), &json!("patient"))
    );
    let text = gate["findings"][0]["text"].as_str().unwrap();
    assert_report(&folder, text);
    let refused = folder.run(&["serve", "--port", "0"]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(
        refused.stderr.contains(text) && refused.stderr.contains("hint: train on more"),
        "{}",
        refused.stderr
    );
    let predicted = folder.run(&["predict", "--json", "cohort/Tumor/Tumor- (1).jpg"]);
    assert_eq!(predicted.code, 0, "{}", predicted.stderr);
    assert_eq!(predicted.stderr.matches("warning: this model failed the gate").count(), 1);
    // Four validation patients, where nine are needed.
    let answer: Value = serde_json::from_str(predicted.stdout.trim()).unwrap();
    assert_eq!((&answer["set"], &answer["refer"]), (&json!(["Normal", "Tumor"]), &json!(true)));
    assert!(answer["reason"].as_str().unwrap().ends_with("at least 9 validation patients, there were 4"));
    assert!(predicted.stderr.contains("every image is referred to a radiologist"), "{}", predicted.stderr);
    assert_similar(&folder);
    let log = Server::start(&folder, &["--force"]).stop();
    assert!(log.contains("--force: serving a model that failed the gate"), "{log}");
    assert_eq!(json_file(&folder, FORCED)["overlooked"], json!(["majority-class"]));
    // A report that cannot be made leaves nothing, not even the files that could.
    fs_err::remove_dir_all(folder.path("artifacts/evaluation")).unwrap();
    folder.write("artifacts/training/history.csv", "epoch\nnone\n");
    assert_eq!(folder.run(&["evaluate"]).code, 1);
    assert!(!folder.path("artifacts/evaluation").exists());
}

/// Whether two JSON objects agree but for the gap and the controls.
fn same_scores(a: &Value, b: &Value) -> bool {
    let main = |value: &Value| {
        let mut value = value.clone();
        for key in ["gap", "controls"] {
            value.as_object_mut().unwrap().remove(key);
        }
        value
    };
    main(a) == main(b)
}

#[test]
fn a_gap_and_controls_stand_beside_the_scores_and_do_not_outlast_them() {
    let folder = project(1);
    for stage in ["ingest", "prepare", "train", "evaluate"] {
        assert_eq!(folder.run(&[stage]).code, 0, "{stage}");
    }
    let plain = json_file(&folder, "scores.json");
    assert_eq!((plain.get("gap"), plain["controls"].as_array().unwrap().len()), (None, 1));
    let asked = folder.run(&["evaluate", "--gap", "--controls"]);
    assert_eq!(asked.code, 0, "{}", asked.stderr);
    assert!(asked.stdout.contains("leakage gap: AUROC "), "{}", asked.stdout);
    assert!(asked.stdout.contains("control, shuffled labels: AUROC "), "{}", asked.stdout);
    let scores = json_file(&folder, "scores.json");
    assert!(same_scores(&scores, &plain), "{scores}");
    assert_eq!(scores["gap"]["by_split"]["accuracy"], scores["accuracy"]);
    let names: Vec<&Value> =
        scores["controls"].as_array().unwrap().iter().map(|control| &control["control"]).collect();
    assert_eq!(names, ["nearest-pixels", "shuffled-labels", "border-only", "centre-masked"]);
    assert!(scores["controls"][0]["random_split"]["auroc"].is_number(), "{scores}");
    assert_eq!(json_file(&folder, "artifacts/evaluation/report.json")["scores"], scores);
    let page = folder.read("artifacts/evaluation/report.html");
    assert!(page.contains("Random split") && page.contains("Border only"), "{page}");
    assert_eq!(folder.run(&["evaluate"]).code, 0);
    assert_eq!(json_file(&folder, "scores.json"), plain);
    let folds = folder.run(&["crossval", "--folds", "2", "--gap", "--json"]);
    assert_eq!(folds.code, 0, "{}", folds.stderr);
    let result: Value = serde_json::from_str(&folds.stdout).unwrap();
    assert_eq!(result["gap"]["by_split"]["accuracy"], result["accuracy"]);
    assert_eq!(
        (&result["gap"]["random_split"]["n"], result["controls"].as_array().unwrap().len()),
        (&json!(40), 1)
    );
    let table = folder.read("artifacts/crossval/predictions.csv");
    let mut rows: Vec<Vec<&str>> = table.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.remove(0), ["path", "patient", "class", "fold", "predicted", "Normal", "Tumor"]);
    let right = rows.iter().filter(|row| row[2] == row[4]).count();
    assert_eq!((json!(right as f64 / 40.0), rows.len()), (result["accuracy"].clone(), 40));
    for (fold, found) in result["folds"].as_array().unwrap().iter().enumerate() {
        let mut patients: Vec<&str> =
            rows.iter().filter(|row| row[3] == (fold + 1).to_string()).map(|row| row[1]).collect();
        patients.dedup();
        patients.sort_unstable();
        patients.dedup();
        assert_eq!(json!(patients), found["patients"]);
    }
    // A random split has no gap to a random split.
    let params = folder.read("params.yaml");
    folder.write("params.yaml", format!("{params}SPLIT_BY: random\n"));
    for arguments in [&["train"][..], &["evaluate"]] {
        assert_eq!(folder.run(arguments).code, 0, "{arguments:?}");
    }
    let leaky = json_file(&folder, "scores.json");
    for arguments in [["evaluate", "--gap"], ["crossval", "--gap"]] {
        let refused = folder.run(&arguments);
        assert_eq!(refused.code, 2, "{}", refused.stderr);
        assert!(refused.stderr.contains("hint: set `SPLIT_BY: patient`"), "{}", refused.stderr);
    }
    assert_eq!(json_file(&folder, "scores.json"), leaky);
}

/// Training slices of three patients beside a prediction, an explanation and the errors of the report.
fn assert_similar(folder: &Folder) {
    let split = folder.read("artifacts/training/split.csv");
    let trained: Vec<&str> = split
        .lines()
        .filter(|line| line.contains(",train,"))
        .map(|line| line.split_once(',').unwrap().0)
        .collect();
    for command in ["predict", "explain"] {
        let run = folder.run(&[command, "--similar", "3", "--json", "cohort/Tumor/Tumor- (1).jpg"]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        let line: Value = serde_json::from_str(run.stdout.trim()).unwrap();
        let similar = line["similar"].as_array().unwrap();
        assert_eq!(similar.len(), 3, "{line}");
        let patients: std::collections::BTreeSet<u64> =
            similar.iter().map(|slice| slice["patient"].as_u64().unwrap()).collect();
        assert_eq!(patients.len(), 3, "no patient twice: {line}");
        let distances: Vec<f64> = similar.iter().map(|slice| slice["distance"].as_f64().unwrap()).collect();
        assert!(distances.is_sorted() && distances[0] >= 0.0, "{distances:?}");
        for slice in similar {
            let (path, class) = (slice["path"].as_str().unwrap(), slice["class"].as_str().unwrap());
            assert!(trained.contains(&path) && path.starts_with(class), "{slice}");
        }
        let text = folder.run(&[command, "--similar", "1", "cohort/Tumor/Tumor- (1).jpg"]);
        let first = similar[0]["path"].as_str().unwrap();
        // A picture that gets no label is not compared any further.
        let told = text.stdout.contains(&format!("  similar: {first}  "));
        assert!(told || text.stdout.contains("no label"), "{}", text.stdout);
    }
    let page = folder.read("artifacts/evaluation/report.html");
    let wrong = json_file(folder, "artifacts/evaluation/report.json")["n_wrong"].as_u64().unwrap();
    assert_eq!(page.matches("<br>like ").count() as u64, 3 * wrong);
}

/// The files of a report on four test patients; `finding` is what the gate says.
fn assert_report(folder: &Folder, finding: &str) {
    let page = folder.read("artifacts/evaluation/report.html");
    assert!(page.contains(finding) && page.ends_with("</html>\n"), "{page}");
    let report = json_file(folder, "artifacts/evaluation/report.json");
    assert_eq!(report["scores"], json_file(folder, "scores.json"));
    assert_eq!(report["history"].as_array().unwrap().len(), 2);
    assert_eq!(report["patients"].as_array().unwrap().len(), 4);
    let (wrong, n_wrong) = (report["worst_errors"].as_array().unwrap(), &report["n_wrong"]);
    // The slice, and where the model looked.
    assert_eq!(page.matches("src=\"data:image/png;base64,").count(), 2 * wrong.len());
    assert_eq!(json!(wrong.len()), *n_wrong, "eight images have at most twelve errors");
    for name in ["roc", "pr", "confusion_matrix", "reliability", "abstention", "training"] {
        let plot = folder.read(&format!("artifacts/evaluation/plots/{name}.svg"));
        assert!(plot.starts_with("<svg ") && plot.ends_with("</svg>\n") && page.contains(&plot), "{name}");
    }
    assert!(folder.read("artifacts/evaluation/plots/roc.csv").starts_with("class,threshold,"));
}

#[test]
fn a_training_asked_for_over_http_is_served_at_once() {
    let folder = project(2);
    // By force, because so few patients never pass the gate; a training writes no 8-bit weights.
    let server = Server::start(&folder, &["--force", "--precision", "int8"]);
    let address = server.address.clone();
    let slice = base64::Engine::encode(
        &base64::engine::general_purpose::STANDARD,
        fs_err::read(folder.path("cohort/Tumor/Tumor- (1).jpg")).unwrap(),
    );
    let question = json!({ "image": slice }).to_string();
    assert!(request(&address, "/predict", &question).starts_with("HTTP/1.1 503"));
    let trained = request(&address, "/train", "");
    assert!(
        trained.starts_with("HTTP/1.1 200") && trained.ends_with("Training done successfully!"),
        "{trained}"
    );
    let answer = request(&address, "/predict", &question);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let body: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    let predicted = folder.run(&["predict", "--json", "cohort/Tumor/Tumor- (1).jpg"]);
    let expected: Value = serde_json::from_str(predicted.stdout.trim()).unwrap();
    assert_eq!(body, json!([{ "image": expected["label"] }]), "the command line says {expected}");
    let log = server.stop();
    assert!(log.contains("8 bits were asked for, but the model just trained has none"), "{log}");
    assert_eq!(json_file(&folder, FORCED)["crate_version"], env!("CARGO_PKG_VERSION"));
    let bundle = json_file(&folder, "artifacts/training/bundle/bundle.json");
    assert!(bundle["calibration"]["temperature"].as_f64().unwrap() > 0.0, "{bundle}");
}
