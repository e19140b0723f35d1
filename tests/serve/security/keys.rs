//! Keys, what each may, and what becomes of them on the way.

use super::{complete, echo, line, refusals, refusals_at, with_keys};
use crate::support::{MODEL, config, engine_instance, eventually, get, mock_config, prompt, soon};
use crate::support::{start_app, start_grpc_mock, start_mock};
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::time::Duration;
use tonic::Code;
use tonic::metadata::MetadataValue;
use warmpath::config::{ApiKey, Secret};
use warmpath::mock::MockConfig;
use warmpath::serve::proto::RouteRequest;

fn small() -> Value {
    json!({"model": MODEL, "prompt": [1, 2, 3], "max_tokens": 1})
}

#[tokio::test]
async fn only_who_shows_a_key_comes_in() {
    let (instance, seen) = echo().await;
    let app = start_app(with_keys(vec![instance], &[line("team-a", "secret-a", ""), line("b", "secret-b", "")])).await;
    for headers in
        [[("authorization", "Bearer secret-a")], [("authorization", "bearer  secret-b")], [("x-api-key", "secret-b")]]
    {
        assert_eq!(complete(&app, &headers, &small()).await.0, StatusCode::OK, "{headers:?}");
    }
    for (headers, reason) in [
        (&[][..], "key_missing"),
        (&[("authorization", "Basic secret-a")], "key_missing"),
        (&[("authorization", "Bearer ")], "key_missing"),
        (&[("authorization", "Bearer secret")], "key_unknown"),
        (&[("x-api-key", "secret-A")], "key_unknown"),
        // The first one that is shown counts.
        (&[("authorization", "Bearer wrong"), ("x-api-key", "secret-a")], "key_unknown"),
    ] {
        let before = refusals(&app, reason);
        let (status, told, body) = complete(&app, headers, &small()).await;
        assert_eq!((status, told["www-authenticate"].as_bytes()), (StatusCode::UNAUTHORIZED, &b"Bearer"[..]));
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((&body["error"]["type"], &body["error"]["code"]), (&json!("AuthenticationError"), &json!(401)));
        assert_eq!(refusals(&app, reason), before + 1.0, "{headers:?}");
    }
    // Not even what would pass through.
    assert_eq!(get(app.http, "/health").await.0, 401);
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 3, "nothing else reached the instance");
    for headers in seen {
        assert!(!headers.contains_key("authorization") && !headers.contains_key("x-api-key"), "{headers:?}");
    }
    app.running.stop().await;
}

#[tokio::test]
async fn over_grpc_the_key_is_metadata() {
    let mock = start_grpc_mock().await;
    let mut app = start_app(with_keys(
        vec![engine_instance(&mock, "a")],
        &[line("a", "key", "burst=1 requests_per_second=0.001")],
    ))
    .await;
    let refused = app.route(&prompt(1, 10)).await.unwrap_err();
    assert_eq!((refused.code(), refusals_at(&app, "grpc", "key_missing")), (Code::Unauthenticated, 1.0));

    let with = |key: &'static str| {
        let message = RouteRequest { model: MODEL.to_owned(), token_ids: prompt(1, 10), ..RouteRequest::default() };
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert("authorization", MetadataValue::from_static(key));
        request
    };
    assert_eq!(app.client.route(with("Bearer wrong")).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(app.client.route(with("Bearer key")).await.unwrap().into_inner().prompt_tokens, 10);
    let refused = app.client.route(with("Bearer key")).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let after: u64 = refused.metadata().get("retry-after").unwrap().to_str().unwrap().parse().unwrap();
    assert!((900..=1000).contains(&after), "{after}");
    assert_eq!(refusals_at(&app, "grpc", "request_rate"), 1.0);

    // Who only asks whether it is alive needs none.
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", app.grpc)).unwrap();
    let channel = channel.connect().await.unwrap();
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    health.check(tonic_health::pb::HealthCheckRequest { service: String::new() }).await.unwrap();
    app.running.stop().await;
}

#[tokio::test]
async fn a_key_is_held_to_its_rate() {
    let (instance, _) = echo().await;
    let lines = [line("a", "a", "requests_per_second=0.01 burst=2"), line("b", "b", "")];
    let app = start_app(with_keys(vec![instance], &lines)).await;
    let a = [("authorization", "Bearer a")];
    for _ in 0..2 {
        assert_eq!(complete(&app, &a, &small()).await.0, StatusCode::OK);
    }
    let (status, headers, body) = complete(&app, &a, &small()).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    let after: u64 = headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((60..=100).contains(&after), "{after}");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&body["error"]["type"], &body["error"]["code"]), (&json!("RateLimitError"), &json!(429)));
    assert_eq!(refusals(&app, "request_rate"), 1.0);
    // Others are not held to it.
    for _ in 0..5 {
        assert_eq!(complete(&app, &[("x-api-key", "b")], &small()).await.0, StatusCode::OK);
    }
    app.running.stop().await;
}

