//! What the built binary records of its trainings, and what becomes of the models.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests may fail as tests do"
)]
#![cfg(unix)]

mod common;

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Command, Stdio},
};

use common::{
    Folder, Run,
    mlflow::{Mlflow, python},
    signal,
};
use serde_json::{Value, json};

/// A project whose images are 40 drawn slices of 20 patients, ingested and prepared.
fn project(epochs: usize) -> Folder {
    let folder = Folder::drawn_project(epochs, "");
    for stage in ["ingest", "prepare"] {
        assert_eq!(folder.run(&[stage]).code, 0, "{stage}");
    }
    folder
}

fn done(run: Run) -> Run {
    assert_eq!(run.code, 0, "{}", run.stderr);
    run
}

#[test]
fn training_and_evaluation_are_one_run_and_its_model_goes_the_way_of_the_gate() {
    let folder = project(3);
    done(folder.run(&["train"]));
    let trained = folder.only_run();
    assert_eq!(
        (&trained["status"], &trained["params"]["IMAGE_SIZE"]),
        (&json!("FINISHED"), &json!("[64, 64, 3]"))
    );
    let steps: Vec<_> = trained["history"]["validation_loss"]
        .as_array()
        .unwrap()
        .iter()
        .map(|value| &value["step"])
        .collect();
    assert_eq!(steps, [&json!(1), &json!(2), &json!(3)]);
    assert_eq!(trained["datasets"].as_array().unwrap().len(), 3);
    done(folder.run(&["evaluate"]));
    let scored = folder.only_run();
    assert_eq!(scored["id"], trained["id"]);
    let scores: Value = serde_json::from_str(&folder.read("scores.json")).unwrap();
    assert_eq!(scored["metrics"]["test_accuracy"], scores["accuracy"]);
    let files = scored["artifacts"].as_array().unwrap();
    for file in ["report.html", "scores.json", "plots/roc.svg"] {
        assert!(files.contains(&json!(file)), "{file} is not among {files:?}");
    }
    // Four test patients are too few to pass.
    assert_eq!(scores["gate"]["passed"], false);
    assert!(folder.lines(&["models", "list", "--json"]).is_empty());
    forced_to_champion(&folder, trained["id"].as_str().unwrap());
}

fn forced_to_champion(folder: &Folder, run: &str) {
    let refused = folder.run(&["models", "register"]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("gate"), "{}", refused.stderr);
    done(folder.run(&["models", "register", "--force"]));
    let versions = folder.lines(&["models", "list", "--json"]);
    assert_eq!((&versions[0]["name"], &versions[0]["version"]), (&json!("VGG16Model"), &json!(1)));
    assert_eq!(versions[0]["run"], run);
    assert_eq!(folder.run(&["models", "promote", "1"]).code, 1, "champion without --force");
    done(folder.run(&["models", "promote", "1", "--alias", "challenger"]));
    done(folder.run(&["models", "promote", "1", "--force"]));
    let history = folder.lines(&["models", "history", "--json"]);
    let told: Vec<_> =
        history.iter().map(|change| (&change["action"], &change["alias"], &change["forced"])).collect();
    let (yes, no) = (json!(true), json!(false));
    assert_eq!(told[0], (&json!("registered"), &Value::Null, &yes));
    assert_eq!(told[1], (&json!("promoted"), &json!("challenger"), &no));
    assert_eq!(told[2], (&json!("promoted"), &json!("champion"), &yes));
    let image = folder.path("cohort/Normal");
    for uri in ["models:/VGG16Model@champion", "models:/VGG16Model/1", &format!("runs:/{run}/model")] {
        let predict = ["predict", "--json", "--model", uri, image.to_str().unwrap()];
        assert!(folder.lines(&predict)[0]["label"].is_string());
    }
    mlflow_loads_the_same(folder, run);
    let wrong = folder.run(&["predict", "--model", "models:/VGG16Model@best", "a.png"]);
    assert_eq!(wrong.code, 1);
    insta::assert_snapshot!(wrong.stderr, @r"
    error: no version of model `VGG16Model` is `best`
    hint: `nephros models promote VERSION --alias best` sets it
    ");
    let quantized = folder.run(&["quantize", "--model", "models:/VGG16Model/1", "--calibrate", "cohort"]);
    assert_eq!(quantized.code, 2, "{}", quantized.stderr);
}

/// The real MLflow finds the model by each of its names.
fn mlflow_loads_the_same(folder: &Folder, run: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = root.join("target/interop/mlflow3/bin/python");
    if !python.exists() {
        let missing = "left out: MLflow loads the model (run scripts/setup-interop)";
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{missing}");
        println!("{missing}");
        return;
    }
    let script = root.canonicalize().unwrap().join("scripts/interop/mlflow_load.py");
    let run = format!("runs:/{run}/model");
    let names =
        ["models:/VGG16Model@champion", "models:/VGG16Model/1", "models:/VGG16Model/Production", &run];
    let mut command = Command::new(python);
    command.arg(script).args(["sqlite:///mlflow.db", "64", "64"]).args(names).current_dir(folder.root());
    let output = command.output().unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}{errors}");
    let outputs: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let rows = outputs[names[0]].as_array().unwrap();
    assert_eq!((rows.len(), rows[0].as_array().unwrap().len()), (3, 2));
    for name in names {
        assert_eq!(outputs[name], outputs[names[0]], "{name}");
    }
}

