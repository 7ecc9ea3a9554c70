//! The real MLflow, 3.17.2 and 2.22.5: their clients on the embedded store, and their servers.
//!
//! Needs the environments of `scripts/setup-interop`; without them the tests say what they leave out, and
//! fail where `CI` is `true`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are tests too")]

mod common;

use std::{
    path::Path,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use common::{
    DAGSHUB, Project, full_run, metric,
    real::{Mlflow, python, root},
    scripted::{Reply, Scripted, forward},
};
use nephros_mlflow::{
    models::ModelUri,
    registry::{self, Registry as _},
    run::{Batch, Entry, RunStatus},
    server::{Patience, Server, ServerError},
    settings::{Address, Login},
    store::Store,
    sync::{self, SyncError},
};
use serde_json::{Value, json};

/// Runs `scripts/interop/mlflow_client.py`; gives whether it succeeded and what it printed.
fn client(python: &Path, folder: &Path, arguments: &[&str]) -> (bool, String, String) {
    let script = root().canonicalize().unwrap().join("scripts/interop/mlflow_client.py");
    let output = Command::new(python).arg(script).args(arguments).current_dir(folder).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

fn dump(python: &Path, folder: &Path, uri: &str) -> Value {
    let (done, text, errors) = client(python, folder, &["dump", uri]);
    assert!(done, "{text}{errors}");
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

/// What every client has to see of [`full_run`], wherever it is.
fn assert_full(run: &Value) {
    assert_eq!(run["name"], "train");
    assert_eq!(run["status"], "FINISHED");
    assert_eq!(run["params"], json!({ "IMAGE_SIZE": "[224, 224, 3]", "WEIGHTS": "imagenet" }));
    assert_eq!(run["history"]["loss"], json!([[1, 2.0], [2, 1.0]]));
    assert_eq!(run["history"]["broken"], json!([[1, "nan"]]));
    assert_eq!(run["latest"]["loss"], 1.0);
    assert_eq!(run["tags"]["note"], "Größe");
    assert_eq!(run["tags"]["mlflow.user"], "jane");
    assert_eq!(run["datasets"], json!([["kidney-ct-scan-image", "0123456789abcdef", "training"]]));
    let artifacts = run["artifacts"].as_array().unwrap();
    assert!(artifacts.contains(&json!("plots/roc curve.svg")), "{artifacts:?}");
}

#[test]
fn mlflow_3_reads_the_embedded_store_as_its_own() {
    let Some(python) = python("mlflow3") else { return };
    let project = Project::new();
    let (store, run, model) = full_run(&project);
    registry::promote(&store, "VGG16Model", 1, "champion", "jane", false).unwrap();
    let seen = dump(&python, project.root(), "sqlite:///mlflow.db");
    assert_eq!(seen["experiments"], json!(["Default", "kidney"]));
    assert_eq!(seen["runs"].as_array().unwrap().len(), 1);
    assert_eq!(seen["runs"][0]["id"], run.as_str());
    assert_full(&seen["runs"][0]);
    assert_eq!(seen["runs"][0]["outputs"], json!([model]));
    let logged = &seen["logged_models"][0];
    assert_eq!(
        (&logged["id"], &logged["run"], &logged["status"]),
        (&json!(model), &json!(run), &json!("READY"))
    );
    assert_eq!(logged["params"]["WEIGHTS"], "imagenet");
    assert_eq!(versions_of(logged), json!([{ "name": "VGG16Model", "version": 1 }]));
    assert!(logged["files"].as_array().unwrap().contains(&json!("MLmodel")));
    let version = &seen["versions"][0];
    assert_eq!((&version["version"], &version["stage"]), (&json!(1), &json!("Production")));
    assert_eq!(version["aliases"], json!(["champion"]));
    assert_eq!(version["run"], run.as_str());
    assert!(
        version["location"].as_str().unwrap().ends_with(&format!("models/{model}/artifacts")),
        "{version}"
    );
}

/// The versions that a model itself names, which the list of models shows.
fn versions_of(logged: &Value) -> Value {
    serde_json::from_str(logged["tags"]["mlflow.modelVersions"].as_str().unwrap()).unwrap()
}

#[test]
fn runs_of_python_and_ours_are_written_to_one_file_at_once() {
    let Some(python) = python("mlflow3") else { return };
    let project = Project::new();
    let (store, run) = project.run();
    let folder = project.root().to_owned();
    let other = {
        let python = python.clone();
        thread::spawn(move || client(&python, &folder, &["write", "sqlite:///mlflow.db", "50"]))
    };
    let mut step = 0;
    while !other.is_finished() || step < 200 {
        step += 1;
        store.log(&run, Batch { metrics: vec![metric("loss", 0.5, step)], ..Batch::default() }).unwrap();
        thread::sleep(Duration::from_millis(5));
    }
    let (done, text, errors) = other.join().unwrap();
    assert!(done, "{text}{errors}");
    assert_eq!(store.history(&run, "loss").unwrap().len() as i64, step);
    let runs = store.runs(Some("from-python")).unwrap();
    let [theirs] = runs.as_slice() else { panic!("expected one run, got {runs:?}") };
    assert_eq!((theirs.tag("author"), theirs.info.status), (Some("Grüße"), RunStatus::Finished));
    assert_eq!(store.history(&theirs.info.id, "loss").unwrap().len(), 50);
    assert!(theirs.metric("broken").unwrap().is_nan());
    assert_eq!(store.artifact_paths(&theirs.info.id).unwrap(), ["notes/a.txt"]);
}

#[test]
fn mlflow_2_refuses_the_file_and_leaves_it_as_it_is() {
    let Some(python) = python("mlflow2") else { return };
    let project = Project::new();
    drop(full_run(&project));
    let before = fs_err::read(project.path("mlflow.db")).unwrap();
    let (done, text, errors) = client(&python, project.root(), &["dump", "sqlite:///mlflow.db"]);
    assert!(!done, "{text}");
    assert!(errors.contains("Can't locate revision identified by 'dc11669786a5'"), "{errors}");
    assert_eq!(fs_err::read(project.path("mlflow.db")).unwrap(), before);
}

fn server(url: &str) -> Server {
    // Half of the proxy's answers are failures, and a request may meet several of them in a row.
    let patience = Patience { attempts: 6, wait: Duration::from_millis(20), silence: Duration::from_mins(1) };
    Server::new(&Address { url: url.to_owned(), login: Login::None }, patience)
}

fn copy_of<'a>(seen: &'a Value, run: &str) -> &'a Value {
    let runs = seen["runs"].as_array().unwrap();
    let mut copies = runs.iter().filter(|other| other["tags"]["nephros.run_id"] == run);
    let copy = copies.next().unwrap();
    assert!(copies.next().is_none(), "two copies of run {run}");
    copy
}

/// Everything that is asked of a server of either version: starting one takes long, so all of it is one test.
fn feeds_and_registers(environment: &str, models_of_their_own: bool) {
    let Some(python) = python(environment) else { return };
    let project = Project::new();
    let (store, run, model) = full_run(&project);
    let mut mlflow = Mlflow::start(&python, &project.path("server"), &[]);
    let url = mlflow.url();
    let to = server(&url);
    let fed = sync::feed(&store, &to, &run).unwrap();
    assert_eq!((fed.left_out, fed.busy), (0, false));
    let seen = dump(&python, project.root(), &url);
    let copy = copy_of(&seen, &run);
    assert_full(copy);
    assert_eq!(copy["id"], fed.remote.unwrap().as_str());
    assert_models(&seen, copy, models_of_their_own);
    sent_twice_is_there_once(&store, &run, &seen, &python, project.root(), &url);
    registry_of(&to, &project, &store, &model);
    let (second, third) = (later_run(&store), later_run(&store));
    survives_every_third_failure(&store, &second, &python, project.root(), &url);
    survives_a_server_that_goes_down(&store, &third, &mut mlflow);
    let seen = dump(&python, project.root(), &url);
    assert_eq!(copy_of(&seen, &third)["history"]["loss"].as_array().unwrap().len(), 10);
    deletions_are_told(&store, &third, &python, project.root(), &url);
}

fn assert_models(seen: &Value, copy: &Value, models_of_their_own: bool) {
    let version = &seen["versions"][0];
    assert_eq!((&version["name"], &version["run"]), (&json!("VGG16Model"), &copy["id"]));
    assert_eq!(version["tags"]["nephros.gate"], "passed");
    if models_of_their_own {
        let logged = &seen["logged_models"][0];
        assert_eq!((&logged["run"], &logged["status"]), (&copy["id"], &json!("READY")));
        assert_eq!(copy["outputs"], json!([logged["id"]]));
        // The server writes it itself, in its own types.
        assert_eq!(versions_of(logged)[0]["name"], "VGG16Model");
        assert_eq!(versions_of(logged).as_array().unwrap().len(), 1);
        assert_eq!(version["source"], format!("models:/{}", logged["id"].as_str().unwrap()));
    } else {
        assert!(copy["artifacts"].as_array().unwrap().contains(&json!("model/MLmodel")));
        assert!(version["source"].as_str().unwrap().ends_with("/artifacts/model"), "{version}");
        // What the pages of MLflow 2 know of the models of a run.
        let history = copy["tags"]["mlflow.log-model.history"].as_str().unwrap();
        let expected = json!([{
            "run_id": copy["id"],
            "artifact_path": "model",
            "utc_time_created": "2026-11-23 06:07:20.481427",
            "model_uuid": "abc",
            "flavors": { "onnx": {}, "python_function": {} },
        }]);
        assert_eq!(serde_json::from_str::<Value>(history).unwrap(), expected);
    }
}

/// As if the machine had gone down before it noted what the server took.
fn sent_twice_is_there_once(
    store: &Store,
    run: &str,
    before: &Value,
    python: &Path,
    folder: &Path,
    url: &str,
) {
    store.forget_copy(run, url).unwrap();
    sync::feed(store, &server(url), run).unwrap();
    assert_eq!(&dump(python, folder, url), before);
}

fn registry_of(to: &Server, project: &Project, store: &Store, model: &str) {
    registry::promote(to, "VGG16Model", 1, "champion", "jane", false).unwrap();
    let version = registry::aliased(to, "VGG16Model", "champion").unwrap();
    assert_eq!((version.version, version.stage.as_str()), (1, "Production"));
    let history = registry::history(to, "VGG16Model").unwrap();
    assert_eq!(history.len(), 2, "{history:?}");
    let cache = project.path("cache");
    let expected = store.logged_model(model).unwrap().unwrap().folder.join("bundle");
    let read = |path: &Path| fs_err::read(path).unwrap();
    let run = version.run.unwrap();
    for uri in ["models:/VGG16Model@champion", "models:/VGG16Model/Production", &format!("runs:/{run}/model")]
    {
        let source = ModelUri::parse(uri).unwrap().resolve(to).unwrap();
        let bundle = to.fetch(&source, &cache).unwrap();
        assert!(bundle.starts_with(&cache));
        for file in ["bundle.json", "weights.safetensors"] {
            assert_eq!(read(&bundle.join(file)), read(&expected.join(file)), "{uri}");
        }
    }
    assert_eq!(fs_err::read_dir(&cache).unwrap().count(), 1, "one content, one folder");
    registry::demote(to, "VGG16Model", "champion", "jane").unwrap();
    assert!(registry::aliased(to, "VGG16Model", "champion").is_err());
    assert!(to.names().unwrap().contains(&"VGG16Model".to_owned()));
}

fn later_run(store: &Store) -> String {
    let run = store.create_run(&common::new_run()).unwrap();
    for step in 1..=10 {
        store.log(&run, Batch { metrics: vec![metric("loss", 0.5, step)], ..Batch::default() }).unwrap();
    }
    run
}

/// The real server below a path, behind a proxy that answers every third request with 500 itself, and every fourth only
/// after the server has taken it.
fn survives_every_third_failure(store: &Store, run: &str, python: &Path, folder: &Path, url: &str) {
    let (count, behind) = (AtomicUsize::new(0), url.to_owned());
    let proxy = Scripted::start(move |request| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        if number % 3 == 2 {
            return Some(Reply::text(500, "Internal Server Error"));
        }
        let reply = forward(&behind, DAGSHUB, request);
        (number % 4 != 3).then_some(reply)
    });
    sync::feed(store, &server(&format!("{}{DAGSHUB}", proxy.url)), run).unwrap();
    let seen = dump(python, folder, url);
    assert_eq!(copy_of(&seen, run)["history"]["loss"].as_array().unwrap().len(), 10);
}

