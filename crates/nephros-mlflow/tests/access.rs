//! Who may do what on the real MLflow 3: logins, permissions, hosts, and addresses like DagsHub's.
//!
//! Needs the environment of `scripts/setup-interop`; without it the tests say what they leave out, and fail
//! where `CI` is `true`.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod common;

use std::time::Duration;

use common::{
    DAGSHUB, Project, full_run,
    real::{Mlflow, python},
    scripted::{Reply, Scripted, forward},
};
use nephros_mlflow::{
    models::ModelUri,
    registry::{self, Registry as _},
    server::{Patience, Server, ServerError},
    settings::{Address, Login},
    sync::{self, SyncError},
};
use serde_json::{Value, json};

const PASSWORD: &str = "a-long-password";

fn server(url: &str, login: Login) -> Server {
    let patience = Patience { attempts: 3, wait: Duration::from_millis(20), silence: Duration::from_mins(1) };
    Server::new(&Address { url: url.to_owned(), login }, patience)
}

fn basic(user: &str, password: &str) -> Login {
    Login::Basic { user: user.into(), password: password.into() }
}

/// A user who may read what others made, and change nothing of it.
fn make_user(url: &str, name: &str) {
    let pair =
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("admin:{PASSWORD}"));
    let body = json!({ "username": name, "password": PASSWORD }).to_string();
    ureq::post(format!("{url}/api/2.0/mlflow/users/create"))
        .header("authorization", format!("Basic {pair}"))
        .header("content-type", "application/json")
        .send(body.as_str())
        .unwrap();
}

#[test]
fn logins_and_permissions_are_told_apart_and_a_login_gets_everything_through() {
    let Some(python) = python("mlflow3") else { return };
    let project = Project::new();
    let (store, run, model) = full_run(&project);
    let arguments = ["server", "--backend-store-uri", "sqlite:///server.db", "--app-name", "basic-auth"];
    let env = [("MLFLOW_AUTH_ADMIN_PASSWORD", PASSWORD), ("MLFLOW_FLASK_SERVER_SECRET_KEY", "tests")];
    let mlflow = Mlflow::run(&python, &project.path("server"), &arguments, &env);
    let url = mlflow.url();
    for login in [Login::None, basic("admin", "wrong"), basic("nobody", PASSWORD), Login::Bearer("t".into())]
    {
        let error = sync::feed(&store, &server(&url, login.clone()), &run).unwrap_err();
        assert!(
            matches!(&error, SyncError::Server(ServerError::Unauthorized { text, .. }) if text.contains("not authenticated")),
            "{login:?}: {error}"
        );
        assert!(error.hint().unwrap().contains("MLFLOW_TRACKING_PASSWORD"), "{error}");
    }
    below_a_path_like_dagshubs(&project, &url);
    let admin = server(&url, basic("admin", PASSWORD));
    assert_eq!(sync::feed(&store, &admin, &run).unwrap().left_out, 0);
    make_user(&url, "bob");
    let bob = server(&url, basic("bob", PASSWORD));
    let error = sync::feed(&store, &bob, &other_run(&store)).unwrap_err();
    assert!(
        matches!(&error, SyncError::Server(ServerError::Forbidden { text, .. }) if text == "Permission denied"),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("ask for the permission"), "{error}");
    let error = registry::promote(&bob, "VGG16Model", 1, "champion", "bob", false).unwrap_err();
    assert!(error.to_string().contains("403: Permission denied"), "{error}");
    assert!(store.logged_model(&model).unwrap().is_some());
}

fn other_run(store: &nephros_mlflow::store::Store) -> String {
    store.create_run(&common::new_run()).unwrap()
}