#[test]
fn a_killed_training_goes_on_in_its_run() {
    let folder = project(6);
    let mut child = folder.command(&["train"]).stdout(Stdio::null()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut seen = String::new();
    while !seen.contains("epoch 3/6") {
        assert!(stderr.read_line(&mut seen).unwrap() > 0, "it ended early: {seen}");
    }
    signal(&child, "KILL");
    child.wait().unwrap();
    assert_eq!(folder.only_run()["status"], "RUNNING");
    done(folder.run(&["train"]));
    let run = folder.only_run();
    assert_eq!(run["status"], "FINISHED");
    let steps =
        run["history"]["train_loss"].as_array().unwrap().iter().map(|value| value["step"].as_i64().unwrap());
    assert_eq!(steps.collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
}

/// The training is killed while it tells a server, and goes on; then the server is killed, and the training
/// goes on. In the end the server has one run, and every epoch once.
#[test]
fn a_killed_training_and_a_killed_server_leave_one_whole_run() {
    let Some(python) = python("mlflow3") else { return };
    let folder = project(6);
    let outside = tempfile::tempdir().unwrap();
    let mut mlflow = Mlflow::start(&python, &outside.path().join("server"), &[]);
    let url = mlflow.url();
    let with_server = |arguments: &[&str]| {
        let mut command = folder.command(arguments);
        command.env("MLFLOW_TRACKING_URI", &url).env("MLFLOW_EXPERIMENT_NAME", "kidneys on the server");
        command
    };
    let train_until = |epoch: &str| {
        let mut child = with_server(&["train"]).stdout(Stdio::null()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut seen = String::new();
        while !seen.contains(epoch) {
            assert!(stderr.read_line(&mut seen).unwrap() > 0, "it ended early: {seen}");
        }
        (child, stderr, seen)
    };
    let (mut child, _, _) = train_until("epoch 2/6");
    signal(&child, "KILL");
    child.wait().unwrap();
    let (mut child, mut stderr, mut seen) = train_until("epoch 4/6");
    mlflow.stop();
    stderr.read_to_string(&mut seen).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{seen}");
    assert!(seen.contains("cannot be reached") && seen.contains("`nephros runs sync`"), "{seen}");
    assert_eq!(folder.only_run()["status"], "FINISHED");
    mlflow.restart();
    for _ in 0..2 {
        done(Run::from(with_server(&["runs", "sync"]).output().unwrap()));
    }
    let api = |path: &str| -> Value {
        let mut answer = ureq::get(format!("{url}/api/2.0/mlflow/{path}")).call().unwrap();
        serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap()
    };
    let experiment = api("experiments/get-by-name?experiment_name=kidneys%20on%20the%20server");
    let body = json!({ "experiment_ids": [experiment["experiment"]["experiment_id"]] }).to_string();
    let search = ureq::post(format!("{url}/api/2.0/mlflow/runs/search"));
    let mut found = search.header("content-type", "application/json").send(body.as_str()).unwrap();
    let found: Value = serde_json::from_str(&found.body_mut().read_to_string().unwrap()).unwrap();
    let [run] = found["runs"].as_array().unwrap().as_slice() else { panic!("expected one run: {found}") };
    assert_eq!(run["info"]["status"], "FINISHED");
    assert_eq!(run["outputs"]["model_outputs"].as_array().unwrap().len(), 1, "{run}");
    let id = run["info"]["run_id"].as_str().unwrap();
    for metric in ["train_loss", "validation_loss"] {
        let history = api(&format!("metrics/get-history?run_id={id}&metric_key={metric}"));
        let points = history["metrics"].as_array().unwrap();
        let steps: Vec<&Value> = points.iter().map(|point| &point["step"]).collect();
        assert_eq!(json!(steps), json!([1, 2, 3, 4, 5, 6]), "{metric}");
    }
}

#[test]
fn what_cannot_be_recorded_ends_no_training() {
    let folder = project(1);
    let train = |uri: &str| {
        let output = folder.command(&["train"]).env("MLFLOW_TRACKING_URI", uri).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{text}");
        text
    };
    let told = train("htp:/mlflow");
    assert!(told.contains("runs are kept in mlflow.db only"), "{told}");
    // Nothing listens at port 9.
    let told = train("http://127.0.0.1:9");
    assert_eq!(told.matches("a server does not get it now").count(), 1, "{told}");
    assert!(told.contains("`nephros runs sync` sends it later"), "{told}");
    assert_eq!(folder.lines(&["runs", "list", "--json"]).len(), 2);
    let sync =
        folder.command(&["runs", "sync"]).env("MLFLOW_TRACKING_URI", "http://127.0.0.1:9").output().unwrap();
    assert_eq!(sync.status.code(), Some(1));
    folder.write("mlflow.db", "not a database, but long enough to be taken for one".repeat(20));
    let told = train("");
    assert!(told.contains("mlflow-nephros.db` instead"), "{told}");
    assert_eq!(folder.lines(&["runs", "list", "--json"]).len(), 1);
    fs_err::remove_file(folder.path("mlflow.db")).unwrap();
    fs_err::create_dir(folder.path("mlflow.db")).unwrap();
    let told = train("");
    assert!(told.contains("this run is not recorded") && told.contains("writable"), "{told}");
}

#[test]
fn a_project_without_runs_says_so() {
    let folder = Folder::project();
    let list = done(folder.run(&["runs", "list"]));
    assert!(list.stdout.is_empty() && list.stderr.contains("no runs yet"), "{}", list.stderr);
    let show = folder.run(&["runs", "show", "3f6c"]);
    assert!(show.code == 1 && show.stderr.contains("`mlflow.db` does not exist"), "{}", show.stderr);
    let sync = folder.run(&["runs", "sync"]);
    assert!(sync.code == 2 && sync.stderr.contains("MLFLOW_TRACKING_URI"), "{}", sync.stderr);
    let models = done(folder.run(&["models", "list"]));
    assert!(
        models.stdout.is_empty() && models.stderr.contains("no model is registered"),
        "{}",
        models.stderr
    );
    assert!(!folder.path("mlflow.db").exists());
}