#[tokio::test]
async fn a_key_is_held_to_its_tokens_prompt_and_answer() {
    let mock = start_mock(mock_config()).await;
    let lines = [line("a", "a", "tokens_per_minute=100"), line("b", "b", "tokens_per_minute=100")];
    let app = start_app(with_keys(vec![mock.instance("a")], &lines)).await;
    let body = |tokens: u32, output: u32| json!({"model": MODEL, "prompt": prompt(1, tokens), "max_tokens": output});
    // Of 100 are left 60, and then 20: what goes beyond that is let in, and is the last.
    for _ in 0..3 {
        assert_eq!(complete(&app, &[("x-api-key", "a")], &body(40, 1)).await.0, StatusCode::OK);
    }
    let (status, headers, _) = complete(&app, &[("x-api-key", "a")], &body(1, 1)).await;
    assert_eq!((status, refusals(&app, "token_rate")), (StatusCode::TOO_MANY_REQUESTS, 1.0));
    let after: u64 = headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((5..=20).contains(&after), "24 tokens too many at 100 a minute, and not {after} s");
    // What is generated counts too, once it is.
    assert_eq!(complete(&app, &[("x-api-key", "b")], &body(1, 200)).await.0, StatusCode::OK);
    let mut refused = false;
    while !refused {
        refused = complete(&app, &[("x-api-key", "b")], &body(1, 1)).await.0 == StatusCode::TOO_MANY_REQUESTS;
    }
    app.running.stop().await;
}

#[tokio::test]
async fn a_key_has_so_many_requests_under_way() {
    // In real time a token takes some milliseconds: the first answer is still being made when the second request comes.
    let mock = start_mock(MockConfig { speed: 1.0, ..mock_config() }).await;
    let app = start_app(with_keys(vec![mock.instance("a")], &[line("a", "a", "concurrent_max=1")])).await;
    let long = json!({"model": MODEL, "prompt": [1, 2], "max_tokens": 5_000, "stream": true, "ignore_eos": true});
    let request = hyper::Request::post(format!("http://{}/v1/completions", app.http)).header("x-api-key", "a");
    let open = crate::support::send(request.body(long.to_string().into()).unwrap()).await;
    assert_eq!(open.status(), 200);
    let (status, headers, _) = complete(&app, &[("x-api-key", "a")], &small()).await;
    assert_eq!((status, headers["retry-after"].to_str().unwrap()), (StatusCode::TOO_MANY_REQUESTS, "1"));
    assert_eq!(refusals(&app, "concurrency"), 1.0);
    // Who hangs up may come again.
    drop(open);
    let mut status = status;
    while status == StatusCode::TOO_MANY_REQUESTS {
        status = soon("another request", complete(&app, &[("x-api-key", "a")], &small())).await.0;
    }
    assert_eq!(status, StatusCode::OK);
    app.running.stop().await;
}

#[tokio::test]
async fn a_changed_file_is_in_force_and_a_broken_one_is_not() {
    let (instance, _) = echo().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    // At once, as one should: who writes in place may be read half way.
    let write = |text: &str| {
        std::fs::write(folder.path().join("next"), text).unwrap();
        std::fs::rename(folder.path().join("next"), &file).unwrap();
    };
    write(&line("a", "old", ""));
    let mut config = config(vec![instance]);
    config.security.keys.clients.file = Some(file.clone());
    config.security.tls.reload = Duration::from_millis(10);
    let app = start_app(config).await;
    let status = async |key| complete(&app, &[("x-api-key", key)], &small()).await.0;
    assert_eq!((status("old").await, status("new").await), (StatusCode::OK, StatusCode::UNAUTHORIZED));

    write(&line("a", "new", ""));
    let reloads =
        |outcome| app.metric(&format!("warmpath_security_reloads_total{{material=\"keys\",outcome=\"{outcome}\"}}"));
    eventually("the new key", || reloads("loaded") > 0.0).await;
    assert_eq!((status("old").await, status("new").await), (StatusCode::UNAUTHORIZED, StatusCode::OK));

    for (at, unusable) in [(1.0, "a secret"), (2.0, "# no key at all\n")] {
        write(unusable);
        eventually("the broken file", || reloads("failed") == at).await;
    }
    assert_eq!(status("new").await, StatusCode::OK);
    app.running.stop().await;
}

