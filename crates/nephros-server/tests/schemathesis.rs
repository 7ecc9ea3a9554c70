//! The running server against its own OpenAPI document, tried by schemathesis with drawn requests.
//!
//! Needs the environment `schemathesis` of `scripts/setup-interop`; without it the test says what was left out,
//! and under `CI=true` it fails. `scripts/interop/schemathesis.toml` says how it is run.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use common::{labels, preprocessing, weights};
use nephros_core::{network::Architecture, predictor::Predictor};
use nephros_server::{ServeOptions, Server, Service, Trained, TrainingEvent, TrainingRun};
use support::{RedModel, equipped, png, zip_of};
use tokio::{sync::oneshot, task::spawn_blocking};

#[path = "../../nephros-core/tests/common/mod.rs"]
mod common;
#[allow(dead_code, reason = "the other tests use all of it")]
#[path = "http/support.rs"]
mod support;

const SIZE: [usize; 3] = [32, 32, 3];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A real network that was never trained, a training of no time, and a folder of two images and a zip file.
fn service(batches: &Path) -> Service {
    let network = weights(Architecture::Compact, 2, 0, SIZE);
    let names = labels(&["Normal", "Tumor"]);
    let id = "compact-untrained".to_owned();
    let model =
        Predictor::from_parts(Architecture::Compact, 0, names, preprocessing(SIZE), &network, id).unwrap();
    let trainer = |run: &TrainingRun| {
        run.tell(TrainingEvent::Stage { name: "train".to_owned() });
        Ok(Trained::Serve { model: RedModel::shared("red-9"), notice: None })
    };
    for (name, red) in [("1.png", 10), ("2.png", 250)] {
        fs_err::write(batches.join(name), png(red)).unwrap();
    }
    fs_err::write(batches.join("3.zip"), zip_of(&[("x.png", &png(77))])).unwrap();
    Service {
        model: Some(Arc::new(model)),
        trainer: Some(Arc::new(trainer)),
        batch_root: Some(batches.to_owned()),
        ..equipped()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_does_what_its_document_says() {
    let program = root().join("target/interop/schemathesis/bin/st");
    if !program.exists() {
        let missing = "no schemathesis in `target/interop` (run scripts/setup-interop)";
        assert!(!env::var("CI").is_ok_and(|value| value == "true"), "{missing}");
        println!("left out: the server against its document: {missing}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let service = service(folder.path());
    let options = ServeOptions {
        address: ([127, 0, 0, 1], 0).into(),
        token: Some("right".to_owned()),
        service,
        ..ServeOptions::default()
    };
    let server = Server::bind(options).await.unwrap();
    let document = format!("http://{}/api/v1/openapi.json", server.address());
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(server.run(async {
        let _ = stopped.await;
    }));
    let output = spawn_blocking(move || {
        let config = root().join("scripts/interop/schemathesis.toml");
        let mut command = Command::new(program);
        command.arg("--config-file").arg(config).args([
            "run",
            &document,
            "--no-color",
            "--header",
            "Authorization: Bearer right",
        ]);
        // What it remembers of earlier runs would make the next one another.
        command.current_dir(folder.path()).output().unwrap()
    });
    let output = output.await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    // It found the document and tried what is in it.
    assert!(text.contains("Test cases:") && text.contains("29 selected / 29 total"), "{text}");
}
