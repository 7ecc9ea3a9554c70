//! The page as it is sent, its samples and the headers around them.

use std::sync::{Arc, Mutex};

use axum::{
    body::Bytes,
    http::{StatusCode, header},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use nephros_server::{Ledger, Sample, Service};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::support::{Notebook, get, local, png, send, with_model};

#[tokio::test]
async fn the_page_runs_its_own_style_and_script_and_nothing_else() {
    let page = send(&local(with_model()), get("/")).await;
    assert_eq!(page.status, StatusCode::OK);
    assert_eq!(page.header(header::CONTENT_TYPE), Some("text/html; charset=utf-8"));
    let policy = page.header(header::CONTENT_SECURITY_POLICY).unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    for element in ["style", "script"] {
        let (open, close) = (format!("<{element}>"), format!("</{element}>"));
        let inline = page.text().split_once(&open).unwrap().1.split_once(&close).unwrap().0;
        assert!(inline.len() > 1000, "the {element} is inside the page");
        let hash = BASE64_STANDARD.encode(Sha256::digest(inline.as_bytes()));
        assert!(policy.contains(&format!("'sha256-{hash}'")), "{element}");
    }
}

#[tokio::test]
async fn the_page_names_no_other_host() {
    let page = send(&local(with_model()), get("/")).await;
    // The one address in it is the name of the SVG namespace, which nothing fetches.
    let text = page.text().replace("http://www.w3.org/2000/svg", "");
    assert!(!text.contains("://"));
}

#[tokio::test]
async fn the_page_says_what_is_kept_of_a_prediction() {
    let page = send(&local(with_model()), get("/")).await;
    let ledger = |images| Some(Arc::new(Notebook(Mutex::default(), images)) as Arc<dyn Ledger>);
    for (ledger, records, sentence) in [
        (None, "nothing", "Neither the image nor what is predicted is recorded."),
        (ledger(false), "predictions", "with a hash of the image; the image is not kept."),
        (ledger(true), "images", "the image is kept with it, encrypted."),
    ] {
        let app = local(Service { ledger, ..with_model() });
        assert_eq!(send(&app, get("/health")).await.json()["records"], records);
        let line = page.text().lines().find(|line| line.trim().starts_with(&format!("{records}: \"")));
        assert!(line.is_some_and(|line| line.contains(sentence)), "{records}: {line:?}");
    }
}

#[tokio::test]
async fn samples_are_listed_and_sent() {
    let sample = Sample {
        name: "Patient 3".to_owned(),
        label: Some("Tumor".to_owned()),
        bytes: Bytes::from(png(5)),
        content_type: "image/png".to_owned(),
    };
    let app = local(Service { samples: vec![sample], ..with_model() });
    let list = send(&app, get("/samples")).await;
    assert_eq!(list.json(), json!([{"url": "samples/0", "name": "Patient 3", "label": "Tumor"}]));
    let image = send(&app, get("/samples/0")).await;
    assert_eq!((image.header(header::CONTENT_TYPE), image.body.as_ref()), (Some("image/png"), &png(5)[..]));
    for path in
        ["/samples/1", "/samples/-1", "/samples/x", "/samples/18446744073709551616", "/samples/..%2f0"]
    {
        assert_eq!(send(&app, get(path)).await.code(), "not_found", "{path}");
    }
    assert_eq!(send(&local(with_model()), get("/samples")).await.json(), json!([]));
}

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    let app = local(with_model());
    for path in ["/", "/health", "/nowhere", "/predict"] {
        let answer = send(&app, get(path)).await;
        assert_eq!(answer.header(header::X_CONTENT_TYPE_OPTIONS), Some("nosniff"), "{path}");
        assert_eq!(answer.header(header::REFERRER_POLICY), Some("no-referrer"));
        assert_eq!(answer.header(header::CACHE_CONTROL), Some("no-store"));
        assert!(answer.header(header::CONTENT_SECURITY_POLICY).unwrap().contains("default-src 'none'"));
    }
}

#[tokio::test]
async fn request_ids_differ() {
    let app = local(with_model());
    let first = send(&app, get("/health")).await;
    let second = send(&app, get("/health")).await;
    assert_ne!(first.header("x-request-id").unwrap(), second.header("x-request-id").unwrap());
}
