//! Ctrl-C during work, and a server's life from its first line to its last.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]
#![cfg(unix)]

mod common;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStderr},
};

use common::{Folder, signal};

/// Lines of stderr up to the first that contains `text`.
fn wait_for(stderr: &mut BufReader<ChildStderr>, text: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(text) {
        assert!(stderr.read_line(&mut seen).unwrap() > 0, "`{text}` never came: {seen}");
    }
    seen
}

fn stderr(child: &mut Child) -> BufReader<ChildStderr> {
    BufReader::new(child.stderr.take().unwrap())
}

#[test]
fn ctrl_c_stops_work_cleanly() {
    let folder = Folder::new();
    let arguments = ["phantom", "--patients", "20000", "--slices", "10", "--seed", "1", "--out", "cohort"];
    let mut child = folder.start(&[&arguments[..], &["--size", "64", "-vv"]].concat());
    while !folder.path("cohort").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended early");
        std::thread::yield_now();
    }
    signal(&child, "INT");
    let run = common::Run::from(child.wait_with_output().unwrap());
    assert_eq!(run.code, 130, "{}", run.stderr);
    assert!(run.stderr.contains("press Ctrl-C again to abort"), "{}", run.stderr);
    assert!(run.stderr.contains("stopped on request") && !run.stderr.contains("error:"), "{}", run.stderr);
    assert!(!folder.path("cohort").exists(), "half a cohort was left");
}

#[test]
fn a_server_says_where_it_is_answers_and_ends_in_good_order() {
    for name in ["INT", "TERM"] {
        let folder = Folder::project();
        let mut child = folder.start(&["serve", "--port", "0"]);
        let mut stderr = stderr(&mut child);
        let seen = wait_for(&mut stderr, "listening on http://127.0.0.1:");
        assert!(seen.contains("WARNING: serve]: no model yet"), "{seen}");
        let address = seen.split("listening on http://").nth(1).unwrap().lines().next().unwrap();
        let mut connection = TcpStream::connect(address).unwrap();
        connection
            .write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
        signal(&child, name);
        assert_eq!(child.wait().unwrap().code(), Some(0), "{name}");
    }
}

#[test]
fn a_server_refuses_what_cannot_be_served() {
    let folder = Folder::project();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for command in ["serve", "demo"] {
        let run = folder.run(&[command, "--port", &port]);
        assert_eq!(run.code, 1, "{command}");
        assert!(
            run.stderr.contains(&format!("error: cannot listen on `127.0.0.1:{port}`")),
            "{}",
            run.stderr
        );
        assert!(run.stderr.contains("hint: another program listens there"), "{}", run.stderr);
    }
    let open = folder.run(&["serve", "--host", "0.0.0.0", "--port", "0"]);
    assert_eq!(open.code, 2);
    insta::assert_snapshot!("unprotected", error_of(&open.stderr));
    let token = folder.command(&["serve", "--port", "0"]).env("NEPHROS_TOKEN", "").output().unwrap();
    assert_eq!(token.status.code(), Some(2));
    let elsewhere = folder.run(&["serve", "--host", "no such host"]);
    assert_eq!(elsewhere.code, 1);
    assert!(elsewhere.stderr.contains("error: `no such host` is no address"), "{}", elsewhere.stderr);
    let nowhere = Folder::new().run(&["serve"]);
    assert_eq!(nowhere.code, 1);
    assert!(nowhere.stderr.contains("error: found no model"), "{}", nowhere.stderr);
}

/// From `error:` on, without the log lines before it.
fn error_of(stderr: &str) -> &str {
    &stderr[stderr.find("error: ").unwrap()..]
}
