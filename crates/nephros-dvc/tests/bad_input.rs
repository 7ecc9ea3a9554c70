//! Pipelines, locks and files that cannot be used, and what is said about them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]
#![cfg(unix)]

mod common;

use common::Folder;
use nephros_dvc::{Change, DvcError};

const COPY: &str = "stages:\n  a:\n    cmd: cp in out\n    deps: [in]\n    outs: [out]\n";

fn copy() -> Folder {
    Folder::new(COPY, &[("in", "abc\n")])
}

/// What is said about a pipeline, with the hint.
fn complaint(pipeline: &str) -> String {
    let folder = Folder::new(pipeline, &[("in", "abc\n"), ("params.yaml", "A: 1\n")]);
    let error = folder.try_repro().unwrap_err();
    let text = format!("{error} | {}", error.hint().unwrap_or_default());
    assert!(!folder.exists("dvc.lock"), "{text}");
    text
}

#[test]
fn what_is_not_known_is_refused_by_name_and_place() {
    for (pipeline, expected) in [
        ("stages:\n  a:\n    cmd: x\n    dep: [in]\n", ":4:5: unknown key `dep` in a stage"),
        ("stage: {}\n", ":1:1: unknown key `stage` in `dvc.yaml`"),
        ("stages:\n  a:\n    deps: [in]\n", ":2:3: stage `a` has no `cmd`"),
        ("stages:\n  a/b: {cmd: x}\n", ":2:3: `a/b` cannot be the name of a stage"),
        ("stages:\n  a: {cmd: x, outs: [o: {cached: true}]}\n", "unknown key `cached` in `outs`"),
        ("stages:\n  a: {cmd: x, outs: o}\n", "expected a list of paths in `outs`, got a string"),
        ("stages:\n  a: {cmd: x, frozen: 3}\n", "expected true or false"),
        ("stages:\n  a: {cmd: x}\n  a: {cmd: y}\n", ":3:3: `a` stands here a second time, first at 2:3"),
        ("stages:\n  a: {cmd: 'x ${nothing}'}\n", "`${nothing}` stands for nothing"),
        ("stages:\n  a: {cmd: 'x ${A'}\n", "without its `}`"),
        ("stages:\n  a: {foreach: [1], cmd: x}\n", "has `foreach` but no `do`"),
        ("stages:\n  a: [\n", ":"),
        ("- a\n", "expected a mapping of stages and their settings, got a list"),
        ("stages:\n  a: {cmd: x, params: [A, B, C]}\n", "has no parameter `B`, `C`, which stage `a` reads"),
        (
            "stages:\n  a: {cmd: x, params: [params.toml: [A]]}\n",
            "`params.toml`, which stage `a` reads, does not exist",
        ),
    ] {
        let text = complaint(pipeline);
        assert!(text.contains(expected), "{pipeline}: {text}");
    }
}

#[test]
fn paths_stay_in_the_repository() {
    for path in ["../in", "/etc/passwd", "s3://bucket/x", "a/../../x"] {
        for list in ["deps", "outs", "metrics"] {
            let text = complaint(&format!("stages:\n  a: {{cmd: x, {list}: ['{path}']}}\n"));
            assert!(text.contains("leads out of the repository") && text.contains(path), "{text}");
        }
    }
    assert!(complaint("stages:\n  a: {cmd: x, wdir: ../..}\n").contains("leads out of the repository"));
    assert!(complaint("stages:\n  a: {cmd: x, outs: [.]}\n").contains("holds the stage's own folder"));
}

