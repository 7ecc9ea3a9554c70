//! Log lines: their form, their levels, and where they go.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod common;

use common::Folder;
use regex::Regex;
use serde_json::Value;

/// Reference-system.md, row 12.
const LINE: &str = r"^\[\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2},\d{3}: (INFO|WARNING|ERROR): [a-z_]+\]: .+$";

/// A project whose ingest fails after the configuration was loaded.
fn failing() -> Folder {
    let folder = Folder::project();
    let config = folder.read("config/config.yaml");
    let source = config.lines().find(|line| line.contains("source_URL:")).unwrap();
    folder.write("config/config.yaml", config.replace(source, "  source_URL: nowhere"));
    folder
}

#[test]
fn lines_are_the_references_on_stderr_and_in_the_file() {
    let folder = failing();
    let run = folder.run(&["ingest"]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    let line = Regex::new(LINE).unwrap();
    let log = folder.read("logs/running_logs.log");
    for text in log.lines() {
        assert!(line.is_match(text), "{text}");
    }
    let loaded = "Configuration loaded successfully";
    assert!(run.stderr.contains(loaded) && log.contains(loaded));
    for text in run.stderr.lines().filter(|text| text.starts_with('[')) {
        assert!(line.is_match(text), "{text}");
    }
}

#[test]
fn an_error_is_told_once_on_stderr_and_once_in_the_file() {
    let folder = failing();
    let run = folder.run(&["ingest"]);
    assert_eq!(run.stderr.matches("error: ").count(), 1, "{}", run.stderr);
    assert_eq!(run.stderr.matches("nowhere").count(), 1, "{}", run.stderr);
    let log = folder.read("logs/running_logs.log");
    let errors: Vec<&str> = log.lines().filter(|line| line.contains(": ERROR: ")).collect();
    assert!(errors.len() == 1 && errors[0].contains("nowhere"), "{log}");
}

#[test]
fn json_lines_hold_the_failure_and_its_hint() {
    let folder = failing();
    let run = folder.run(&["--log-format", "json", "ingest"]);
    assert_eq!(run.code, 1);
    for text in [run.stderr, folder.read("logs/running_logs.log")] {
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for line in &lines {
            assert!(["time", "level", "module", "message"].iter().all(|key| line[key].is_string()), "{line}");
        }
        let last = lines.last().unwrap();
        assert_eq!(last["level"], "ERROR");
        assert!(last["message"].as_str().unwrap().contains("nowhere"), "{last}");
        assert!(last["fields"]["hint"].is_string(), "{last}");
    }
}

#[test]
fn verbosity_changes_what_is_logged() {
    let folder = failing();
    let quiet = folder.run(&["-q", "ingest"]);
    assert!(!quiet.stderr.contains("INFO"), "{}", quiet.stderr);
    assert!(folder.read("logs/running_logs.log").contains("INFO"), "the file is for later");
}

#[test]
fn configuration_errors_end_with_2_and_name_the_place() {
    let folder = Folder::new();
    let missing = folder.run(&["run"]);
    assert_eq!(missing.code, 2);
    insta::assert_snapshot!("config_missing", missing.stderr);
    assert!(!folder.path("logs").exists());

    let folder = Folder::project();
    let params = folder.read("params.yaml");
    folder.write("params.yaml", params.replace("EPOCHS:", "EPOCH:"));
    let unknown = folder.run(&["train"]);
    assert_eq!(unknown.code, 2);
    assert!(unknown.stderr.contains("line ") && unknown.stderr.contains("`EPOCH`"), "{}", unknown.stderr);
    assert!(unknown.stderr.contains("hint: did you mean `EPOCHS`?"), "{}", unknown.stderr);
}
