//! `repro`, `status`, `dag` and `run` of the built binary, beside the real DVC where it is installed.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]
#![allow(clippy::print_stdout, reason = "what is left out is said")]
#![cfg(unix)]

mod common;

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use common::{Folder, Run, signal};
use serde_json::{Value, json};

fn with_pipeline(pipeline: &str) -> Folder {
    let folder = Folder::new();
    folder.write("dvc.yaml", pipeline);
    folder
}

const TWO: &str =
    "stages:\n  one: {cmd: cp in a, deps: [in], outs: [a]}\n  two: {cmd: cp a b, deps: [a], outs: [b]}\n";

fn succeeds(run: &Run) {
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
}

#[test]
fn what_is_said() {
    let folder = with_pipeline(TWO);
    folder.write("in", "1");
    let dag = folder.run(&["dag"]);
    assert_eq!(dag.stdout, "one\ntwo  <- one\n");
    let status = folder.run(&["status"]);
    let expected = "\
one:
  changed deps:
    new:                in
  changed outs:
    deleted:            a
two:
  changed deps:
    deleted:            a
  changed outs:
    deleted:            b
";
    assert_eq!(status.stdout, expected);
    assert_eq!(folder.run(&["-q", "status"]).code, 1);
    let first = folder.run(&["repro"]);
    succeeds(&first);
    assert_eq!(first.stdout, "");
    let said: Vec<&str> = first.stderr.lines().skip(1).collect();
    let expected =
        ["one: running", "> cp in a", "two: running", "> cp a b", "2 stages run, 0 restored, 0 unchanged"];
    assert_eq!(said, expected);
    let second = folder.run(&["repro"]);
    assert_eq!(second.stderr, "one: unchanged\ntwo: unchanged\neverything is up to date\n");
    assert_eq!(folder.run(&["status"]).stdout, "Data and pipelines are up to date.\n");
    assert_eq!(folder.run(&["-q", "status"]).code, 0);
    folder.write("in", "2");
    let dry = folder.run(&["repro", "two", "--dry"]);
    assert_eq!(
        dry.stderr,
        "one: running\n> cp in a\ntwo: runs if what it reads changes\n1 stages would be run, 0 would be restored, 0 unchanged\n"
    );
}

#[test]
fn failures_have_their_exit_status() {
    let none = Folder::new().run(&["repro"]);
    assert_eq!(none.code, 2, "{}", none.stderr);
    assert!(none.stderr.contains("hint: run this in the folder of a `dvc.yaml`"), "{}", none.stderr);
    let failing = with_pipeline("stages:\n  a: {cmd: echo why >&2; exit 3, outs: [a]}\n").run(&["repro"]);
    assert_eq!(failing.code, 1);
    let expected = "why\nerror: stage `a` failed: `echo why >&2; exit 3` ended with exit status 3\nhint: what it printed";
    assert!(failing.stderr.contains(expected), "{}", failing.stderr);
}

#[test]
fn nephros_in_a_command_is_this_program() {
    let folder = with_pipeline("stages:\n  a: {cmd: nephros --version > version, outs: [version]}\n");
    let run = Run::from(folder.command(&["repro"]).env("PATH", "/usr/bin:/bin").output().unwrap());
    succeeds(&run);
    assert_eq!(folder.read("version"), folder.run(&["--version"]).stdout);
}

#[test]
fn a_stop_reaches_the_command_and_leaves_a_state_to_go_on_from() {
    let folder = with_pipeline("stages:\n  a: {cmd: 'touch begun; sleep 60; touch late', outs: [a]}\n");
    for name in ["INT", "TERM"] {
        let mut child = folder.start(&["repro"]);
        while !folder.path("begun").exists() {
            std::thread::sleep(Duration::from_millis(10));
        }
        signal(&child, name);
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(130), "{name}");
        fs_err::remove_file(folder.path("begun")).unwrap();
        assert!(!folder.path("late").exists() && !folder.path("dvc.lock").exists());
    }
    folder.write("dvc.yaml", "stages:\n  a: {cmd: touch a, outs: [a]}\n");
    succeeds(&folder.run(&["repro"]));
}

