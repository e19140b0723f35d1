//! Operators' keys, at the admin listener.

use super::{complete, echo, line, refusals_at, with_keys};
use crate::support::{RunningApp, send, soon, start_app};
use axum::http::{HeaderMap, StatusCode};
use serde_json::json;
use std::time::Duration;
use tonic::Code;
use tonic::metadata::MetadataValue;
use warmpath::serve::proto::DrainRequest;

/// `any:` before the key, as browsers send it.
const BASIC: &str = "Basic YW55OnNlY3JldC1v";
const BASIC_WRONG: &str = "Basic YW55OnNlY3JldC1h";

async fn guarded() -> RunningApp {
    let (instance, _) = echo().await;
    let mut config = with_keys(vec![instance], &[line("team-a", "secret-a", "")]);
    config.security.keys.operators.lines = Some(line("oncall", "secret-o", ""));
    start_app(config).await
}

async fn asked(app: &RunningApp, path: &str, authorization: Option<&str>) -> (StatusCode, HeaderMap) {
    let mut request = hyper::Request::get(format!("http://{}{path}", app.admin));
    if let Some(shown) = authorization {
        request = request.header("authorization", shown);
    }
    let answer = send(request.body(Default::default()).unwrap()).await;
    (answer.status(), answer.headers().clone())
}

#[tokio::test]
async fn the_admin_listener_has_keys_of_its_own() {
    let app = guarded().await;
    for path in ["/metrics", "/status", "/instances", "/ui", "/ui/page.js", "/"] {
        let (status, headers) = asked(&app, path, None).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
        // What makes a browser ask for it.
        assert!(headers["www-authenticate"].to_str().unwrap().starts_with("Basic realm="), "{headers:?}");
    }
    // The kubelet has no key.
    assert_eq!(asked(&app, "/healthz", None).await.0, StatusCode::OK);
    assert_eq!(asked(&app, "/readyz", None).await.0, StatusCode::OK);
    for shown in ["Bearer secret-o", BASIC] {
        for path in ["/metrics", "/status", "/ui"] {
            assert_eq!(asked(&app, path, Some(shown)).await.0, StatusCode::OK, "{path} with {shown}");
        }
    }
    // A client is no operator, and an operator is no client.
    let before = refusals_at(&app, "admin", "key_unknown");
    for shown in ["Bearer secret-a", BASIC_WRONG] {
        assert_eq!(asked(&app, "/status", Some(shown)).await.0, StatusCode::UNAUTHORIZED, "{shown}");
    }
    for shown in ["Basic ", "Basic ?", "Basic c2VjcmV0LW8="] {
        assert_eq!(asked(&app, "/status", Some(shown)).await.0, StatusCode::UNAUTHORIZED, "{shown} is no pair");
    }
    assert_eq!(refusals_at(&app, "admin", "key_unknown"), before + 2.0);
    let body = json!({"model": "m", "prompt": [1], "max_tokens": 1});
    let shown = [("authorization", "Bearer secret-o")];
    assert_eq!(complete(&app, &shown, &body).await.0, StatusCode::UNAUTHORIZED);
    app.running.stop().await;
}

#[tokio::test]
async fn whoever_changes_the_fleet_shows_one_too() {
    let mut app = guarded().await;
    let drain = |key: Option<&'static str>| {
        let mut request = tonic::Request::new(DrainRequest { instance: "nobody".to_owned(), resume: false });
        if let Some(key) = key {
            request.metadata_mut().insert("authorization", MetadataValue::from_static(key));
        }
        request
    };
    let refused = app.fleet.drain(drain(None)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
    assert_eq!(app.fleet.drain(drain(Some("Bearer secret-a"))).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(app.fleet.drain(drain(Some("Bearer secret-o"))).await.unwrap_err().code(), Code::NotFound);
    app.running.stop().await;
}

#[tokio::test]
async fn a_changed_file_of_operators_keys_is_in_force() {
    let (instance, _) = echo().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("operators");
    std::fs::write(&file, line("old", "old", "")).unwrap();
    let mut config = crate::support::config(vec![instance]);
    config.security.keys.operators.file = Some(file.clone());
    config.security.tls.reload = Duration::from_millis(10);
    let app = start_app(config).await;
    assert_eq!(asked(&app, "/status", Some("Bearer old")).await.0, StatusCode::OK);
    std::fs::write(folder.path().join("next"), line("new", "new", "")).unwrap();
    std::fs::rename(folder.path().join("next"), &file).unwrap();
    let changed = async {
        while asked(&app, "/status", Some("Bearer new")).await.0 != StatusCode::OK {
            tokio::task::yield_now().await;
        }
    };
    soon("the new key", changed).await;
    assert_eq!(asked(&app, "/status", Some("Bearer old")).await.0, StatusCode::UNAUTHORIZED);
    // Clients were never asked.
    let body = json!({"model": "m", "prompt": [1], "max_tokens": 1});
    assert_eq!(complete(&app, &[], &body).await.0, StatusCode::OK);
    app.running.stop().await;
}
