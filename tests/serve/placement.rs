//! Where requests of the OpenAI API go by what is in them besides tokens: bytes, adapters, sessions, responses; and how long an
//! answer may take.

use crate::support::{MODEL, RunningApp, config, eventually, instance, open_post, prompt, soon, start_app};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::routing::any;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use warmpath::routing::policy::PolicyKind;

/// An upstream that says what it serves, and gives every other answer the id of a response of its own.
async fn upstream(models: Value) -> SocketAddr {
    async fn answer(State((models, made)): State<(Arc<Value>, Arc<AtomicUsize>)>, uri: Uri) -> String {
        if uri.path() == "/v1/models" {
            return json!({"object": "list", "data": *models}).to_string();
        }
        let number = made.fetch_add(1, Ordering::Relaxed);
        // As vLLM writes it.
        format!("{{\"id\":\"resp_{number}_{:p}\",\"object\":\"response\"}}", Arc::as_ptr(&made))
    }
    serve(Router::new().fallback(any(answer)).with_state((Arc::new(models), Arc::<AtomicUsize>::default()))).await
}

async fn serve(routes: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    address
}

async fn fleet(instances: usize) -> Vec<warmpath::config::Instance> {
    let mut fleet = Vec::new();
    for number in 0..instances {
        fleet.push(instance(&format!("i{number}"), upstream(json!([{"id": MODEL}])).await, None));
    }
    fleet
}

/// Who answers, and with what.
async fn ask(app: &RunningApp, path: &str, session: Option<&str>, body: Option<&Value>) -> (String, HeaderMap, Bytes) {
    let mut request = hyper::Request::builder().uri(format!("http://{}{path}", app.http));
    if body.is_some() {
        request = request.method("POST");
    }
    if let Some(session) = session {
        request = request.header("x-session-id", session);
    }
    let body = body.map(Value::to_string).unwrap_or_default();
    let client = Client::builder(TokioExecutor::new()).build_http();
    let response =
        soon("a response", client.request(request.body(Full::new(Bytes::from(body))).unwrap())).await.unwrap();
    let (head, body) = response.into_parts();
    let body = soon("a body", body.collect()).await.unwrap().to_bytes();
    (head.headers["x-warmpath-instance"].to_str().unwrap().to_owned(), head.headers, body)
}

#[tokio::test]
async fn chats_that_begin_alike_go_to_the_same_instance_without_a_tokenizer() {
    let release = Arc::new(Semaphore::new(0));
    let mut instances = Vec::new();
    for number in 0..4 {
        let release = Arc::clone(&release);
        let routes = Router::new().fallback(any(async move || {
            release.acquire().await.unwrap().forget();
            "{}"
        }));
        instances.push(instance(&format!("i{number}"), serve(routes).await, None));
    }
    let app = Arc::new(start_app(config(instances)).await);
    let user =
        |number: usize, words: &str| json!({"role": "user", "content": format!("{number} {}", words.repeat(2000))});
    let path = |number: usize| ["/v1/chat/completions", "/v1/messages", "/v1/responses"][number % 3];
    let field = |number: usize| ["messages", "messages", "input"][number % 3];
    // All at once, so that they are spread.
    let first = (0..12).map(|number| {
        let (app, body) = (Arc::clone(&app), json!({field(number): [user(number, "once upon a time ")]}));
        tokio::spawn(async move { ask(&app, path(number), None, Some(&body)).await })
    });
    let first: Vec<_> = first.collect();
    eventually("all of them", || app.core.router().in_flight() == 12).await;
    release.add_permits(1000);
    let mut homes = Vec::new();
    for (number, first) in first.into_iter().enumerate() {
        let (home, headers, _) = first.await.unwrap();
        assert!(headers.get("x-warmpath-overlap-tokens").is_none(), "a guess is not told");
        let mut messages = vec![user(number, "once upon a time ")];
        for turn in 0..2 {
            messages.push(user(turn, "there was "));
            let body = json!({"model": MODEL, "temperature": turn, field(number): messages});
            assert_eq!(ask(&app, path(number), None, Some(&body)).await.0, home, "{number} {turn}");
        }
        homes.push(home);
    }
    homes.sort();
    homes.dedup();
    assert_eq!(homes.len(), 4, "conversations went to {homes:?} only");
    assert_eq!(app.metric("warmpath_guessed_lookups_total{why=\"no_tokenizer\"}"), 36.0);
    Arc::into_inner(app).unwrap().running.stop().await;
}