fn survives_a_server_that_goes_down(store: &Store, run: &str, mlflow: &mut Mlflow) {
    let to = server(&mlflow.url());
    sync::feed(store, &to, run).unwrap();
    mlflow.stop();
    store.log(run, Batch { tags: vec![Entry::new("late", "yes")], ..Batch::default() }).unwrap();
    let error = sync::feed(store, &to, run).unwrap_err();
    assert!(matches!(error, SyncError::Server(ServerError::Unreachable { .. })), "{error}");
    mlflow.restart();
    assert_eq!(sync::feed(store, &to, run).unwrap().sent, 1);
}

fn deletions_are_told(store: &Store, run: &str, python: &Path, folder: &Path, url: &str) {
    let to = server(url);
    let remote = store.copy(run, to.url()).unwrap().remote.unwrap();
    let (done, _, errors) = client(python, folder, &["delete-run", url, &remote]);
    assert!(done, "{errors}");
    store.log(run, Batch { tags: vec![Entry::new("later", "yes")], ..Batch::default() }).unwrap();
    let error = sync::feed(store, &to, run).unwrap_err();
    assert!(matches!(error, SyncError::Server(ServerError::RunDeleted { .. })), "{error}");
    store.forget_copy(run, to.url()).unwrap();
    let anew = sync::feed(store, &to, run).unwrap().remote.unwrap();
    assert_ne!(anew, remote);
    let (done, _, errors) = client(python, folder, &["delete-experiment", url, "kidney"]);
    assert!(done, "{errors}");
    let error = sync::feed(store, &to, &later_run(store)).unwrap_err();
    assert!(matches!(error, SyncError::Server(ServerError::ExperimentDeleted { .. })), "{error}");
}

#[test]
fn a_server_of_mlflow_3_gets_everything_once() {
    feeds_and_registers("mlflow3", true);
}

#[test]
fn a_server_of_mlflow_2_gets_everything_once() {
    feeds_and_registers("mlflow2", false);
}

#[test]
fn a_server_without_artifacts_gets_the_rest() {
    let Some(python) = python("mlflow2") else { return };
    let project = Project::new();
    let (store, run, _) = full_run(&project);
    let artifacts = ["--no-serve-artifacts", "--default-artifact-root", "mlflow-artifacts:/"];
    let mlflow = Mlflow::start(&python, &project.path("server"), &artifacts);
    let fed = sync::feed(&store, &server(&mlflow.url()), &run).unwrap();
    assert!(fed.left_out >= 2, "{fed:?}");
    assert!(fed.reason.unwrap().contains("takes no files"));
    // Its own client cannot list files there either.
    let remote = fed.remote.unwrap();
    let answer = ureq::get(format!("{}/api/2.0/mlflow/runs/get?run_id={remote}", mlflow.url())).call();
    let run: Value = serde_json::from_str(&answer.unwrap().body_mut().read_to_string().unwrap()).unwrap();
    assert_eq!(run["run"]["info"]["status"], "FINISHED");
}
