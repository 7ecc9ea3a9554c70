//! The page dance of Google Drive, against pages as Google writes them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

#[allow(dead_code, reason = "shared between test files")]
mod scripted_server;

use nephros_core::hint::Hint;
use nephros_train::{
    ingest::{
        download::DownloadError,
        google_drive::{DriveFile, GoogleDriveError},
    },
    progress::Silent,
};
use scripted_server::{Reply, Request, Server, impatient};

const PAYLOAD: &[u8] = b"PK\x03\x04 the dataset, as far as this test is concerned";

fn file(from: Option<usize>) -> Reply {
    let start = from.unwrap_or(0);
    let reply = Reply::new(if from.is_some() { 206 } else { 200 }, &PAYLOAD[start..])
        .header("Content-Type", "application/octet-stream")
        .header("Content-Disposition", "attachment; filename=\"kidney-ct.zip\"")
        .header("Last-Modified", "Sat, 30 Sep 2023 10:00:00 GMT");
    match from {
        Some(start) => {
            let range = format!("bytes {start}-{}/{}", PAYLOAD.len() - 1, PAYLOAD.len());
            reply.header("Content-Range", range)
        }
        None => reply,
    }
}

fn to_download(base: &str) -> Reply {
    Reply::new(303, "")
        .header("Location", format!("{base}/download?id=FID&export=download"))
        .header("Set-Cookie", "NID=abc=1; Path=/; HttpOnly")
}

fn virus_warning(base: &str) -> Reply {
    Reply::page(
        200,
        format!(
            r#"<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>
            <p class="uc-warning-caption">Google Drive can't scan this file for viruses.</p>
            <form id="download-form" action="{base}/download?confirm=old" method="get">
            <input type="hidden" name="id" value="FID"><input type="hidden" name="export" value="download">
            <input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="1-2&amp;3">
            <input type="submit"/></form></body></html>"#
        ),
    )
}

/// Downloads from a server that answers so; the file's bytes or the error, and the requests.
fn dance(
    answer: impl Fn(&Request, &str) -> Reply + Send + 'static,
) -> (Result<Vec<u8>, DownloadError>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let destination = folder.path().join("data.zip");
    let server = Server::start(answer);
    let file = DriveFile { id: "FID".into(), resource_key: None };
    let result = file.download(&server.base, &impatient(), &destination, None, &Silent);
    assert_eq!(result.is_ok(), destination.exists());
    (result.map(|_| fs_err::read(&destination).unwrap()), server.requests())
}

#[test]
fn a_big_file_comes_after_the_virus_warning_with_cookies() {
    let (result, requests) = dance(|request, base| match request.target.as_str() {
        "/uc?id=FID" => to_download(base),
        _ if request.header("cookie") != Some("NID=abc=1") => Reply::page(200, "<title>no cookie</title>"),
        "/download?id=FID&export=download" => virus_warning(base),
        _ => file(None),
    });
    assert_eq!(result.unwrap(), PAYLOAD);
    let confirmed = "/download?id=FID&export=download&confirm=t&uuid=1-2%263";
    assert_eq!(requests, ["/uc?id=FID", "/download?id=FID&export=download", confirmed]);
}

#[test]
fn a_small_file_comes_at_once() {
    let (result, requests) = dance(|request, base| match request.target.as_str() {
        "/uc?id=FID" => to_download(base),
        _ => file(None),
    });
    assert_eq!(result.unwrap(), PAYLOAD);
    assert_eq!(requests, ["/uc?id=FID", "/download?id=FID&export=download"]);
}

#[test]
fn a_broken_download_resumes_through_the_dance() {
    let (result, requests) = dance(|request, base| match request.target.as_str() {
        "/uc?id=FID" => virus_warning(base),
        _ if request.number == 1 => file(None).cut(10),
        _ => file(request.range_start()),
    });
    assert_eq!(result.unwrap(), PAYLOAD);
    let confirmed = "/download?id=FID&export=download&confirm=t&uuid=1-2%263";
    assert_eq!(
        requests,
        [
            "/uc?id=FID".to_owned(),
            confirmed.into(),
            "/uc?id=FID [bytes=10-]".into(),
            format!("{confirmed} [bytes=10-]")
        ]
    );
}