#[tokio::test]
async fn instances_are_shown_the_key_that_is_configured_and_nobody_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, "of-its-own\n").unwrap();
    let ((mut own, own_saw), (mut fleets, fleets_saw)) = (echo().await, echo().await);
    own.access.api_key = Some(ApiKey::File(file.clone()));
    (own.model, fleets.model, fleets.name) = ("own".to_owned(), "fleet".to_owned(), "b".to_owned());
    let mut config = config(vec![own, fleets]);
    config.security.upstream.api_key = Some(ApiKey::Here(Secret::new("of-the-fleet")));
    config.security.tls.reload = Duration::from_millis(10);
    assert!(!format!("{config:?}").contains("of-the-fleet"), "{config:?}");
    let app = start_app(config).await;
    let client = [("authorization", "Bearer the-clients"), ("x-api-key", "the-clients")];
    for model in ["own", "fleet"] {
        let body = json!({"model": model, "prompt": [1], "max_tokens": 1});
        assert_eq!(complete(&app, &client, &body).await.0, StatusCode::OK);
    }
    for (saw, expected) in [(&own_saw, "Bearer of-its-own"), (&fleets_saw, "Bearer of-the-fleet")] {
        let saw = saw.lock().unwrap();
        assert_eq!(
            (saw.len(), &saw[0]["authorization"], saw[0].get("x-api-key")),
            (1, &expected.parse().unwrap(), None)
        );
    }
    for page in ["/status", "/instances", "/metrics"] {
        let (_, page) = get(app.admin, page).await;
        assert!(!page.contains("of-the-fleet") && !page.contains("of-its-own"), "{page}");
    }

    std::fs::write(&file, "another\n").unwrap();
    let reloaded = "warmpath_security_reloads_total{material=\"api_keys\",outcome=\"loaded\"}";
    eventually("the new key", || app.metric(reloaded) > 0.0).await;
    complete(&app, &client, &json!({"model": "own", "prompt": [1], "max_tokens": 1})).await;
    assert_eq!(own_saw.lock().unwrap()[1]["authorization"], "Bearer another");
    app.running.stop().await;
}

#[tokio::test]
async fn without_keys_of_ours_what_clients_send_is_for_the_instances() {
    let (instance, seen) = echo().await;
    let app = start_app(config(vec![instance.clone()])).await;
    let headers = [("authorization", "Bearer theirs"), ("x-data-parallel-rank", "3"), ("x-warmpath-model", "forged")];
    complete(&app, &headers, &small()).await;
    app.running.stop().await;
    let mut forwarding = with_keys(vec![instance], &[line("a", "a", "")]);
    forwarding.security.keys.forward = true;
    let app = start_app(forwarding).await;
    complete(&app, &[("authorization", "Bearer a")], &small()).await;
    app.running.stop().await;
    let seen = seen.lock().unwrap();
    assert_eq!(
        (&seen[0]["authorization"], &seen[1]["authorization"]),
        (&"Bearer theirs".parse().unwrap(), &"Bearer a".parse().unwrap())
    );
    assert!(!seen[0].contains_key("x-data-parallel-rank") && !seen[0].contains_key("x-warmpath-model"), "{seen:?}");
}

#[tokio::test]
async fn a_prompt_has_so_many_tokens() {
    let (instance, seen) = echo().await;
    let mut config = config(vec![instance]);
    config.security.limits.prompt_tokens_max = 10;
    let mut app = start_app(config).await;
    let body = |tokens: u32| json!({"model": MODEL, "prompt": prompt(1, tokens), "max_tokens": 1});
    assert_eq!(complete(&app, &[], &body(10)).await.0, StatusCode::OK);
    let (status, _, told) = complete(&app, &[], &body(11)).await;
    assert_eq!((status, refusals(&app, "prompt_tokens")), (StatusCode::BAD_REQUEST, 1.0));
    assert!(told.contains("11 prompt tokens") && told.contains("no more than 10"), "{told}");
    assert_eq!(seen.lock().unwrap().len(), 1);
    app.route(&prompt(1, 10)).await.unwrap();
    assert_eq!(app.route(&prompt(1, 11)).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(refusals_at(&app, "grpc", "prompt_tokens"), 1.0);
    app.running.stop().await;
}