#[test]
fn a_killed_run_is_gone_on_from_once_its_command_has_ended() {
    let pipeline = "stages:\n  one: {cmd: echo 1 > a, outs: [a]}\n  two: {cmd: 'touch begun; sleep 4; cp a b', deps: [a], outs: [b]}\n";
    let folder = with_pipeline(pipeline);
    let mut child = folder.start(&["repro"]);
    while !folder.path("begun").exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    signal(&child, "KILL");
    child.wait().unwrap();
    let refused = folder.run(&["repro"]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("another `nephros` is running this pipeline"), "{}", refused.stderr);
    while folder.run(&["-q", "repro"]).code == 1 {
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(folder.read("b"), "1\n");
    assert_eq!(folder.run(&["-q", "status"]).code, 0);
}

/// A project whose images are 40 drawn slices of 20 patients.
fn project() -> Folder {
    let folder = Folder::project();
    let drawn =
        ["phantom", "--patients", "20", "--slices", "2", "--seed", "3", "--size", "64", "--out", "cohort"];
    succeeds(&folder.run(&drawn));
    folder.set("config/config.yaml", "  source_URL", "cohort");
    for (key, value) in [
        ("IMAGE_SIZE", "[64, 64, 3]"),
        ("WEIGHTS", "none"),
        ("OPTIMIZER", "adam"),
        ("LEARNING_RATE", "0.002"),
        ("EPOCHS", "2"),
        ("BATCH_SIZE", "8"),
    ] {
        folder.set("params.yaml", key, value);
    }
    folder
}

#[test]
fn run_leaves_out_what_has_nothing_new_to_read() {
    let folder = project();
    let first = folder.run(&["run"]);
    succeeds(&first);
    for summary in ["40 images (20 Normal, 20 Tumor)", "trained on", "test images"] {
        assert!(first.stdout.contains(summary), "{}", first.stdout);
    }
    assert!(first.stderr.contains("epoch 2/2"), "{}", first.stderr);
    assert_eq!(folder.run(&["status"]).stdout, "Data and pipelines are up to date.\n");
    let scores = folder.read("scores.json");
    agrees_with_dvc(&folder);

    folder.set("params.yaml", "EPOCHS", "1");
    let second = folder.run(&["run"]);
    succeeds(&second);
    for line in [
        "data_ingestion: unchanged",
        "prepare_base_model: unchanged",
        "training: running",
        "evaluation: running",
    ] {
        assert!(second.stderr.contains(line), "{}", second.stderr);
    }
    assert_ne!(folder.read("scores.json"), scores);
    folder.set("params.yaml", "EPOCHS", "2");
    let third = folder.run(&["run"]);
    assert!(third.stderr.contains("0 stages run, 2 restored, 2 unchanged"), "{}", third.stderr);
    assert_eq!(folder.read("scores.json"), scores);
    // What was asked of `run` holds for its stages.
    let json = folder.run(&["--log-format", "json", "repro", "--force", "evaluation"]);
    succeeds(&json);
    assert!(json.stderr.contains("stage evaluate started"), "{}", json.stderr);
    assert!(json.stderr.lines().all(|line| line.starts_with('{')), "{}", json.stderr);
}

/// Real DVC sees nothing to do, and its commands read the results.
fn agrees_with_dvc(folder: &Folder) {
    let dvc = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/interop/dvc/bin/dvc");
    if !dvc.is_file() {
        println!("left out: the project beside the real DVC (run scripts/setup-interop)");
        return;
    }
    let outside = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(dvc.with_file_name("python"));
        command.args(["-m", "dvc"]).args(arguments).current_dir(folder.root());
        command.env("DVC_NO_ANALYTICS", "1").env("DVC_SITE_CACHE_DIR", outside.path());
        let run = Run::from(command.output().unwrap());
        succeeds(&run);
        run.stdout
    };
    assert_eq!(run(&["status"]), "Data and pipelines are up to date.\n");
    let repro = run(&["repro"]);
    assert_eq!(repro.matches("didn't change, skipping").count(), 4, "{repro}");
    assert!(run(&["metrics", "show"]).contains("scores.json"));
    plots_hold_the_points(folder, &run(&["plots", "show", "--json"]));
    run(&["plots", "show"]);
    let page = folder.read("dvc_plots/index.html");
    let points = folder.read("artifacts/evaluation/plots/roc.csv").lines().count() - 1;
    // The page holds its data: twice the points, those of the ROC curve and of the precision-recall curve.
    assert!(page.matches("\"false_positive_rate\": \"").count() >= points, "{page}");
}