#[test]
fn stages_that_cannot_be_put_in_order() {
    let circle = "stages:\n  a: {cmd: x, deps: [c], outs: [b]}\n  b: {cmd: x, deps: [b], outs: [c]}\n";
    let text = complaint(circle);
    assert!(text.contains(":2:3: the stages `a` -> `b` -> `a` need each other in a circle"), "{text}");
    let own = complaint("stages:\n  a: {cmd: x, deps: [d], outs: [d/x]}\n");
    assert!(own.contains("`a` -> `a`"), "{own}");
    let twice = complaint("stages:\n  a: {cmd: x, outs: [o]}\n  b: {cmd: x, outs: [./o]}\n");
    assert!(twice.contains(":3:22: `o` is an out of stage `b` and, at 2:22, of stage `a`"), "{twice}");
    let inside = complaint("stages:\n  a: {cmd: x, outs: [o]}\n  b: {cmd: x, outs: [o/x]}\n");
    assert!(inside.contains("overlap"), "{inside}");
}

#[test]
fn a_dependency_that_nobody_has_is_told_before_anything_runs() {
    let pipeline = "stages:\n  a: {cmd: touch ran, outs: [ran]}\n  b: {cmd: x, deps: [absent], outs: [o]}\n";
    let folder = Folder::new(pipeline, &[]);
    let error = folder.try_repro().unwrap_err();
    assert_eq!(error.to_string(), "`absent`, which stage `b` reads, does not exist");
    assert!(!folder.exists("ran"));
    folder.write("absent.dvc", "outs: []\n");
    let error = folder.try_repro().unwrap_err();
    assert_eq!(error.hint().unwrap(), "`absent.dvc` tracks it: `dvc pull` fetches it");
}

#[test]
fn commands_that_fail() {
    for (cmd, status, hint) in [
        ("exit 3", "exit status 3", "what it printed stands above"),
        ("no-such-program", "exit status 127", "127 stands for a program that was not found"),
        ("./in", "exit status 126", "126 stands for a file that cannot be run"),
        ("kill -9 $$", "signal 9", "what it printed stands above"),
    ] {
        let folder = Folder::new(&COPY.replace("cp in out", &format!("'{cmd}'")), &[("in", "abc\n")]);
        let error = folder.try_repro().unwrap_err();
        assert_eq!(error.to_string(), format!("stage `a` failed: `{cmd}` ended with {status}"));
        assert!(error.hint().unwrap().starts_with(hint), "{error}");
        folder.write("dvc.yaml", COPY);
        assert_eq!(folder.repro(), ["running a"]);
    }
}

#[test]
fn an_out_that_is_not_written() {
    let folder = copy();
    folder.write("dvc.yaml", COPY.replace("cp in out", "exit 0"));
    let error = folder.try_repro().unwrap_err();
    assert_eq!(error.to_string(), "stage `a` ended well but did not write its out `out`");
    folder.write("dvc.yaml", COPY);
    folder.write(".dvcignore", "/out\n");
    let error = folder.try_repro().unwrap_err();
    assert!(error.to_string().contains("left out by `.dvcignore`"), "{error}");
}

#[test]
fn a_lock_from_windows_is_read() {
    let folder = copy();
    folder.repro();
    let lock = folder.read("dvc.lock").replace('\n', "\r\n");
    folder.write("dvc.lock", &lock);
    folder.write("dvc.yaml", COPY.replace('\n', "\r\n"));
    assert_eq!(folder.changed(), [""; 0]);
    // git on Windows gave the file other line ends, and DVC there recorded those.
    let there = nephros_dvc::digest::Md5Sum::of(b"abc\r\n").to_string();
    let here = nephros_dvc::digest::Md5Sum::of(b"abc\n").to_string();
    folder.write("dvc.lock", lock.replacen(&here, &there, 1));
    let status = folder.try_status().unwrap();
    assert_eq!(status[0].deps, [("in".to_owned(), Change::LineEnds)]);
    assert_eq!(folder.repro(), ["restored a"]);
    assert!(!folder.read("dvc.lock").contains('\r'));
}

