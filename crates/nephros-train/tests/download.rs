//! Downloads over connections that break, servers that lie and files that are not what they should.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

#[allow(dead_code, reason = "shared between test files")]
mod scripted_server;

use std::path::PathBuf;

use nephros_core::{digest, hint::Hint};
use nephros_train::{
    ingest::download::{Checksum, DownloadError, Downloaded},
    progress::{Progress, Silent, Task, Unit},
};
use scripted_server::{Reply, Request, Server, impatient};

struct Place {
    folder: tempfile::TempDir,
    file: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { file: folder.path().join("weights.h5"), folder }
    }

    fn get(&self, server: &Server, checksum: Option<&Checksum>) -> Result<Downloaded, DownloadError> {
        impatient().download(&format!("{}/f", server.base), &self.file, checksum, &Silent)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs_err::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn body() -> Vec<u8> {
    (0..300_000_u32).map(|index| (index * 7 % 251) as u8).collect()
}

/// A server that keeps to RFC 9110 for one file of one version.
fn serve(request: &Request, body: &[u8], etag: &str) -> Reply {
    let same = request.header("if-range").is_none_or(|validator| validator == etag);
    match request.range_start().filter(|_| same) {
        Some(start) if start >= body.len() => {
            Reply::new(416, "").header("Content-Range", format!("bytes */{}", body.len()))
        }
        Some(start) => Reply::new(206, &body[start..])
            .header("ETag", etag)
            .header("Content-Range", format!("bytes {start}-{}/{}", body.len() - 1, body.len())),
        None => Reply::new(200, body).header("ETag", etag),
    }
}

#[test]
fn a_cut_download_resumes_where_it_broke() {
    let server = Server::start(|request, _| {
        let reply = serve(request, &body(), "\"v1\"");
        if request.number < 2 { reply.cut(100_000) } else { reply }
    });
    let place = Place::new();
    let downloaded = place.get(&server, None).unwrap();
    assert_eq!(fs_err::read(&place.file).unwrap(), body());
    assert_eq!((downloaded.bytes, downloaded.sha256), (300_000, digest::sha256(&body())));
    assert_eq!(server.requests(), ["/f", "/f [bytes=100000-]", "/f [bytes=200000-]"]);
    assert_eq!(place.names(), ["weights.h5"]);
}

#[test]
fn a_later_run_resumes_too() {
    let server = Server::start(|request, _| {
        let reply = serve(request, &body(), "\"v1\"");
        if request.number < 3 { reply.cut(50_000) } else { reply }
    });
    let place = Place::new();
    let error = place.get(&server, None).unwrap_err();
    assert!(matches!(error, DownloadError::Truncated { expected: 300_000, got: 150_000, .. }), "{error:?}");
    assert_eq!(place.names(), ["weights.h5.part", "weights.h5.part.origin"]);
    place.get(&server, None).unwrap();
    assert_eq!(fs_err::read(&place.file).unwrap(), body());
    assert_eq!(server.requests()[3], "/f [bytes=150000-]");
}

#[test]
fn a_changed_file_starts_over() {
    let server = Server::start(|request, _| {
        if request.number == 0 {
            serve(request, &vec![1; 200_000], "\"v1\"").cut(100_000)
        } else {
            serve(request, &body(), "\"v2\"")
        }
    });
    let place = Place::new();
    place.get(&server, None).unwrap();
    assert_eq!(fs_err::read(&place.file).unwrap(), body());
}

#[test]
fn without_a_validator_nothing_is_glued_together() {
    let server = Server::start(|request, _| {
        let reply = Reply::new(200, body());
        if request.number == 0 { reply.cut(100_000) } else { reply }
    });
    let place = Place::new();
    place.get(&server, None).unwrap();
    assert_eq!(fs_err::read(&place.file).unwrap(), body());
    assert_eq!(server.requests(), ["/f", "/f"]);
}

#[test]
fn a_part_that_is_whole_already_is_accepted() {
    let server = Server::start(|request, _| serve(request, &body(), "\"v1\""));
    let place = Place::new();
    fs_err::write(place.folder.path().join("weights.h5.part"), body()).unwrap();
    let origin = format!("{}/f\n\"v1\"", server.base);
    fs_err::write(place.folder.path().join("weights.h5.part.origin"), origin).unwrap();
    place.get(&server, None).unwrap();
    assert_eq!(fs_err::read(&place.file).unwrap(), body());
    assert_eq!(server.requests(), ["/f [bytes=300000-]"]);
}

#[test]
fn bytes_of_an_earlier_run_that_turn_out_wrong_are_fetched_again() {
    let server = Server::start(|request, _| serve(request, &body(), "\"v1\""));
    let place = Place::new();
    fs_err::write(place.folder.path().join("weights.h5.part"), [9; 1000]).unwrap();
    let origin = format!("{}/f\n\"v1\"", server.base);
    fs_err::write(place.folder.path().join("weights.h5.part.origin"), origin).unwrap();
    place.get(&server, Some(&Checksum::Sha256(digest::sha256(&body())))).unwrap();
    assert_eq!(server.requests(), ["/f [bytes=1000-]", "/f"]);
}

#[test]
fn checksums_are_kept_to() {
    let server = Server::start(|_, _| Reply::new(200, "abc").header("ETag", "\"v\""));
    // SHA-256 and MD5 of "abc": FIPS 180-4 appendix, RFC 1321 appendix A.5.
    let right = [
        Checksum::Sha256("BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD".into()),
        Checksum::Sha256Prefix("ba7816bf".into()),
        Checksum::Md5("900150983cd24fb0d6963f7d28e17f72".into()),
    ];
    for checksum in &right {
        Place::new().get(&server, Some(checksum)).unwrap();
    }
    for checksum in [
        Checksum::Sha256("ba7816bf".into()),
        Checksum::Sha256Prefix("ba7816be".into()),
        Checksum::Sha256Prefix(String::new()),
        Checksum::Md5("900150983cd24fb0d6963f7d28e17f73".into()),
    ] {
        let place = Place::new();
        fs_err::write(&place.file, "older").unwrap();
        let error = place.get(&server, Some(&checksum)).unwrap_err();
        assert!(matches!(error, DownloadError::Checksum { .. }), "{error:?}");
        assert_eq!(fs_err::read_to_string(&place.file).unwrap(), "older");
        assert_eq!(place.names(), ["weights.h5"]);
    }
}

#[test]
fn a_file_that_is_there_with_its_checksum_is_not_asked_for() {
    let server = Server::start(|_, _| Reply::new(500, ""));
    let place = Place::new();
    fs_err::write(&place.file, "abc").unwrap();
    place.get(&server, Some(&Checksum::Sha256Prefix("ba7816bf".into()))).unwrap();
    assert!(server.requests().is_empty());
}

#[test]
fn what_is_not_the_file_is_told() {
    let told = |reply: fn() -> Reply, requests: usize| {
        let server = Server::start(move |_, _| reply());
        let place = Place::new();
        let error = place.get(&server, None).unwrap_err();
        assert_eq!(server.requests().len(), requests);
        assert!(!place.file.exists());
        format!("error: {error}\nhint: {}", error.hint().unwrap())
            .replace(&server.base, "http://server")
            .replace(&place.folder.path().display().to_string(), "DIR")
    };
    let texts = [
        told(|| Reply::page(200, "<!DOCTYPE html><title>Log in to\n the portal</title>"), 1),
        told(|| Reply::new(404, ""), 1),
        told(|| Reply::new(403, ""), 1),
        told(|| Reply::new(503, ""), 3),
        told(|| Reply::new(429, "").header("Retry-After", "0"), 3),
        told(|| Reply::new(200, "abcdef").cut(2), 3),
        told(|| Reply::new(206, "abc").header("Content-Range", "bytes 7-9/10"), 3),
    ];
    insta::assert_snapshot!(texts.join("\n\n"));
}

#[test]
fn nobody_there_and_no_address() {
    let place = Place::new();
    // Port 1 on the loopback interface has no listener here; connecting is refused at once.
    let error = impatient().download("http://127.0.0.1:1/f", &place.file, None, &Silent).unwrap_err();
    insta::assert_snapshot!(format!("{error}\n{}", error.hint().unwrap()), @r"
    `http://127.0.0.1:1/f` cannot be reached after 3 attempts
    check the network and HTTPS_PROXY, or download the file elsewhere and give its path
    ");
    let error = impatient().download("not an address", &place.file, None, &Silent).unwrap_err();
    insta::assert_snapshot!(format!("{error}\n{}", error.hint().unwrap()), @r"
    `not an address` is not an address to download from
    an address starts with `https://` or `http://`
    ");
}

#[test]
fn a_file_that_another_process_writes_is_left_alone() {
    let server = Server::start(|_, _| Reply::new(200, "abc"));
    let place = Place::new();
    let part = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(place.folder.path().join("weights.h5.part"));
    let part = part.unwrap();
    part.lock().unwrap();
    assert!(matches!(place.get(&server, None), Err(DownloadError::Busy { .. })));
    drop(part);
    place.get(&server, None).unwrap();
}

struct Cancelling;

impl Progress for Cancelling {
    fn task(&self, name: &str, total: Option<u64>, unit: Unit) -> Box<dyn Task> {
        Silent.task(name, total, unit)
    }

    fn is_cancelled(&self) -> bool {
        true
    }
}

#[test]
fn a_stopped_download_leaves_no_file() {
    let server = Server::start(|_, _| Reply::new(200, "abc"));
    let place = Place::new();
    let result = impatient().download(&format!("{}/f", server.base), &place.file, None, &Cancelling);
    assert!(matches!(result, Err(DownloadError::Cancelled(_))));
    assert!(!place.file.exists());
}