/// `dvc plots show` draws every row of our CSV files.
fn plots_hold_the_points(folder: &Folder, shown: &str) {
    let shown: Value = serde_json::from_str(shown).unwrap();
    assert_eq!(shown.get("errors"), None, "{shown}");
    let evaluation = "artifacts/evaluation";
    for (plot, file, series) in [
        ("ROC curve", format!("{evaluation}/plots/roc.csv"), 1),
        ("Precision-recall curve", format!("{evaluation}/plots/pr.csv"), 1),
        ("Reliability", format!("{evaluation}/plots/reliability.csv"), 1),
        ("Abstention", format!("{evaluation}/plots/abstention.csv"), 1),
        ("Confusion matrix", format!("{evaluation}/predictions.csv"), 1),
        ("Loss", "artifacts/training/history.csv".to_owned(), 2),
        ("Accuracy", "artifacts/training/history.csv".to_owned(), 2),
    ] {
        let points = shown["data"][plot][0]["content"]["data"]["values"].as_array().unwrap();
        let text = folder.read(&file);
        let rows: Vec<&str> = text.lines().skip(1).collect();
        assert!(!rows.is_empty(), "{file}");
        assert_eq!(points.len(), series * rows.len(), "{plot}");
        let heads: Vec<&str> = text.lines().next().unwrap().split(',').collect();
        let last: Vec<&str> = rows[rows.len() - 1].split(',').collect();
        for (head, value) in heads.into_iter().zip(last) {
            assert_eq!(points[points.len() - 1][head], value, "{plot}: {head}");
        }
    }
    let picture = &shown["data"]["artifacts/evaluation/plots/roc.svg"][0];
    assert_eq!(picture["type"], "image", "{picture}");
}

#[test]
fn a_training_that_was_stopped_goes_on_in_the_next_run() {
    let folder = project();
    folder.set("params.yaml", "EPOCHS", "6");
    let mut child = folder.command(&["repro", "training"]).stdout(Stdio::null()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut seen = String::new();
    while !seen.contains("epoch 3/6") {
        assert!(stderr.read_line(&mut seen).unwrap() > 0, "it ended early: {seen}");
    }
    signal(&child, "TERM");
    stderr.read_to_string(&mut seen).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{seen}");
    let resumed = folder.run(&["repro", "training"]);
    succeeds(&resumed);
    assert!(
        resumed.stderr.contains("epoch 6/6") && !resumed.stderr.contains("epoch 1/6"),
        "{}",
        resumed.stderr
    );
}

/// Digest of the weights that a training left.
fn weights(folder: &Folder) -> Value {
    let bundle: Value = serde_json::from_str(&folder.read("artifacts/training/bundle/bundle.json")).unwrap();
    bundle["weights_sha256"].clone()
}

/// Kills, as a lack of memory does, the processes in a folder that run `train`, or all of them.
#[cfg(target_os = "linux")]
fn kill_below(folder: &Folder, all: bool) -> usize {
    let root = folder.root().canonicalize().unwrap();
    let mut killed = 0;
    for entry in fs_err::read_dir("/proc").unwrap() {
        let process = entry.unwrap().path();
        let there = fs_err::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == root);
        let cmdline = fs_err::read(process.join("cmdline")).unwrap_or_default();
        let trains = cmdline.split(|byte| *byte == 0).any(|word| word == b"train");
        if there && (all || trains) {
            let pid = process.file_name().unwrap();
            killed += usize::from(Command::new("kill").arg("-KILL").arg(pid).status().unwrap().success());
        }
    }
    killed
}

