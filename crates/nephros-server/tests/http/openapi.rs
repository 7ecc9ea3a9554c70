//! The document says what the server does, and its page runs nothing else than itself.

use std::collections::BTreeSet;

use axum::http::{StatusCode, header};
use base64::{Engine, prelude::BASE64_STANDARD};
use nephros_server::Code;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::support::{get, local, send, with_model};

async fn document() -> Value {
    let answer = send(&local(with_model()), get("/api/v1/openapi.json")).await;
    assert_eq!(
        (answer.status, answer.header(header::CONTENT_TYPE)),
        (StatusCode::OK, Some("application/json"))
    );
    answer.json()
}

#[tokio::test]
async fn the_document_is_as_recorded() {
    let document = document().await;
    assert_eq!(document["openapi"], "3.1.0");
    insta::assert_snapshot!("openapi", serde_json::to_string_pretty(&document).unwrap());
}

#[tokio::test]
async fn the_set_of_codes_is_the_documents() {
    let document = document().await;
    let codes: BTreeSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    let named =
        document["components"]["schemas"]["ErrorDetail"]["properties"]["code"]["enum"].as_array().unwrap();
    assert_eq!(named.iter().map(|code| code.as_str().unwrap()).collect::<BTreeSet<_>>(), codes);
    let text = document["paths"].to_string();
    for code in Code::ALL {
        let line = format!("- `{}`: {}", code.as_str(), code.sentence());
        assert!(text.contains(&line), "no address answers with: {line}");
    }
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            for (status, response) in operation["responses"].as_object().unwrap() {
                let description = response["description"].as_str().unwrap();
                let lines = description.lines().filter_map(|line| line.strip_prefix("- `"));
                for code in lines.map(|line| line.split_once('`').unwrap().0) {
                    let known = Code::ALL.iter().find(|known| known.as_str() == code).unwrap();
                    assert_eq!(known.status().as_str(), status, "{method} {path} {code}");
                }
            }
        }
    }
}

#[tokio::test]
async fn every_reference_leads_somewhere() {
    let document = document().await;
    let text = document.to_string();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let mut references = 0;
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name}");
        references += 1;
    }
    assert!(references > 20, "{references}");
}

#[tokio::test]
async fn the_page_of_the_document_runs_its_own_script_and_names_no_host() {
    let page = send(&local(with_model()), get("/api/v1/docs")).await;
    assert_eq!(page.header(header::CONTENT_TYPE), Some("text/html; charset=utf-8"));
    let policy = page.header(header::CONTENT_SECURITY_POLICY).unwrap();
    assert!(!policy.contains("unsafe") && policy.starts_with("default-src 'none'; "), "{policy}");
    for element in ["style", "script"] {
        let (open, close) = (format!("<{element}>"), format!("</{element}>"));
        let inline = page.text().split_once(&open).unwrap().1.split_once(&close).unwrap().0;
        assert!(inline.len() > 1000, "the {element} is inside the page");
        let hash = BASE64_STANDARD.encode(Sha256::digest(inline.as_bytes()));
        assert!(policy.contains(&format!("'sha256-{hash}'")), "{element}");
    }
    assert!(!page.text().contains("://") && !page.text().contains("innerHTML"));
}
