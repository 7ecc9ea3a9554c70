//! Who is let in: tokens, foreign pages, foreign names.

use axum::{
    Router,
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use nephros_core::hint::Hint;
use nephros_server::{Access, AppState, ServeError, ServeOptions, Service, app};

use crate::support::{get, held_trainer, local, png, post, predict, send, with_model};

fn guarded() -> Router {
    app(AppState::new(with_model(), Access::token("right")))
}

fn with(mut request: Request<Body>, name: header::HeaderName, value: &str) -> Request<Body> {
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

#[tokio::test]
async fn a_token_opens_what_works_and_is_not_asked_for_by_what_informs() {
    let app = guarded();
    let requests =
        || [predict(250), post("/api/v1/predictions", "image/png", png(1)), post("/train", "text/plain", "")];
    for wrong in [
        None,
        Some("Bearer wrong"),
        Some("Bearer "),
        Some("Basic right"),
        Some("right"),
        Some("Bearer right x"),
    ] {
        for request in requests() {
            let request = match wrong {
                Some(value) => with(request, header::AUTHORIZATION, value),
                None => request,
            };
            let answer = send(&app, request).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{wrong:?}");
            assert_eq!(answer.header(header::WWW_AUTHENTICATE), Some("Bearer realm=\"nephros\""));
        }
    }
    for scheme in ["Bearer right", "bearer right", "BEARER  right"] {
        let answer = send(&app, with(predict(250), header::AUTHORIZATION, scheme)).await;
        assert_eq!(answer.text(), r#"[{"image": "Tumor"}]"#);
    }
    for path in ["/", "/health", "/samples"] {
        assert_eq!(send(&app, get(path)).await.status, StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn a_wrong_method_is_told_before_the_token_is_asked_for() {
    assert_eq!(send(&guarded(), get("/train")).await.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn only_predict_can_be_read_across_origins_and_never_with_credentials() {
    let app = local(with_model());
    let foreign = |request| with(request, header::ORIGIN, "https://telemedicine.example");
    let answer = send(&app, foreign(predict(250))).await;
    assert_eq!(answer.header(header::ACCESS_CONTROL_ALLOW_ORIGIN), Some("*"));
    assert_eq!(answer.header(header::ACCESS_CONTROL_ALLOW_CREDENTIALS), None);
    let refused = send(&app, foreign(post("/predict", "application/json", "{"))).await;
    assert_eq!(refused.header(header::ACCESS_CONTROL_ALLOW_ORIGIN), Some("*"), "errors can be read too");
    for request in [
        get("/"),
        get("/health"),
        get("/samples"),
        post("/api/v1/predictions", "image/png", png(1)),
        post("/train", "text/plain", ""),
    ] {
        let answer = send(&app, foreign(request)).await;
        assert_eq!(answer.header(header::ACCESS_CONTROL_ALLOW_ORIGIN), None);
    }
}

#[tokio::test]
async fn a_preflight_of_predict_needs_no_token() {
    let preflight = |path| {
        let request = Request::builder().method(Method::OPTIONS).uri(path).body(Body::empty()).unwrap();
        let request = with(request, header::ORIGIN, "https://telemedicine.example");
        let request = with(request, header::ACCESS_CONTROL_REQUEST_HEADERS, "authorization,content-type");
        with(request, header::ACCESS_CONTROL_REQUEST_METHOD, "POST")
    };
    let answer = send(&guarded(), preflight("/predict")).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header(header::ACCESS_CONTROL_ALLOW_METHODS), Some("POST"));
    assert_eq!(answer.header(header::ACCESS_CONTROL_ALLOW_HEADERS), Some("content-type,authorization"));
    for path in ["/train", "/api/v1/predictions"] {
        let answer = send(&guarded(), preflight(path)).await;
        assert_eq!(answer.header(header::ACCESS_CONTROL_ALLOW_ORIGIN), None, "{path}");
    }
}

#[tokio::test]
async fn only_the_servers_own_page_may_start_a_training() {
    let (trainer, outcome) = held_trainer();
    let app = local(Service { trainer: Some(trainer), ..Service::default() });
    let train = |host: &str, origin: &str| {
        with(with(post("/train", "text/plain", ""), header::HOST, host), header::ORIGIN, origin)
    };
    for origin in
        ["https://evil.example", "null", "http://localhost:9090", "http://localhost:8080.evil.example", "x"]
    {
        assert_eq!(send(&app, train("localhost:8080", origin)).await.code(), "foreign_origin", "{origin}");
    }
    outcome.send(Ok("red-2")).unwrap();
    assert_eq!(send(&app, train("localhost:8080", "http://localhost:8080")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_open_loopback_server_answers_only_to_local_names() {
    let app = local(with_model());
    for (host, status) in [
        ("localhost:8080", StatusCode::OK),
        ("127.0.0.1:8080", StatusCode::OK),
        ("[::1]:8080", StatusCode::OK),
        ("rebound.example:8080", StatusCode::FORBIDDEN),
        ("192.168.1.5", StatusCode::FORBIDDEN),
    ] {
        for path in ["/", "/health"] {
            assert_eq!(send(&app, with(get(path), header::HOST, host)).await.status, status, "{host}");
        }
    }
    // Behind a proxy the name is the proxy's; there the token keeps strangers out.
    let answer = send(&guarded(), with(get("/"), header::HOST, "ct.hospital.example")).await;
    assert_eq!(answer.status, StatusCode::OK);
}

#[test]
fn what_is_served_without_a_token() {
    let options = |address: &str, token: Option<&str>, allow_unauthenticated| ServeOptions {
        address: address.parse().unwrap(),
        token: token.map(str::to_owned),
        allow_unauthenticated,
        ..ServeOptions::default()
    };
    for address in ["127.0.0.1:8080", "127.1.2.3:80", "[::1]:8080", "[::ffff:127.0.0.1]:80"] {
        assert!(options(address, None, false).check().is_ok(), "{address}");
    }
    for address in ["0.0.0.0:8080", "[::]:8080", "192.168.0.7:8080"] {
        let refused = options(address, None, false).check().unwrap_err();
        assert!(matches!(refused, ServeError::Unprotected { .. }), "{address}");
        assert!(refused.hint().unwrap().contains("NEPHROS_TOKEN"));
        assert!(options(address, None, true).check().is_ok());
        assert!(options(address, Some("t"), false).check().is_ok());
    }
    for token in ["", " ", "with space", "line\nbreak", "ünïcode"] {
        let refused = options("127.0.0.1:80", Some(token), true).check().unwrap_err();
        assert!(matches!(refused, ServeError::UnusableToken), "{token:?}");
    }
}

#[test]
fn options_do_not_print_the_token() {
    let options = ServeOptions { token: Some("s3cret".to_owned()), ..ServeOptions::default() };
    assert!(!format!("{options:?}").contains("s3cret"));
}