#[tokio::test]
async fn an_adapter_is_asked_for_where_it_is_and_has_blocks_of_its_own() {
    let base = json!({"id": MODEL, "parent": null});
    let with_adapter = json!([base, {"id": "ad1", "root": "/ad1", "parent": MODEL}, {"id": "alias", "parent": null}]);
    let instances = vec![
        instance("plain", upstream(json!([base])).await, None),
        instance("with", upstream(with_adapter).await, None),
    ];
    let app = start_app(config(instances)).await;
    let tokens: Vec<u32> = (0..100).collect();
    let mut seen = Vec::new();
    for model in ["ad1", "ad1", "alias", "alias", "ad1"] {
        let (who, headers, _) =
            ask(&app, "/v1/completions", None, Some(&json!({"model": model, "prompt": tokens}))).await;
        seen.push((model, who, headers["x-warmpath-overlap-tokens"].to_str().unwrap().to_owned()));
    }
    let expected = [("ad1", "0"), ("ad1", "96"), ("alias", "0"), ("alias", "96"), ("ad1", "96")];
    let expected: Vec<_> = expected.map(|(model, overlap)| (model, "with".to_owned(), overlap.to_owned())).to_vec();
    assert_eq!(seen, expected);
    let unknown = open_post(app.http, "/v1/completions", &json!({"model": "ad2", "prompt": tokens})).await;
    assert_eq!(unknown.status(), 404);
    app.running.stop().await;
}

#[tokio::test]
async fn a_session_stays_where_it_is_however_it_is_named() {
    let mut config = config(fleet(4).await);
    config.routing.policy = PolicyKind::Session;
    let app = start_app(config).await;
    let body = |number: u32, field: &str, name: &str| {
        let mut body = json!({"model": MODEL, "prompt": [number, 2, 3]});
        body[field] = json!(name);
        body
    };
    for name in ["a", "b", "c"] {
        let (home, ..) = ask(&app, "/v1/completions", Some(name), Some(&body(0, "user", "u"))).await;
        for number in 1..8 {
            let field = ["session_id", "prompt_cache_key"][number as usize % 2];
            let (who, ..) = ask(&app, "/v1/completions", None, Some(&body(number, field, name))).await;
            assert_eq!(who, home, "{name} {field}");
        }
    }
    app.running.stop().await;
}

#[tokio::test]
async fn a_response_is_looked_for_where_it_was_made() {
    let app = start_app(config(fleet(3).await)).await;
    for number in 0..9 {
        let body = json!({"model": MODEL, "input": format!("question {number}")});
        let (maker, _, answer) = ask(&app, "/v1/responses", None, Some(&body)).await;
        let id = serde_json::from_slice::<Value>(&answer).unwrap()["id"].as_str().unwrap().to_owned();
        assert_eq!(ask(&app, &format!("/v1/responses/{id}"), None, None).await.0, maker);
        assert_eq!(ask(&app, &format!("/v1/responses/{id}/cancel"), None, Some(&json!({}))).await.0, maker);
        let next = json!({"model": MODEL, "input": "and then?", "previous_response_id": id});
        assert_eq!(ask(&app, "/v1/responses", None, Some(&next)).await.0, maker);
    }
    app.running.stop().await;
}