/// As on `https://dagshub.com/jane/kidney-ct.mlflow`: every path is below that of the repository, and each
/// request, those of files too, carries user and token.
fn below_a_path_like_dagshubs(project: &Project, behind: &str) {
    let behind = behind.to_owned();
    let proxy = Scripted::start(move |request| {
        let inside = request.target.starts_with(&format!("{DAGSHUB}/api/2.0/mlflow"));
        Some(if inside { forward(&behind, DAGSHUB, request) } else { Reply::text(404, "<!doctype html>") })
    });
    let url = format!("{}{DAGSHUB}", proxy.url);
    let dagshub = server(&url, basic("admin", PASSWORD));
    let store = project.store();
    let run = store.runs(None).unwrap()[0].info.id.clone();
    let fed = sync::feed(&store, &dagshub, &run).unwrap();
    assert_eq!((fed.left_out, fed.busy), (0, false));
    registry::promote(&dagshub, "VGG16Model", 1, "champion", "jane", false).unwrap();
    let source = ModelUri::parse("models:/VGG16Model@champion").unwrap().resolve(&dagshub).unwrap();
    let bundle = dagshub.fetch(&source, &project.path("cache")).unwrap();
    assert_eq!(fs_err::read_to_string(bundle.join("weights.safetensors")).unwrap(), "weights");
    let requests = proxy.requests();
    let admin = requests[0].authorization.clone().unwrap();
    for request in &requests {
        assert_eq!(request.authorization.as_ref(), Some(&admin), "{}", request.target);
        assert!(request.target.starts_with(DAGSHUB), "{}", request.target);
    }
    let files: Vec<&str> = requests
        .iter()
        .filter(|request| request.method == "PUT")
        .map(|request| request.target.as_str())
        .collect();
    let start = format!("{DAGSHUB}/api/2.0/mlflow-artifacts/artifacts/");
    assert!(files.len() >= 5 && files.iter().all(|file| file.starts_with(&start)), "{files:?}");
    assert!(files.iter().any(|file| file.ends_with("/artifacts/plots/roc%20curve.svg")), "{files:?}");
    // An address without its last part is not MLflow's.
    let error = server(&proxy.url, basic("admin", PASSWORD)).experiment("kidney").unwrap_err();
    assert!(matches!(error, ServerError::NoEndpoint { .. }), "{error}");
    assert!(error.hint().unwrap().contains("with its path"), "{error}");
}

#[test]
fn a_server_for_other_hosts_says_how_to_start_it() {
    let Some(python) = python("mlflow3") else { return };
    let project = Project::new();
    let mlflow = Mlflow::start(&python, &project.path("server"), &["--allowed-hosts", "mlflow.example"]);
    let error = server(&mlflow.url(), Login::None).experiment("kidney").unwrap_err();
    assert!(
        matches!(&error, ServerError::Forbidden { text, .. } if text.contains("Invalid Host header")),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("`--allowed-hosts` naming the host"), "{error}");
}

#[test]
fn mlflow_ui_in_the_folder_of_a_store_shows_it() {
    let Some(python) = python("mlflow3") else { return };
    let project = Project::new();
    let (store, run, model) = full_run(&project);
    registry::promote(&store, "VGG16Model", 1, "champion", "jane", false).unwrap();
    drop(store);
    // Nothing says where the store is: `mlflow ui` alone, as a user types it.
    let mlflow = Mlflow::run(&python, project.root(), &["ui"], &[]);
    let get = |path: &str| {
        let text = ureq::get(format!("{}/{path}", mlflow.url())).call().unwrap().body_mut().read_to_string();
        text.unwrap()
    };
    let json = |path: &str| -> Value { serde_json::from_str(&get(path)).unwrap() };
    assert!(get("").contains("<title>MLflow</title>"));
    // The requests of the page itself.
    let shown = json(&format!("ajax-api/2.0/mlflow/runs/get?run_id={run}"));
    assert_eq!(
        (&shown["run"]["info"]["run_name"], &shown["run"]["info"]["status"]),
        (&json!("train"), &json!("FINISHED"))
    );
    let history =
        json(&format!("ajax-api/2.0/mlflow/metrics/get-history?run_id={run}&metric_key=loss&max_results=10"));
    let points: Vec<_> = history["metrics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|point| (&point["step"], &point["value"]))
        .collect();
    assert_eq!(points, [(&json!(1), &json!(2.0)), (&json!(2), &json!(1.0))]);
    let files = json(&format!("ajax-api/2.0/mlflow/artifacts/list?run_id={run}&path=plots"));
    assert_eq!(files["files"][0]["path"], "plots/roc curve.svg");
    assert_eq!(get(&format!("get-artifact?run_uuid={run}&path=plots/roc%20curve.svg")), "<svg/>");
    let logged = json(&format!("ajax-api/2.0/mlflow/logged-models/{model}"));
    assert_eq!(logged["model"]["info"]["status"], "LOGGED_MODEL_READY");
    let registered = json("ajax-api/2.0/mlflow/registered-models/search");
    let registered = &registered["registered_models"][0];
    assert_eq!(registered["name"], "VGG16Model");
    assert_eq!(registered["aliases"], json!([{ "alias": "champion", "version": "1" }]));
}
