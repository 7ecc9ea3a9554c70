//! Registered models: who becomes champion, the names that commands take, and real servers of MLflow.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]
#![cfg(unix)]

mod common;

use std::{path::Path, process::Command};

use common::{
    Folder, Run,
    mlflow::{Mlflow, python, root},
    server::{Server, post},
};
use nephros_core::predictor::Predictor;
use serde_json::{Value, json};

const CHAMPION: &str = "models:/VGG16Model@champion";

fn done(run: Run) -> Run {
    assert_eq!(run.code, 0, "{}", run.stderr);
    run
}

/// Trains and evaluates; gives the name of the model.
fn train(folder: &Folder) -> String {
    for stage in ["train", "evaluate"] {
        done(folder.run(&[stage]));
    }
    let scores: Value = serde_json::from_str(&folder.read("scores.json")).unwrap();
    assert_eq!(scores["gate"]["passed"], true, "{}", scores["gate"]);
    scores["model"].as_str().unwrap().to_owned()
}

/// A project with one trained model that passed the gate, and that model's name.
fn trained() -> (Folder, String) {
    let folder = Folder::easy_project();
    for stage in ["ingest", "prepare"] {
        done(folder.run(&[stage]));
    }
    let model = train(&folder);
    (folder, model)
}

/// The model that answers where `model` is named.
fn answering(folder: &Folder, model: &str) -> Value {
    folder.lines(&["predict", "--json", "--model", model, "cohort/Tumor/0.bmp"])[0]["model"].clone()
}

