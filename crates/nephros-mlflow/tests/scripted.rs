//! Servers that behave badly, each answer written here.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod common;

use std::{thread, time::Duration};

use common::{
    Project, log_model, metric,
    scripted::{Reply, Request, Scripted},
};
use nephros_mlflow::{
    run::Batch,
    server::{Patience, Server, ServerError},
    settings::{Address, Login},
    sync::{self, Feeder, SyncError},
};

const QUICK: Patience =
    Patience { attempts: 3, wait: Duration::from_millis(1), silence: Duration::from_millis(400) };

fn server(url: &str, login: Login) -> Server {
    Server::new(&Address { url: url.into(), login }, QUICK)
}

/// What a server that answers so does to the first request of a feeding.
fn answered(answer: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static) -> (ServerError, Scripted) {
    let scripted = Scripted::start(answer);
    let error = server(&scripted.url, Login::None).experiment("kidney").unwrap_err();
    (error, scripted)
}

#[test]
fn wrong_credentials_are_told_with_what_to_set() {
    let (error, _) = answered(|_| Some(Reply::text(401, "You are not authenticated. Please see …")));
    assert!(error.to_string().contains("answered 401: You are not authenticated"), "{error}");
    assert!(error.hint().unwrap().contains("MLFLOW_TRACKING_PASSWORD"));
}