#[tokio::test]
async fn an_answer_may_take_only_so_long_where_that_is_configured() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config(vec![instance("slow", listener.local_addr().unwrap(), None)]);
    config.http.head_max = Some(Duration::from_millis(200));
    config.http.idle_max = Some(Duration::from_millis(200));
    let app = start_app(config).await;
    let upstream = tokio::spawn(async move {
        let mut kept = Vec::new();
        for says in [
            "",
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n7\r\ndata: {\r\n",
        ] {
            let (mut peer, _) = listener.accept().await.unwrap();
            let mut read = [0; 1024];
            assert!(peer.read(&mut read).await.unwrap() > 0);
            peer.write_all(says.as_bytes()).await.unwrap();
            kept.push(peer);
        }
        kept
    });
    let body = json!({"model": MODEL, "prompt": [1], "stream": true});
    assert_eq!(open_post(app.http, "/v1/completions", &body).await.status(), 504);
    let silent = open_post(app.http, "/v1/completions", &body).await;
    assert_eq!(silent.status(), 200);
    let text = soon("its end", silent.into_body().collect()).await.unwrap().to_bytes();
    let text = String::from_utf8(text.to_vec()).unwrap();
    assert!(text.starts_with("data: {\n\ndata: {\"error\"") && text.ends_with("data: [DONE]\n\n"), "{text}");
    assert!(text.contains("the instance was silent for too long"), "{text}");
    eventually("the end", || app.core.router().in_flight() == 0).await;
    assert_eq!(app.metric("warmpath_upstream_failures_total{instance=\"slow\",kind=\"late\"}"), 2.0);
    drop(upstream.await.unwrap());
    app.running.stop().await;
}

#[tokio::test]
async fn token_ids_are_looked_up_wherever_they_stand_and_what_an_engine_does_not_compute_is_not() {
    let app = start_app(config(fleet(2).await)).await;
    let paths = [("/v1/completions", "prompt"), ("/v1/embeddings", "input"), ("/inference/v1/generate", "token_ids")];
    // Long enough that a step under way at home is worth waiting for.
    for (seed, (path, field)) in paths.into_iter().enumerate() {
        let body = json!({"model": MODEL, field: prompt(seed as u32, 3_200)});
        let (home, headers, _) = ask(&app, path, None, Some(&body)).await;
        assert_eq!(headers["x-warmpath-overlap-tokens"], "0", "{path}");
        let (again, headers, _) = ask(&app, path, None, Some(&body)).await;
        assert_eq!((again, &headers["x-warmpath-overlap-tokens"]), (home, &HeaderValue::from_static("3184")), "{path}");
    }
    eventually("the end", || app.core.router().in_flight() == 0).await;
    let placed = app.metric("warmpath_route_decisions_total{outcome=\"routed\"}");
    for path in ["/tokenize", "/detokenize", "/v1/messages/count_tokens"] {
        let body = json!({"model": MODEL, "prompt": prompt(0, 100), "messages": [{"role": "user", "content": "hi"}]});
        let (_, headers, _) = ask(&app, path, None, Some(&body)).await;
        assert!(!headers.contains_key("x-warmpath-overlap-tokens"), "{path}");
    }
    assert_eq!(app.metric("warmpath_route_decisions_total{outcome=\"routed\"}"), placed);
    app.running.stop().await;
}

#[tokio::test]
async fn retries_are_paid_from_a_budget_of_all_requests_together() {
    let asked = Arc::new(AtomicUsize::new(0));
    let mut instances = Vec::new();
    for number in 0..3 {
        let asked = Arc::clone(&asked);
        let routes = Router::new().fallback(any(async move || {
            asked.fetch_add(1, Ordering::Relaxed);
            StatusCode::SERVICE_UNAVAILABLE
        }));
        instances.push(instance(&format!("i{number}"), serve(routes).await, None));
    }
    let app = start_app(config(instances)).await;
    let body = json!({"model": MODEL, "prompt": [1]});
    for _ in 0..200 {
        assert_eq!(open_post(app.http, "/v1/completions", &body).await.status(), 503);
    }
    // Each may be sent twice more, but a hundred are saved at the start, and ten further requests earn one.
    assert_eq!(asked.load(Ordering::Relaxed), 200 + 100 + 19);
    app.running.stop().await;
}