/// The stage's process is killed, then the whole tree of processes: each time the next `repro` goes on from
/// the checkpoint, and in the end all is as if nothing had happened.
#[cfg(target_os = "linux")]
#[test]
fn a_killed_training_goes_on_in_the_next_repro() {
    let folder = project();
    folder.set("params.yaml", "EPOCHS", "6");
    for (epoch, all) in [(2, false), (4, true)] {
        let mut child = folder.command(&["repro"]).stdout(Stdio::null()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut seen = String::new();
        while !seen.contains(&format!("epoch {epoch}/6")) {
            assert!(stderr.read_line(&mut seen).unwrap() > 0, "it ended early: {seen}");
        }
        assert!(kill_below(&folder, all) > usize::from(all), "{seen}");
        stderr.read_to_string(&mut seen).unwrap();
        let status = child.wait().unwrap();
        if all {
            assert_eq!(status.code(), None, "{seen}");
            assert!(!seen.contains("epoch 1/6"), "it began anew: {seen}");
        } else {
            assert_eq!(status.code(), Some(1), "{seen}");
            assert!(seen.contains("error: stage `training` failed: `nephros train` ended with"), "{seen}");
        }
        let lock = folder.read("dvc.lock");
        assert!(lock.contains("prepare_base_model:") && !lock.contains("training:"), "{lock}");
        assert!(!folder.path("artifacts/training/bundle").exists(), "no model is whole yet");
        assert_eq!(folder.only_run()["status"], "RUNNING");
    }
    let last = folder.run(&["repro"]);
    succeeds(&last);
    assert!(!last.stderr.contains("epoch 3/6") && last.stderr.contains("epoch 6/6"), "{}", last.stderr);
    assert!(last.stderr.contains("2 stages run, 0 restored, 2 unchanged"), "{}", last.stderr);
    let run = folder.only_run();
    assert_eq!(run["status"], "FINISHED");
    for metric in ["train_loss", "validation_loss", "learning_rate"] {
        let points = run["history"][metric].as_array().unwrap();
        let steps: Vec<&Value> = points.iter().map(|point| &point["step"]).collect();
        assert_eq!(json!(steps), json!([1, 2, 3, 4, 5, 6]), "{metric}");
    }
    assert!(run["metrics"]["test_accuracy"].is_number(), "the evaluation is in the same run");
    assert_eq!(folder.run(&["status"]).stdout, "Data and pipelines are up to date.\n");
    agrees_with_dvc(&folder);
    let (killed, lock) = (weights(&folder), folder.read("dvc.lock"));
    let undisturbed = folder.run(&["repro", "training", "--force"]);
    succeeds(&undisturbed);
    assert!(undisturbed.stderr.contains("epoch 1/6"), "{}", undisturbed.stderr);
    assert_eq!(weights(&folder), killed);
    let of = |lock: &str, path: &str| {
        let after = lock.split(&format!("path: {path}\n")).nth(1).unwrap();
        after.lines().nth(1).unwrap().to_owned()
    };
    for path in ["artifacts/training/model.h5", "artifacts/training/bundle/weights.safetensors"] {
        assert_eq!(of(&folder.read("dvc.lock"), path), of(&lock, path), "{path}");
    }
    assert_eq!(folder.lines(&["runs", "list", "--json"]).len(), 2, "a training anew is a run of its own");
}
