//! The OpenAI API in front of mocks, and of upstreams that misbehave.

use crate::support::{
    MODEL, RunningApp, config, eventually, get, instance, mock_config, open_post, post, prompt, soon,
};
use crate::support::{start_app, start_mock};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::routing::{any, get as on_get};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use warmpath::config::Health;
use warmpath::mock::MockConfig;
use warmpath::routing::{Availability, InstanceId};

/// Nobody is there.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

type Seen = Arc<Mutex<Vec<(String, HeaderMap, Bytes)>>>;

/// An upstream that keeps what it is sent, and answers with the body.
async fn echo() -> (SocketAddr, Seen) {
    async fn keep(State(seen): State<Seen>, uri: Uri, headers: HeaderMap, body: Bytes) -> Bytes {
        seen.lock().unwrap().push((uri.to_string(), headers, body.clone()));
        body
    }
    let seen = Seen::default();
    let routes = Router::new().fallback(any(keep)).layer(axum::extract::DefaultBodyLimit::disable());
    (serve(routes.with_state(Arc::clone(&seen))).await, seen)
}

async fn serve(routes: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    address
}

/// An upstream that always gives one status.
async fn always(status: StatusCode) -> SocketAddr {
    serve(Router::new().fallback(move || async move { (status, "its own words") })).await
}

async fn send(app: &RunningApp, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, HeaderMap, Bytes) {
    send_by(false, app, path, headers, body).await
}