#[test]
fn champions_come_and_go_and_the_registry_remembers() {
    let (folder, first) = trained();
    let versions = folder.lines(&["models", "list", "--json"]);
    assert_eq!(
        (versions.len(), &versions[0]["version"]),
        (1, &json!(1)),
        "a model that passes is registered"
    );
    assert_eq!(versions[0]["aliases"], json!([]), "and promoted by nobody but the user");
    done(folder.run(&["models", "promote", "1"]));
    assert_eq!(answering(&folder, CHAMPION), first);

    folder.set("params.yaml", "EPOCHS", "8");
    let second = train(&folder);
    assert_ne!(second, first);
    assert_eq!(answering(&folder, CHAMPION), first, "a new version changes nothing yet");
    done(folder.run(&["models", "promote", "2", "--alias", "challenger"]));
    assert_eq!(answering(&folder, "models:/VGG16Model@challenger"), second);
    done(folder.run(&["models", "promote", "2"]));
    assert_eq!(answering(&folder, CHAMPION), second);
    assert_eq!(answering(&folder, "models:/VGG16Model/Archived"), first);
    assert_eq!(answering(&folder, "models:/VGG16Model/Production"), second);

    // Back to the one before.
    done(folder.run(&["models", "promote", "1"]));
    assert_eq!(answering(&folder, CHAMPION), first);
    let server = Server::start(&folder, &["--model", CHAMPION]);
    let slice = fs_err::read(folder.path("cohort/Tumor/0.bmp")).unwrap();
    let answer = post(&server.address, "/api/v1/predictions", "image/bmp", &slice);
    assert!(answer.contains(&format!("\"model\":\"{first}\"")), "{answer}");
    server.stop();

    done(folder.run(&["models", "demote"]));
    let gone = folder.run(&["serve", "--port", "0", "--model", CHAMPION]);
    assert_eq!(gone.code, 1);
    assert!(gone.stderr.contains("no version of model `VGG16Model` is `champion`"), "{}", gone.stderr);
    let history = folder.lines(&["models", "history", "--json"]);
    let told: Vec<Value> = history
        .iter()
        .map(|change| json!([change["action"], change["version"], change["alias"], change["instead_of"]]))
        .collect();
    let expected = json!([
        ["registered", 1, null, null],
        ["promoted", 1, "champion", null],
        ["registered", 2, null, null],
        ["promoted", 2, "challenger", null],
        ["promoted", 2, "champion", 1],
        ["promoted", 1, "champion", 2],
        ["demoted", 1, "champion", null],
    ]);
    assert_eq!(json!(told), expected);
    assert!(history.iter().all(|change| change["forced"] == false), "{history:?}");
    let times: Vec<i64> = history.iter().map(|change| change["time_ms"].as_i64().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn every_command_takes_every_name_of_a_model() {
    let (folder, model) = trained();
    done(folder.run(&["models", "promote", "1"]));
    // What is named is the registry's, not what lies in the project.
    let run = folder.only_run();
    let logged = fs_err::read_dir(folder.path("mlruns/1/models")).unwrap().next().unwrap().unwrap();
    fs_err::rename(folder.path("artifacts/training"), folder.path("elsewhere")).unwrap();
    let names = [
        CHAMPION.to_owned(),
        "models:/VGG16Model/1".to_owned(),
        "models:/VGG16Model/Production".to_owned(),
        "models:/VGG16Model/latest".to_owned(),
        format!("models:/{}", logged.file_name().to_str().unwrap()),
        format!("runs:/{}/model", run["id"].as_str().unwrap()),
    ];
    let commands: [(&[&str], &str); 5] = [
        (&["predict", "--json", "cohort/Tumor/0.bmp"], "model"),
        (&["explain", "--json", "cohort/Tumor/0.bmp", "--out", "explained"], ""),
        (&["export", "--format", "safetensors", "--json", "--out", "exported.safetensors"], "model"),
        (&["quantize", "--json", "--calibrate", "cohort", "--out", "quantized", "--tolerance", "1"], ""),
        (&["audit", "--json", "cohort"], ""),
    ];
    for name in &names {
        for (command, key) in &commands {
            let answer = folder.lines(&[command, &["--model", name][..]].concat()).remove(0);
            if !key.is_empty() {
                assert_eq!(answer[key], model.as_str(), "{command:?} {name}: {answer}");
            }
        }
        assert!(folder.path("quantized/bundle.json").is_file(), "{name}");
        fs_err::remove_dir_all(folder.path("quantized")).unwrap();
        let server = Server::start(&folder, &["--model", name]);
        server.stop();
    }
    for (command, _) in commands.iter().chain([&(&["serve", "--port", "0"][..], "")]) {
        for (name, text) in [
            ("models:/VGG16Model@nobody", "no version of model `VGG16Model` is `nobody`"),
            ("models:/VGG16Model/9", "model `VGG16Model` has no version 9"),
            ("models:/Other/1", "found no registered model `Other`"),
            ("runs:/3f6c/model", "3f6c"),
        ] {
            let run = folder.run(&[command, &["--model", name][..]].concat());
            assert_eq!(run.code, 1, "{command:?} {name}: {}", run.stderr);
            assert!(
                run.stderr.contains(text) && run.stderr.contains("hint: "),
                "{command:?}: {}",
                run.stderr
            );
        }
        let run = folder.run(&[command, &["--model", "models:/VGG16Model"][..]].concat());
        assert_eq!(run.code, 2, "{command:?}: {}", run.stderr);
    }
}

/// The images of `scripts/interop/fixed_input.py`.
fn fixed_input(shape: [usize; 3], count: usize) -> Vec<f32> {
    let length: usize = shape.iter().product();
    let values = (0..count * length).map(|position| {
        let value = (position as u64 * 2_654_435_761 % (1 << 32)) >> 12;
        let strength = 0.5_f32.powi((position / length) as i32);
        (value as f32 / (1 << 19) as f32 - 1.0) * strength
    });
    values.collect()
}

/// What the bundle itself says of the fixed images, as its network says it.
fn ours(folder: &Folder) -> Vec<Vec<f64>> {
    let bundle = folder.path("artifacts/training/bundle");
    let predictor = Predictor::load(&bundle, None).unwrap().uncalibrated();
    let predictions = predictor.predict_input(&fixed_input([64, 64, 3], 3), 3).unwrap();
    predictions.iter().map(|one| one.probabilities.iter().map(|&p| f64::from(p)).collect()).collect()
}

/// What MLflow's own client says of them, by each name of the model.
fn theirs(python: &Path, folder: &Folder, url: &str, names: &[&str]) -> Value {
    let script = root().canonicalize().unwrap().join("scripts/interop/mlflow_load.py");
    let mut command = Command::new(python);
    command.arg(script).args([url, "64", "64"]).args(names).current_dir(folder.root());
    let run = Run::from(command.output().unwrap());
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    serde_json::from_str(run.stdout.lines().last().unwrap()).unwrap()
}

/// A model goes to a server of MLflow, becomes champion there, and is loaded by all its names: by MLflow, which
/// predicts what we predict, and by us.
fn on_a_server(environment: &str) {
    let Some(python) = python(environment) else { return };
    let (folder, model) = trained();
    let outside = tempfile::tempdir().unwrap();
    let mlflow = Mlflow::start(&python, &outside.path().join("server"), &[]);
    let with_server = |arguments: &[&str]| {
        let mut command = folder.command(arguments);
        command.env("MLFLOW_TRACKING_URI", mlflow.url()).env("NEPHROS_CACHE", outside.path().join("cache"));
        done(Run::from(command.output().unwrap()))
    };
    with_server(&["runs", "sync"]);
    with_server(&["models", "promote", "1"]);
    let listed = with_server(&["models", "list", "--json"]).stdout;
    let version: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((&version["aliases"], &version["stage"]), (&json!(["champion"]), &json!("Production")));
    let run = format!("runs:/{}/model", version["run"].as_str().unwrap());
    let names = [CHAMPION, "models:/VGG16Model/1", "models:/VGG16Model/Production", &run];
    let (ours, theirs) = (ours(&folder), theirs(&python, &folder, &mlflow.url(), &names));
    for name in names {
        let rows: Vec<Vec<f64>> = serde_json::from_value(theirs[name].clone()).unwrap();
        assert_eq!(rows.len(), ours.len());
        for (ours, theirs) in ours.iter().flatten().zip(rows.iter().flatten()) {
            assert!((ours - theirs).abs() < 1e-5, "{name}: we say {ours}, MLflow says {theirs}");
        }
        let predicted = with_server(&["predict", "--json", "--model", name, "cohort/Tumor/0.bmp"]).stdout;
        let answer: Value = serde_json::from_str(&predicted).unwrap();
        assert_eq!((&answer["model"], &answer["label"]), (&json!(model), &json!("Tumor")), "{name}");
    }
    // Its gate goes with it: what was downloaded is served without --force.
    let cached = fs_err::read_dir(outside.path().join("cache/models")).unwrap().count();
    assert_eq!(cached, 1, "one content is downloaded once");
    let history = with_server(&["models", "history", "--json"]).stdout;
    assert_eq!(history.lines().count(), 2, "{history}");
}

#[test]
fn a_server_of_mlflow_3_has_a_champion() {
    on_a_server("mlflow3");
}

#[test]
fn a_server_of_mlflow_2_has_a_champion() {
    on_a_server("mlflow2");
}
