//! `init`: a new project, an old one, and a place where none can be.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod common;

use common::Folder;

const FILES: [&str; 6] =
    ["config/config.yaml", "params.yaml", "dvc.yaml", ".gitignore", ".dvcignore", "README.md"];

#[test]
fn a_new_project_and_then_an_old_one() {
    let folder = Folder::new();
    let first = folder.run(&["init", "kidneys"]);
    assert_eq!(first.code, 0);
    insta::assert_snapshot!("init_new", format!("{}---\n{}", first.stdout, first.stderr));
    for file in FILES {
        assert!(folder.path("kidneys").join(file).is_file(), "{file}");
    }
    assert!(!folder.path("kidneys/logs").exists());

    let second = folder.run(&["init", "kidneys"]);
    assert_eq!(second.code, 0);
    insta::assert_snapshot!("init_complete", format!("{}---\n{}", second.stdout, second.stderr));
}

#[test]
fn only_what_is_missing_is_added() {
    let folder = Folder::project();
    folder.write("params.yaml", "mine");
    fs_err::remove_file(folder.path("README.md")).unwrap();
    let run = folder.run(&["init"]);
    assert_eq!(run.code, 0);
    insta::assert_snapshot!("init_incomplete", format!("{}---\n{}", run.stdout, run.stderr));
    assert_eq!(folder.read("params.yaml"), "mine");
    assert!(folder.path("README.md").is_file());
}

#[test]
fn what_shapes_the_network_prepares_it_anew() {
    let pipeline = Folder::project().read("dvc.yaml");
    let (_, stage) = pipeline.split_once("  prepare_base_model:").unwrap();
    let (stage, _) = stage.split_once("  training:").unwrap();
    for key in ["ARCHITECTURE", "CLASSES", "HIDDEN_UNITS", "IMAGE_SIZE", "POOLING"] {
        assert!(stage.contains(&format!("      - {key}\n")), "{key}");
    }
}

#[test]
fn a_file_is_no_place_for_a_project() {
    let folder = Folder::new();
    folder.write("taken", "");
    let run = folder.run(&["init", "taken"]);
    assert_eq!(run.code, 1);
    insta::assert_snapshot!("init_file", run.stderr);
}