#[test]
fn links_and_scripts_of_older_pages_lead_on() {
    let link = r#"<a href="/uc?export=download&amp;confirm=x&amp;id=FID">Download anyway</a>"#;
    let script = r#"<script>{"downloadUrl":"/get?a\u003d1\u0026b\u003d2"}</script>"#;
    let (result, requests) = dance(move |request, _| match request.target.as_str() {
        "/uc?id=FID" => Reply::page(200, link),
        "/uc?export=download&confirm=x&id=FID" => Reply::page(200, script),
        _ => file(None),
    });
    assert_eq!(result.unwrap(), PAYLOAD);
    assert_eq!(requests[2], "/get?a=1&b=2");
}

#[test]
fn server_errors_are_tried_again() {
    let (result, requests) =
        dance(|request, _| if request.number < 2 { Reply::page(500, "oops") } else { file(None) });
    assert_eq!(result.unwrap(), PAYLOAD);
    assert_eq!(requests.len(), 3);
    let (result, requests) = dance(|_, _| Reply::page(500, "oops"));
    assert!(matches!(result, Err(DownloadError::Status { status, .. }) if status.as_u16() == 500));
    assert_eq!(requests.len(), 3);
}

#[test]
fn a_truncated_body_is_an_error() {
    let (result, _) = dance(|_, _| file(None).cut(7));
    let Err(DownloadError::Truncated { expected, got, .. }) = result else { panic!("{result:?}") };
    assert_eq!((expected, got), (PAYLOAD.len() as u64, 7));
}

/// Error and hint of one page.
fn refusal(answer: impl Fn(&Request, &str) -> Reply + Send + 'static) -> String {
    let (result, requests) = dance(answer);
    let error = result.unwrap_err();
    assert!(matches!(error, DownloadError::GoogleDrive(_)), "{error:?}");
    // A refusal is not asked for twice.
    assert!(requests.len() <= 2, "{requests:?}");
    format!("error: {error}\nhint: {}", error.hint().unwrap())
}

#[test]
fn each_refusal_has_its_own_message() {
    let quota = r#"<html><head><title>Google Drive - Quota exceeded</title></head><body>
        <p class="uc-error-caption">Sorry, you can't view or download this file at this time.</p>
        <p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently.</p></body></html>"#;
    let odd = r#"<p class="uc-error-subcaption">This file is in the owner's trash.</p>"#;
    let sign_in = r#"<title>Google Drive: Sign-in</title><form id="gaia_loginform"></form>"#;
    let denied = "<title>Google Drive: Access Denied</title><body>You need access</body>";
    let texts = [
        refusal(move |_, _| Reply::page(200, quota)),
        refusal(move |request, base| match request.target.as_str() {
            "/uc?id=FID" => Reply::new(302, "").header("Location", format!("{base}/ServiceLogin?x=1")),
            _ => Reply::page(200, sign_in),
        }),
        refusal(move |_, _| Reply::page(403, denied)),
        refusal(|_, _| Reply::page(404, "<title>Not Found</title>")),
        refusal(|_, _| Reply::page(429, "Our systems have detected unusual traffic")),
        refusal(move |_, _| Reply::page(200, odd)),
        refusal(|_, _| Reply::page(200, "<title>Viewer</title>hello")),
    ];
    insta::assert_snapshot!(texts.join("\n\n"));
}

#[test]
fn pages_that_lead_in_circles_end() {
    let (result, requests) = dance(|_, base| virus_warning(base));
    assert!(matches!(result, Err(DownloadError::GoogleDrive(GoogleDriveError::UnknownPage { .. }))));
    assert_eq!(requests.len(), 4);
    let (result, requests) = dance(|_, _| Reply::new(302, "").header("Location", "/uc?id=FID"));
    assert!(matches!(result, Err(DownloadError::Unreachable { .. })));
    assert_eq!(requests.len(), 30); // 3 attempts of 10 redirects
}