#[test]
fn a_lock_that_was_edited_by_hand() {
    let folder = copy();
    folder.repro();
    let lock = folder.read("dvc.lock");
    let sum = nephros_dvc::digest::Md5Sum::of(b"abc\n").to_string();
    for (text, expected) in [
        (lock.replace("'2.0'", "'3.0'"), "expected schema '2.0', got '3.0'"),
        (lock.replace("'2.0'", "2.0"), "expected schema '2.0', got the number 2.0"),
        (lock.replace("schema: '2.0'\n", ""), "expected schema '2.0', got none"),
        (lock.replacen(&sum, &sum[1..], 1), ":8:12: expected 32 hexadecimal digits"),
        (lock.replace("size: 4", "size: much"), "`size` is no number of bytes or files"),
        (lock.replace("    cmd: cp in out\n", ""), "the stage has no `cmd`"),
        (lock.replace("hash: md5", "hash: blake3"), "expected the hash `md5`"),
        (lock.replace("    deps:", "<<<<<<< HEAD\n    deps:"), ":"),
        (lock.replace("size", "sizes"), "unknown key `sizes`"),
        ("a: b: c".to_owned(), ":"),
        ("[]".to_owned(), "expected a mapping, got a list"),
    ] {
        folder.write("dvc.lock", &text);
        let error = folder.try_repro().unwrap_err();
        assert!(
            matches!(error, DvcError::Lock(_)) && error.to_string().contains(expected),
            "{text}: {error}"
        );
        assert!(error.hint().unwrap().contains("delete the file"), "{error}");
        assert_eq!(folder.read("dvc.lock"), text, "it is left as it was");
    }
    // What the hint says.
    folder.remove("dvc.lock");
    assert_eq!(folder.repro(), ["restored a"]);
    assert_eq!(folder.read("dvc.lock"), lock);
}

#[test]
fn names_that_are_no_text() {
    use std::os::unix::ffi::OsStrExt as _;
    let folder = Folder::new("stages:\n  a: {cmd: mkdir d; touch d/x, outs: [d]}\n", &[]);
    folder.repro();
    let name = std::ffi::OsStr::from_bytes(b"\xff.jpg");
    if std::fs::File::create_new(folder.path("d").join(name)).is_err() {
        println!("left out: a name that is not UTF-8 (this disk has none)");
        return;
    }
    let error = folder.try_status().unwrap_err();
    assert!(error.to_string().contains("the name is not UTF-8"), "{error}");
}

#[test]
fn links_pipes_and_folders_that_say_what_counts() {
    let folder =
        Folder::new("stages:\n  a: {cmd: mkdir d; cp in d/x, deps: [in], outs: [d]}\n", &[("in", "1")]);
    folder.repro();
    let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, folder.path(name)).unwrap();
    // A link to a file is the file, a link to a folder does not count.
    folder.remove("d/x");
    link("../in", "d/x");
    link("..", "d/up");
    assert_eq!(folder.changed(), [""; 0]);
    link("nowhere", "d/broken");
    let error = folder.try_status().unwrap_err();
    assert!(error.to_string().contains("is a link to something that does not exist"), "{error}");
    folder.remove_link("d/broken");
    let status = std::process::Command::new("mkfifo").arg(folder.path("d/pipe")).status().unwrap();
    assert!(status.success());
    let error = folder.try_status().unwrap_err();
    assert!(error.to_string().contains("is neither a file nor a folder"), "{error}");
    folder.remove_link("d/pipe");
    folder.write("d/.dvcignore", "*.tmp\n");
    let error = folder.try_status().unwrap_err();
    assert!(error.to_string().contains("lies inside a folder that is tracked"), "{error}");
}

#[test]
fn parameters_in_formats_that_are_not_read() {
    let pipeline = "stages:\n  a: {cmd: x, params: [params.toml: [A]]}\n";
    let folder = Folder::new(pipeline, &[("params.toml", "A = 1\n")]);
    let error = folder.try_repro().unwrap_err();
    assert!(error.to_string().contains("parameters in `.toml` files are not supported"), "{error}");
}

#[test]
fn a_folder_without_a_pipeline() {
    let folder = copy();
    folder.remove("dvc.yaml");
    let error = folder.try_repro().unwrap_err();
    assert!(
        error.to_string().starts_with("found no `") && error.hint().unwrap().contains("nephros init"),
        "{error}"
    );
    assert!(!folder.exists(".dvc"));
}