async fn send_by(
    http2: bool,
    app: &RunningApp,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> (u16, HeaderMap, Bytes) {
    let mut request = hyper::Request::post(format!("http://{}{path}", app.http));
    for &(name, value) in headers {
        request = request.header(name, value);
    }
    let client = Client::builder(TokioExecutor::new()).http2_only(http2).build_http();
    let request = request.body(Full::new(Bytes::copy_from_slice(body))).unwrap();
    let response = soon("a response", client.request(request)).await.unwrap();
    let (head, body) = response.into_parts();
    (head.status.as_u16(), head.headers, soon("a body", body.collect()).await.unwrap().to_bytes())
}

fn completion(tokens: &[u32], max_tokens: u32, stream: bool) -> Value {
    json!({"model": MODEL, "prompt": tokens, "max_tokens": max_tokens, "stream": stream})
}

#[tokio::test]
async fn bodies_pass_byte_for_byte() {
    let (upstream, seen) = echo().await;
    let app = start_app(config(vec![instance("only", upstream, None)])).await;
    let long = format!("{{\"model\":\"m\",\"prompt\":\"{}\"}}", "long ".repeat(200_000));
    let corpus: [(&str, &[u8]); 16] = [
        ("/v1/completions", br#"{"model":"m","prompt":[1,2,3],"what":{"is":[1,{"this":null}]}}"#),
        (
            "/v1/completions",
            b"{ \"model\" :\t\"m\",\n \"prompt\": [ 1 , 2 ],  \"temperature\": 0.10000000000000000001 }\r\n",
        ),
        ("/v1/completions", br#"{"model":"x","model":"m","prompt":[1],"prompt":[2]}"#),
        (
            "/v1/chat/completions",
            "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"żółć 🦀 \\u0000\"}]}".as_bytes(),
        ),
        ("/v1/completions", br#"{"model":"m","prompt":"\ud800"}"#),
        ("/v1/completions", b"{\"model\":\"m\",\"prompt\":\"\xff\xfe\"}"),
        ("/v1/completions", b"not JSON at all"),
        ("/v1/completions", b""),
        ("/v1/completions", long.as_bytes()),
        ("/v1/responses?x=%20y", br#"{"model":"m","input":"hi"}"#),
        ("/v1/audio/transcriptions", b"--boundary\r\n\x00\x01\x02"),
        ("/inference/v1/generate", br#"{"model":"m","token_ids":[18446744073709551616,1e400]}"#),
        ("/v1/messages", br#"{"messages":[],"messages":[{"role":"user","content":[]}],"system":null,"model":"m"}"#),
        ("/v1/completions", br#"{"model":"m","prompt":["a",[1],null,{"b":[]}]}"#),
        ("/v1/embeddings", b"{\"input\":[\"one\",\"two\"],\"model\":\"m\",\"\":0,\"a\\u0000\":[[[[[[]]]]]]}"),
        ("/v1/chat/completions", b"\xef\xbb\xbf{\"model\":\"m\",\"messages\":[{}]}"),
    ];
    let both = corpus.iter().map(|one| (false, one)).chain(corpus.iter().map(|one| (true, one)));
    for (at, (http2, &(path, body))) in both.enumerate() {
        let (status, headers, answer) = send_by(http2, &app, path, &[], body).await;
        assert_eq!((status, headers["x-warmpath-instance"].to_str().unwrap()), (200, "only"));
        assert!(answer == body, "the answer to body {at} changed");
        let (uri, _, arrived) = seen.lock().unwrap()[at].clone();
        assert!((uri.as_str(), &arrived[..]) == (path, body), "body {at} changed on its way");
    }
    eventually("every reservation's end", || app.core.router().in_flight() == 0).await;
    app.running.stop().await;
}

#[tokio::test]
async fn headers_of_one_connection_stay_there_and_the_rest_pass() {
    let (upstream, seen) = echo().await;
    let mut only = instance("only", upstream, None);
    only.data_parallel_rank = Some(3);
    let app = start_app(config(vec![only])).await;
    let sent = [
        ("authorization", "Bearer key"),
        ("x-request-id", "abc"),
        ("x-hop", "1"),
        ("connection", "x-hop"),
        ("x-warmpath-instance", "forged"),
        ("content-type", "application/json"),
    ];
    send(&app, "/v1/completions", &sent, br#"{"model":"m","prompt":[1]}"#).await;
    let headers = seen.lock().unwrap()[0].1.clone();
    for (name, value) in [
        ("authorization", Some("Bearer key")),
        ("x-request-id", Some("abc")),
        ("content-type", Some("application/json")),
        ("x-data-parallel-rank", Some("3")),
        ("content-length", Some("26")),
        ("host", Some(&*upstream.to_string())),
        ("x-hop", None),
        ("x-warmpath-instance", None),
    ] {
        assert_eq!(headers.get(name).map(|value| value.to_str().unwrap()), value, "{name}");
    }
    app.running.stop().await;
}

#[tokio::test]
async fn a_prompt_goes_where_it_is_cached_and_the_answer_says_so() {
    let (mut first, mut second) = (start_mock(mock_config()).await, start_mock(mock_config()).await);
    let app = start_app(config(vec![first.instance("first"), second.instance("second")])).await;
    first.subscribed().await;
    second.subscribed().await;
    second.complete(&prompt(1, 100), 1).await;
    eventually("the blocks", || app.cached_blocks(1) == 6).await;

    let body = completion(&prompt(1, 100), 4, false).to_string();
    let (status, headers, answer) = send(&app, "/v1/completions", &[], body.as_bytes()).await;
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!((status, &answer["usage"]["prompt_tokens_details"]["cached_tokens"]), (200, &json!(96)));
    for (name, value) in [("instance", "second"), ("overlap-tokens", "96"), ("prompt-tokens", "100")] {
        assert_eq!(headers[format!("x-warmpath-{name}")], value);
    }
    eventually("the end", || app.core.router().in_flight() == 0).await;
    assert_eq!(app.metric("warmpath_reported_cached_tokens_total{instance=\"second\"}"), 96.0);
    assert_eq!(app.metric("warmpath_http_requests_total{answer=\"forwarded\"}"), 1.0);

    // A text is looked up by its bytes, of which nothing is said, and is answered all the same.
    let text = json!({"model": MODEL, "prompt": "It was the best of times", "max_tokens": 2}).to_string();
    let (status, headers, _) = send(&app, "/v1/completions", &[], text.as_bytes()).await;
    assert_eq!((status, headers.get("x-warmpath-overlap-tokens")), (200, None));
    assert_eq!(app.metric("warmpath_guessed_lookups_total{why=\"no_tokenizer\"}"), 1.0);
    app.running.stop().await;
    first.running.stop().await;
    second.running.stop().await;
}

#[tokio::test]
async fn a_stream_passes_as_it_comes_and_is_booked_until_its_end() {
    let mock = start_mock(MockConfig { speed: 2.0, ..mock_config() }).await;
    let app = start_app(config(vec![mock.instance("only")])).await;
    let body = completion(&prompt(1, 40), 50, true);
    let mut stream = open_post(app.http, "/v1/completions", &body).await;
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let mut text = Vec::new();
    let mut chunks = 0;
    while let Some(frame) = soon("a chunk", stream.body_mut().frame()).await {
        text.extend(frame.unwrap().into_data().unwrap());
        chunks += 1;
        if chunks == 2 {
            let load = app.core.instances()[0].load;
            assert_eq!((load.prefill_requests, load.decode_requests), (0, 1));
        }
    }
    let text = String::from_utf8(text).unwrap();
    assert_eq!((text.matches("\n\n").count(), text.ends_with("data: [DONE]\n\n")), (51, true), "{text}");
    assert!(chunks > 10, "the stream was held up: {chunks} chunks");
    eventually("the end", || app.core.router().in_flight() == 0).await;
    app.running.stop().await;
    mock.running.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_at_the_instance() {
    // Slow enough that 10,000 tokens would take minutes.
    let mock = start_mock(MockConfig { speed: 1.0, ..mock_config() }).await;
    let app = start_app(config(vec![mock.instance("only")])).await;
    let running = async |count: &str| {
        let wanted = format!("vllm:num_requests_running{{engine=\"0\",model_name=\"m\"}} {count}");
        for _ in 0..3000 {
            if get(mock.http, "/metrics").await.1.contains(&wanted) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{wanted} never came");
    };
    for (stream, http2) in [(true, false), (false, false), (true, true), (false, true)] {
        let body = Bytes::from(completion(&prompt(1, 40), 10_000, stream).to_string());
        let request =
            hyper::Request::post(format!("http://{}/v1/completions", app.http)).body(Full::new(body)).unwrap();
        let client = Client::builder(TokioExecutor::new()).http2_only(http2).build_http();
        // The client outlives the call: over HTTP/2 its stream is what ends, not the connection.
        let calls = client.clone();
        let call = tokio::spawn(async move {
            let mut response = calls.request(request).await.unwrap();
            while response.body_mut().frame().await.is_some() {}
        });
        running("1.0").await;
        assert_eq!(app.core.router().in_flight(), 1);
        call.abort();
        running("0.0").await;
        eventually("the reservation's end", || app.core.router().in_flight() == 0).await;
        drop(client);
    }
    app.running.stop().await;
    mock.running.stop().await;
}

#[tokio::test]
async fn refusals_have_openais_shape() {
    let mut config = config(vec![instance("a", NOWHERE, None), instance("b", NOWHERE, None)]);
    config.http.body_bytes_max = 1000;
    config.instances[1].url = "http://127.0.0.1:2".to_owned();
    let app = start_app(config).await;
    let check = async |body: &[u8], status: u16, kind: &str, message: &str| {
        let (answered, headers, answer) = send(&app, "/v1/completions", &[], body).await;
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        let error = &answer["error"];
        assert_eq!((answered, &error["code"], error["type"].as_str()), (status, &json!(status), Some(kind)));
        assert!(error["message"].as_str().unwrap().contains(message), "{answer}");
        assert_eq!(headers.contains_key("retry-after"), status == 503);
    };
    let known = br#"{"model":"m","prompt":[1]}"#;
    check(br#"{"model":"x","prompt":[1]}"#, 404, "NotFoundError", "The model `x` does not exist.").await;
    check(&[b' '; 1001], 413, "BadRequestError", "longer than 1000 bytes").await;
    check(known, 502, "BadGatewayError", "could not be reached").await;
    // Two more failures of each open both breakers.
    check(known, 502, "BadGatewayError", "could not be reached").await;
    check(known, 502, "BadGatewayError", "could not be reached").await;
    check(known, 503, "ServiceUnavailableError", "takes requests now").await;
    assert_eq!(app.core.router().in_flight(), 0);
    for (answer, count) in [("unknown_model", 1.0), ("bad_body", 1.0), ("unreachable", 3.0), ("none_ready", 1.0)] {
        assert_eq!(app.metric(&format!("warmpath_http_requests_total{{answer=\"{answer}\"}}")), count, "{answer}");
    }
    app.running.stop().await;
}

#[tokio::test]
async fn what_an_instance_did_not_take_is_sent_elsewhere_and_what_it_may_have_is_not() {
    let mock = start_mock(mock_config()).await;
    let full = always(StatusCode::SERVICE_UNAVAILABLE).await;
    let mut instances = vec![instance("full", full, None), instance("gone", NOWHERE, None)];
    instances.push(instance("good", mock.http, None));
    let app = start_app(config(instances)).await;
    for seed in 0..4 {
        let body = completion(&prompt(seed, 40), 1, false).to_string();
        let (status, headers, _) = send(&app, "/v1/completions", &[], body.as_bytes()).await;
        assert_eq!((status, headers["x-warmpath-instance"].to_str().unwrap()), (200, "good"));
    }
    assert!(app.metric("warmpath_upstream_retries_total{instance=\"full\"}") >= 1.0);
    assert!(app.metric("warmpath_upstream_failures_total{instance=\"gone\",kind=\"connect\"}") >= 1.0);
    app.running.stop().await;
    mock.running.stop().await;

    // An upstream that reads a request and hangs up may have done it: nobody else is asked.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let reads = tokio::spawn(async move {
        let (mut peer, _) = listener.accept().await.unwrap();
        let mut read = [0; 1024];
        peer.read(&mut read).await.unwrap()
    });
    let (upstream, seen) = echo().await;
    let app = start_app(config(vec![instance("breaks", address, None), instance("good", upstream, None)])).await;
    let (status, _, _) = send(&app, "/v1/completions", &[], br#"{"model":"m","prompt":[1]}"#).await;
    assert_eq!((status, seen.lock().unwrap().len()), (502, 0));
    assert!(reads.await.unwrap() > 0);
    app.running.stop().await;
}

#[tokio::test]
async fn when_all_are_full_the_client_hears_it_from_them() {
    let (one, two) = (always(StatusCode::SERVICE_UNAVAILABLE).await, always(StatusCode::SERVICE_UNAVAILABLE).await);
    let app = start_app(config(vec![instance("one", one, None), instance("two", two, None)])).await;
    let (status, _, answer) = send(&app, "/v1/completions", &[], br#"{"model":"m","prompt":[1]}"#).await;
    assert_eq!((status, &answer[..]), (503, &b"its own words"[..]));
    assert_eq!(app.core.instances()[0].availability, Availability::Ready);
    app.running.stop().await;
}

/// What comes of a call whose engine dies after some events and within one.
async fn cut_off(path: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let app = start_app(config(vec![instance("dies", listener.local_addr().unwrap(), None)])).await;
    let upstream = tokio::spawn(async move {
        let (mut peer, _) = listener.accept().await.unwrap();
        let mut read = [0; 1024];
        assert!(peer.read(&mut read).await.unwrap() > 0);
        peer.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            .await
            .unwrap();
        peer.write_all(b"17\r\ndata: {\"a\":1}\n\ndata: {\"\r\n").await.unwrap();
    });
    let (status, _, answer) = send(&app, path, &[], br#"{"model":"m","prompt":[1],"messages":[]}"#).await;
    upstream.await.unwrap();
    assert_eq!((status, app.core.router().in_flight()), (200, 0));
    assert_eq!(app.metric("warmpath_upstream_failures_total{instance=\"dies\",kind=\"body\"}"), 1.0);
    app.running.stop().await;
    let answer = String::from_utf8(answer.to_vec()).unwrap();
    answer.strip_prefix("data: {\"a\":1}\n\ndata: {\"\n\n").expect("what came passes").to_owned()
}

#[tokio::test]
async fn an_engine_that_dies_inside_a_stream_ends_it_as_clients_expect() {
    let said = json!({
        "message": "the instance broke off its answer", "type": "InternalServerError", "param": null, "code": 500,
    });
    for path in ["/v1/completions", "/v1/chat/completions", "/v1/responses"] {
        let words = cut_off(path).await;
        let error = words.strip_prefix("data: ").and_then(|words| words.strip_suffix("\n\ndata: [DONE]\n\n"));
        let error: Value = serde_json::from_str(error.expect(&words)).unwrap();
        assert_eq!(error, json!({ "error": said }), "{path}");
    }
    // Anthropic's.
    let words = cut_off("/v1/messages").await;
    let error = words.strip_prefix("event: error\ndata: ").expect(&words);
    let error: Value = serde_json::from_str(error).unwrap();
    let said = json!({"type": "internal_error", "message": "the instance broke off its answer"});
    assert_eq!(error, json!({"type": "error", "error": said}));
}

#[tokio::test]
async fn the_models_are_those_of_the_whole_fleet_each_once() {
    let (one, two) = (start_mock(mock_config()).await, start_mock(mock_config()).await);
    let other = start_mock(MockConfig { model: "other".to_owned(), ..mock_config() }).await;
    let mut instances = vec![one.instance("one"), two.instance("two"), other.instance("other")];
    instances[2].model = "other".to_owned();
    instances.push(instance("gone", NOWHERE, None));
    let app = start_app(config(instances)).await;
    let (status, models) = get(app.http, "/v1/models").await;
    let models: Value = serde_json::from_str(&models).unwrap();
    let ids: Vec<&str> = models["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!((status, ids, &models["object"]), (200, vec!["m", "other"], &json!("list")));
    assert_eq!(models["data"][0]["owned_by"], "vllm");
    // What is known stays known.
    for mock in [one, two, other] {
        mock.running.stop().await;
    }
    assert_eq!(serde_json::from_str::<Value>(&get(app.http, "/v1/models").await.1).unwrap(), models);
    app.running.stop().await;
}

#[tokio::test]
async fn other_paths_pass_through_and_http_2_does_too() {
    let mock = start_mock(mock_config()).await;
    let app = start_app(config(vec![mock.instance("only")])).await;
    assert_eq!(get(app.http, "/health").await, (200, String::new()));
    assert_eq!(get(app.http, "/nowhere").await.0, 404);
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let body = completion(&prompt(1, 40), 2, true).to_string();
    let request =
        hyper::Request::post(format!("http://{}/v1/completions", app.http)).body(Full::new(Bytes::from(body)));
    let response = soon("a response", client.request(request.unwrap())).await.unwrap();
    assert_eq!((response.version(), response.status().as_u16()), (hyper::Version::HTTP_2, 200));
    let text = response.into_body().collect().await.unwrap().to_bytes();
    assert!(text.ends_with(b"data: [DONE]\n\n"));
    app.running.stop().await;
    mock.running.stop().await;
}

fn checked_often() -> Health {
    Health { interval: Some(Duration::from_millis(20)), failures_max: 3 }
}

#[tokio::test]
async fn an_instance_that_goes_is_noticed_and_so_is_its_return() {
    let mock = start_mock(mock_config()).await;
    let port = mock.http.port();
    let mut config = config(vec![mock.instance("only")]);
    config.health = checked_often();
    let app = start_app(config).await;
    let is = |availability| app.core.instances()[0].availability == availability;
    mock.running.stop().await;
    eventually("its going", || is(Availability::Down)).await;
    assert_eq!(post(app.http, "/v1/completions", &completion(&[1], 1, false)).await.0, 503);
    assert_eq!(app.metric("warmpath_instance_ready{instance=\"only\"}"), 0.0);
    let mock = start_mock(MockConfig { port, ..mock_config() }).await;
    eventually("its return", || is(Availability::Ready)).await;
    assert_eq!(post(app.http, "/v1/completions", &completion(&[1], 1, false)).await.0, 200);
    app.running.stop().await;
    mock.running.stop().await;
}

#[tokio::test]
async fn who_sleeps_or_is_paused_is_given_nothing() {
    for question in ["/is_sleeping", "/is_paused"] {
        let answer = format!("{{\"{}\": true}}", question.trim_start_matches('/'));
        let routes = Router::new().route("/health", on_get(async || "")).route(question, on_get(async move || answer));
        let mut config = config(vec![instance("only", serve(routes).await, None)]);
        config.health = checked_often();
        let app = start_app(config).await;
        eventually("it is noticed", || app.core.instances()[0].availability == Availability::Draining).await;
        assert_eq!(post(app.http, "/v1/completions", &completion(&[1], 1, false)).await.0, 503);
        app.running.stop().await;
    }
}

#[tokio::test]
async fn answers_that_fail_open_the_breaker() {
    let upstream = always(StatusCode::INTERNAL_SERVER_ERROR).await;
    let app = start_app(config(vec![instance("only", upstream, None)])).await;
    for _ in 0..3 {
        assert_eq!(post(app.http, "/v1/completions", &completion(&[1], 1, false)).await.0, 500);
    }
    assert_eq!(post(app.http, "/v1/completions", &completion(&[1], 1, false)).await.0, 503);
    assert_eq!(app.core.member(InstanceId(0)).name, "only");
    assert_eq!(app.metric("warmpath_upstream_failures_total{instance=\"only\",kind=\"status\"}"), 3.0);
    app.running.stop().await;
}