#[test]
fn credentials_are_sent_as_mlflow_sends_them() {
    let scripted = Scripted::start(|_| {
        Some(Reply::json(200, r#"{"experiment":{"experiment_id":"4","lifecycle_stage":"active"}}"#))
    });
    let login = Login::Basic { user: "jane".into(), password: "secret".into() };
    assert_eq!(server(&scripted.url, login).experiment("kidney").unwrap(), "4");
    server(&format!("{}/jane/kidney.mlflow", scripted.url), Login::Bearer("t0ken".into()))
        .experiment("a b")
        .unwrap();
    let requests = scripted.requests();
    // base64 of jane:secret
    assert_eq!(requests[0].authorization.as_deref(), Some("Basic amFuZTpzZWNyZXQ="));
    assert_eq!(requests[0].target, "/api/2.0/mlflow/experiments/get-by-name?experiment_name=kidney");
    assert_eq!(requests[1].authorization.as_deref(), Some("Bearer t0ken"));
    assert!(requests[1].target.starts_with("/jane/kidney.mlflow/api/2.0/mlflow/"), "{}", requests[1].target);
}

#[test]
fn a_foreign_host_is_told_from_a_missing_permission() {
    let (error, _) =
        answered(|_| Some(Reply::text(403, "Invalid Host header - possible DNS rebinding attack detected")));
    assert!(error.hint().unwrap().contains("--allowed-hosts"), "{error}");
    let (error, _) = answered(|_| Some(Reply::text(403, "Permission denied")));
    assert!(matches!(error, ServerError::Forbidden { .. }), "{error}");
    assert!(error.hint().unwrap().contains("permission"));
}

#[test]
fn a_web_page_is_no_answer() {
    let (error, _) = answered(|_| Some(Reply::text(200, "<!doctype html>\n<title>Sign in</title>")));
    assert!(error.to_string().ends_with("no JSON: `<!doctype html> <title>Sign in</title>`"), "{error}");
    assert!(error.hint().unwrap().contains("login page"));
    let (error, _) = answered(|_| Some(Reply::text(404, "<!doctype html><title>404 Not Found</title>")));
    assert!(matches!(error, ServerError::NoEndpoint { .. }), "{error}");
    let (error, _) = answered(|_| Some(Reply::json(200, "{}")));
    assert!(error.to_string().contains("without `experiment.lifecycle_stage`"), "{error}");
}

#[test]
fn a_failing_server_is_asked_three_times() {
    let (error, scripted) = answered(|_| Some(Reply::text(500, "Internal Server Error")));
    assert_eq!(scripted.requests().len(), 3);
    assert!(error.to_string().contains("answered 500 to 3 attempts: Internal Server Error"), "{error}");
    assert!(error.hint().unwrap().contains("nephros runs sync") && error.is_passing());
}

#[test]
fn a_silent_server_and_one_that_hangs_up_are_unreachable() {
    let (error, scripted) = answered(|_| {
        thread::sleep(Duration::from_secs(2));
        None
    });
    assert!(matches!(error, ServerError::Unreachable { attempts: 3, .. }), "{error}");
    assert_eq!(scripted.requests().len(), 3);
    let (error, _) = answered(|_| None);
    assert!(matches!(error, ServerError::Unreachable { .. }), "{error}");
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = server(&format!("http://127.0.0.1:{port}"), Login::None).experiment("kidney").unwrap_err();
    assert!(error.hint().unwrap().contains("MLFLOW_TRACKING_URI"), "{error}");
}

#[test]
fn what_mlflow_refuses_is_told_in_its_words() {
    let body =
        r#"{"error_code": "INVALID_PARAMETER_VALUE", "message": "Changing param values is not allowed."}"#;
    let (error, _) = answered(move |_| Some(Reply::json(400, body)));
    assert!(
        error.to_string().ends_with("INVALID_PARAMETER_VALUE: Changing param values is not allowed."),
        "{error}"
    );
    let deleted = r#"{"experiment":{"experiment_id":"4","lifecycle_stage":"deleted"}}"#;
    let (error, _) = answered(move |_| Some(Reply::json(200, deleted)));
    assert!(matches!(&error, ServerError::ExperimentDeleted { name, .. } if name == "kidney"), "{error}");
    assert!(error.hint().unwrap().contains("MLFLOW_EXPERIMENT_NAME"));
}

/// Answers as an MLflow that knows one run; its artifacts are at `artifacts`.
fn one_run(request: &Request, artifacts: &str) -> Reply {
    let info = format!(
        r#"{{"run_id":"remote","artifact_uri":"{artifacts}","experiment_id":"4","lifecycle_stage":"active"}}"#
    );
    match request.target.split('?').next().unwrap().trim_start_matches("/api/2.0/mlflow/") {
        "experiments/get-by-name" => {
            Reply::json(200, r#"{"experiment":{"experiment_id":"4","lifecycle_stage":"active"}}"#)
        }
        "runs/search" => Reply::json(200, "{}"),
        "runs/create" | "runs/get" => Reply::json(200, &format!(r#"{{"run":{{"info":{info}}}}}"#)),
        path if path.starts_with("logged-models") => Reply::text(404, "<!doctype html>"),
        _ => Reply::json(200, "{}"),
    }
}

#[test]
fn files_that_a_server_does_not_take_stay_and_the_rest_goes() {
    let project = Project::new();
    let (store, run) = project.run();
    store.log_artifact(&run, &project.file("a.txt", "a"), "a.txt").unwrap();
    store.log(&run, Batch { metrics: vec![metric("loss", 0.5, 1)], ..Batch::default() }).unwrap();
    for artifacts in ["s3://bucket/4/remote/artifacts", "mlflow-artifacts:/4/remote/artifacts"] {
        let scripted = Scripted::start(move |request| {
            let refused = request.target.contains("/mlflow-artifacts/");
            Some(if refused { Reply::text(503, "disabled") } else { one_run(request, artifacts) })
        });
        let fed = sync::feed(&store, &server(&scripted.url, Login::None), &run).unwrap();
        // The tags of the beginning, and the metric.
        assert_eq!((fed.sent, fed.left_out), (2, 1));
        assert!(fed.reason.unwrap().contains("takes no files"));
        let logged = scripted.requests().into_iter().filter(|request| request.target.ends_with("log-batch"));
        assert_eq!(logged.count(), 2);
    }
}

#[test]
fn a_model_becomes_a_folder_where_the_server_knows_no_models() {
    let project = Project::new();
    let (store, run) = project.run();
    log_model(&store, &run);
    let scripted = Scripted::start(|request| Some(one_run(request, "mlflow-artifacts:/4/remote/artifacts")));
    sync::feed(&store, &server(&scripted.url, Login::None), &run).unwrap();
    let uploads: Vec<String> = scripted
        .requests()
        .into_iter()
        .filter(|request| request.method == "PUT")
        .map(|request| request.target.trim_start_matches("/api/2.0/mlflow-artifacts/artifacts/").to_owned())
        .collect();
    let expected = ["MLmodel", "bundle/bundle.json", "bundle/weights.safetensors", "data/model.h5"];
    assert_eq!(uploads, expected.map(|file| format!("4/remote/artifacts/model/{file}")));
}

#[test]
fn a_feeding_goes_on_where_the_last_one_broke_off() {
    let project = Project::new();
    let (store, run) = project.run();
    for step in 1..=3 {
        store.log(&run, Batch { metrics: vec![metric("loss", 0.5, step)], ..Batch::default() }).unwrap();
    }
    let broken = |request: &Request| {
        let batch = String::from_utf8_lossy(&request.body).into_owned();
        request.target.ends_with("log-batch") && batch.contains("\"step\":2")
    };
    let repaired = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let works = std::sync::Arc::clone(&repaired);
    let scripted = Scripted::start(move |request| {
        let down = broken(request) && !works.load(std::sync::atomic::Ordering::SeqCst);
        (!down).then(|| one_run(request, "mlflow-artifacts:/4/remote/artifacts"))
    });
    let server = server(&scripted.url, Login::None);
    let error = sync::feed(&store, &server, &run).unwrap_err();
    assert!(matches!(error, SyncError::Server(ServerError::Unreachable { .. })), "{error}");
    assert_eq!(store.unsent_runs(server.url()).unwrap(), [run.as_str()]);
    repaired.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(sync::feed(&store, &server, &run).unwrap().sent, 2);
    assert_eq!(store.unsent_runs(server.url()).unwrap(), [""; 0]);
    assert_eq!(sync::feed(&store, &server, &run).unwrap().sent, 0);
    let steps: Vec<i64> = scripted
        .requests()
        .iter()
        .filter(|request| request.target.ends_with("log-batch"))
        .filter_map(|request| {
            serde_json::from_slice::<serde_json::Value>(&request.body).unwrap()["metrics"][0]["step"].as_i64()
        })
        .collect();
    // Step 2 was tried three times before the repair.
    assert_eq!(steps, [1, 2, 2, 2, 2, 3]);
    let created =
        scripted.requests().iter().filter(|request| request.target.ends_with("runs/create")).count();
    assert_eq!(created, 1);
}

#[test]
fn a_feeder_neither_slows_nor_ends_the_work() {
    let project = Project::new();
    let (store, run) = project.run();
    let (told, heard) = std::sync::mpsc::channel();
    let dead = server("http://127.0.0.1:9", Login::None);
    let feeder =
        Feeder::start(&store, dead, &run, move |error| told.send(error.to_string()).unwrap()).unwrap();
    for step in 1..=50 {
        store.log(&run, Batch { metrics: vec![metric("loss", 0.5, step)], ..Batch::default() }).unwrap();
        feeder.wake();
    }
    assert!(heard.recv_timeout(Duration::from_secs(20)).unwrap().contains("cannot be reached"));
    let error = feeder.finish(Duration::from_secs(20), || false).unwrap_err();
    assert!(matches!(error, SyncError::Server(ServerError::Unreachable { .. })), "{error}");
    assert!(heard.try_recv().is_err(), "told once");
    let scripted = Scripted::start(|request| Some(one_run(request, "mlflow-artifacts:/4/remote/artifacts")));
    let alive = server(&scripted.url, Login::None);
    let (told, heard) = std::sync::mpsc::channel();
    let trouble = move |error: &SyncError| told.send(error.to_string()).unwrap();
    let feeder = Feeder::start(&store, alive, &run, trouble).unwrap();
    let fed = feeder.finish(Duration::from_secs(20), || false).unwrap();
    assert_eq!((fed.sent, fed.remote.as_deref()), (51, Some("remote")));
    assert_eq!(heard.try_iter().collect::<Vec<_>>(), [""; 0], "a server that works gives no trouble");
}

#[test]
fn a_feeder_that_takes_too_long_is_left() {
    let project = Project::new();
    let (store, run) = project.run();
    let scripted = Scripted::start(|request| {
        thread::sleep(Duration::from_millis(300));
        Some(one_run(request, "mlflow-artifacts:/4/remote/artifacts"))
    });
    let slow = server(&scripted.url, Login::None);
    let feeder = Feeder::start(&store, slow, &run, |_| ()).unwrap();
    let error = feeder.finish(Duration::from_millis(100), || false).unwrap_err();
    assert!(matches!(error, SyncError::Late { .. }), "{error}");
    assert_eq!(error.hint().unwrap(), "`nephros runs sync` sends the rest");
}

#[test]
fn a_deleted_copy_is_made_anew_when_asked() {
    let project = Project::new();
    let (store, run) = project.run();
    let deleted = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let gone = std::sync::Arc::clone(&deleted);
    let scripted = Scripted::start(move |request| {
        let reply = one_run(request, "mlflow-artifacts:/4/remote/artifacts");
        let dead = request.target.contains("runs/get") && gone.load(std::sync::atomic::Ordering::SeqCst);
        Some(if dead { Reply(200, "application/json", reply.2.replace("active", "deleted")) } else { reply })
    });
    let server = server(&scripted.url, Login::None);
    sync::feed(&store, &server, &run).unwrap();
    store.log(&run, Batch { metrics: vec![metric("loss", 0.5, 1)], ..Batch::default() }).unwrap();
    deleted.store(true, std::sync::atomic::Ordering::SeqCst);
    let error = sync::feed(&store, &server, &run).unwrap_err();
    assert!(error.to_string().starts_with("run `remote` on"), "{error}");
    assert!(error.hint().unwrap().contains("--anew"));
    store.forget_copy(&run, server.url()).unwrap();
    assert_eq!(sync::feed(&store, &server, &run).unwrap().sent, 2);
}
