//! `nephros audit` as its user meets it.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod common;

use common::{Folder, model::save_bundle};

fn cohort() -> Folder {
    let folder = Folder::new();
    let drawn =
        ["phantom", "--patients", "6", "--slices", "3", "--seed", "2", "--size", "64", "--out", "set"];
    assert_eq!(folder.run(&drawn).code, 0);
    folder
}

#[test]
fn json_has_these_keys() {
    let folder = cohort();
    let run = folder.run(&["-q", "audit", "set", "--json"]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    // The patients are known by the CSV beside the class folders.
    insta::assert_snapshot!(run.stdout, @r#"{"images":18,"exact_duplicates":0,"groups":6,"largest_group":3,"conflicts":0,"groups_file":"artifacts/audit/groups.csv"}"#);
    let groups = folder.read("artifacts/audit/groups.csv");
    assert!(groups.starts_with("path,class,group,known_patient,reason,conflict\nNormal/Normal- (1).jpg,Normal,G001,P001,patient,\n"), "{groups}");
    assert_eq!(groups.lines().count(), 1 + 18);
}

#[test]
fn the_text_and_the_file_to_write() {
    let folder = cohort();
    let run = folder.run(&["-q", "audit", "set", "--out", "found.csv"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.contains("18 images, 6 known patients"), "{}", run.stdout);
    assert!(run.stdout.ends_with("groups written to `found.csv`\n"), "{}", run.stdout);
    assert!(folder.path("found.csv").exists() && !folder.path("artifacts").exists());
}

#[test]
fn what_cannot_be_audited_is_told() {
    let folder = Folder::new();
    folder.write("empty/read.me", "x");
    folder.write("notes.txt", "x");
    let texts = ["empty", "nowhere", "notes.txt"].map(|path| {
        let run = folder.run(&["-q", "audit", path]);
        assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{path}");
        run.stderr
    });
    assert!(!folder.path("artifacts").exists());
    insta::assert_snapshot!(texts.concat());
}

#[test]
fn the_features_of_a_model_are_further_evidence() {
    let folder = cohort();
    save_bundle(&folder.path("model"));
    // Nobody knows the patients now.
    fs_err::remove_file(folder.path("set/patients.csv")).unwrap();
    let groups = |arguments: &[&str]| {
        let run = folder.run(&[&["-q", "audit", "set"], arguments].concat());
        assert_eq!(run.code, 0, "{}", run.stderr);
        (run.stdout, folder.read("artifacts/audit/groups.csv").lines().count())
    };
    let (plain, lines) = groups(&[]);
    assert!(!plain.contains("the model's features"), "{plain}");
    let (seen, same) = groups(&["--model", "model"]);
    assert!(seen.contains("the model's features joined "), "{seen}");
    assert_eq!(lines, same);
    let missing = folder.run(&["audit", "set", "--model", "nowhere"]);
    assert_eq!(missing.code, 1);
}
