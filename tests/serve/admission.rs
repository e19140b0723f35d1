//! Requests that wait for an instance to have room, through the sockets.

use crate::security::line;
use crate::support::{
    MODEL, RunningApp, config, eventually, get, instance, mock_config, open_post, post, prompt, send, soon, start_app,
    start_mock,
};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tonic::Code;
use warmpath::config::Config;
use warmpath::routing::admission::Saturation;
use warmpath::routing::policy::Tuning;
use warmpath::serve::proto::{CompleteRequest, FirstTokenRequest, Outcome, RouteRequest, Wait};

/// An instance that answers one request for each permit, and says in which order they came.
#[derive(Clone)]
struct Gate {
    seen: Arc<Mutex<Vec<String>>>,
    permits: Arc<Semaphore>,
    address: SocketAddr,
}

impl Gate {
    async fn open(permits: usize) -> Gate {
        async fn answer(State(gate): State<Gate>, body: Bytes) -> Response {
            let Ok(body) = serde_json::from_slice::<Value>(&body) else { return StatusCode::NOT_FOUND.into_response() };
            gate.seen.lock().unwrap().push(body["user"].as_str().unwrap_or_default().to_owned());
            gate.permits.acquire().await.unwrap().forget();
            axum::Json(json!({"usage": {"completion_tokens": 1}})).into_response()
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let gate = Gate { seen: Arc::default(), permits: Arc::new(Semaphore::new(permits)), address };
        let routes = Router::new().fallback(any(answer)).with_state(gate.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        gate
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

/// A router in front of one gate, which is saturated by one prompt of 100 tokens.
async fn start(change: impl FnOnce(&mut Config)) -> (Gate, RunningApp) {
    let gate = Gate::open(0).await;
    let mut config = config(vec![instance("a", gate.address, None)]);
    config.routing.saturation = Some(Saturation { prefill_tokens_max: Some(100), kv_usage_max: None });
    change(&mut config);
    (gate, start_app(config).await)
}

/// A router in front of one gate that holds who would wait there for more than a tenth of a step: one prompt of 30,000 tokens, which
/// take two seconds by estimate, is enough for that.
async fn start_holding(change: impl FnOnce(&mut Config)) -> (Gate, RunningApp) {
    let (gate, mut app) = start(|config| {
        config.routing.saturation = None;
        config.routing.tuning = Tuning::default().with_hold(0.1);
        change(config);
    })
    .await;
    // Nobody is held before a first token was told of at once.
    let placed = app.route(&prompt(0, 16)).await.unwrap();
    let request_id = placed.request_id;
    // In about as long as is expected, so that estimates stay what they are.
    tokio::time::sleep(Duration::from_secs_f64(placed.expected_ttft_seconds)).await;
    app.client.first_token(FirstTokenRequest { request_id }).await.unwrap();
    let outcome = Outcome::Finished.into();
    app.client.complete(CompleteRequest { request_id, output_tokens: 1, outcome }).await.unwrap();
    (gate, app)
}

/// Sends a prompt of so many tokens, which nobody has seen.
fn complete_long(app: &RunningApp, user: &str, tokens: u32) -> JoinHandle<Answer> {
    let seed = user.bytes().map(u32::from).sum();
    complete(app, user, json!({"prompt": prompt(seed, tokens)}))
}

async fn holds(app: &RunningApp, requests: usize) {
    let held = || app.metric("warmpath_held_requests{priority=\"normal\"}");
    eventually("holding", || held() == requests as f64).await;
}

struct Answer {
    status: u16,
    retry_after: Option<u64>,
    body: Value,
}

/// Sends a prompt of 100 tokens.
fn complete(app: &RunningApp, user: &str, more: Value) -> JoinHandle<Answer> {
    let seed = user.bytes().map(u32::from).sum();
    let mut body = json!({"model": MODEL, "prompt": prompt(seed, 100), "user": user});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let http = app.http;
    tokio::spawn(async move {
        let response = open_post(http, "/v1/completions", &body).await;
        let retry_after = response.headers().get("retry-after").map(|value| value.to_str().unwrap().parse().unwrap());
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        Answer { status, retry_after, body: serde_json::from_slice(&body).unwrap() }
    })
}

async fn waits(app: &RunningApp, priority: &str, requests: usize) {
    let series = format!("warmpath_queued_requests{{priority=\"{priority}\"}}");
    eventually("queueing", || app.metric(&series) == requests as f64).await;
}

async fn idle(app: &RunningApp) {
    eventually("idling", || app.core.router().in_flight() == 0).await;
    for priority in ["high", "normal", "low"] {
        for what in ["requests", "tokens", "bytes"] {
            assert_eq!(app.metric(&format!("warmpath_queued_{what}{{priority=\"{priority}\"}}")), 0.0);
        }
    }
}

#[tokio::test]
async fn one_that_finds_no_room_waits_for_some() {
    let (gate, app) = start(|_| {}).await;
    let first = complete(&app, "first", json!({}));
    eventually("the first one's arrival", || gate.seen() == ["first"]).await;
    assert_eq!(app.metric("warmpath_instance_saturated{instance=\"a\"}"), 1.0);
    let second = complete(&app, "second", json!({}));
    waits(&app, "normal", 1).await;
    assert_eq!(app.metric("warmpath_queued_tokens{priority=\"normal\"}"), 100.0);
    assert_eq!(gate.seen(), ["first"], "it is held back");
    gate.permits.add_permits(1);
    assert_eq!(soon("the first answer", first).await.unwrap().status, 200);
    eventually("the second one's arrival", || gate.seen() == ["first", "second"]).await;
    gate.permits.add_permits(1);
    assert_eq!(soon("the second answer", second).await.unwrap().status, 200);
    idle(&app).await;
    assert_eq!(app.metric("warmpath_queue_wait_seconds_count{end=\"admitted\"}"), 1.0);
}

#[tokio::test]
async fn who_cannot_wait_is_told_when_to_come_back() {
    let (gate, app) = start(|config| config.admission.queue_requests_max = 1).await;
    let (first, second) = (complete(&app, "first", json!({})), {
        eventually("the first one's arrival", || gate.seen().len() == 1).await;
        complete(&app, "second", json!({}))
    });
    waits(&app, "normal", 1).await;
    let third = soon("a refusal", complete(&app, "third", json!({}))).await.unwrap();
    assert_eq!((third.status, third.body["error"]["code"].as_u64()), (429, Some(429)), "{}", third.body);
    assert_eq!(third.body["error"]["type"], "TooManyRequestsError");
    assert!((1..=60).contains(&third.retry_after.unwrap()));
    // Another class has a queue of its own.
    let low = complete(&app, "low", json!({"priority": 3}));
    waits(&app, "low", 1).await;
    gate.permits.add_permits(3);
    for answer in [first, second, low] {
        assert_eq!(soon("an answer", answer).await.unwrap().status, 200);
    }
    idle(&app).await;
    assert_eq!(app.metric("warmpath_shed_total{reason=\"full\"}"), 1.0);
    assert_eq!(app.metric("warmpath_http_requests_total{answer=\"shed\"}"), 1.0);
}

#[tokio::test]
async fn nobody_waits_for_ever() {
    let (gate, app) = start(|config| config.admission.wait_max = Duration::from_millis(100)).await;
    let first = complete(&app, "first", json!({}));
    eventually("the first one's arrival", || gate.seen().len() == 1).await;
    let second = soon("a refusal", complete(&app, "second", json!({}))).await.unwrap();
    assert_eq!(second.status, 429);
    assert!(second.retry_after.is_some());
    gate.permits.add_permits(1);
    soon("the first answer", first).await.unwrap();
    idle(&app).await;
    assert_eq!(gate.seen(), ["first"]);
    assert_eq!(app.metric("warmpath_shed_total{reason=\"deadline\"}"), 1.0);
}

#[tokio::test]
async fn who_hangs_up_leaves_the_queue_and_is_never_sent() {
    let (gate, app) = start(|_| {}).await;
    let first = complete(&app, "first", json!({}));
    eventually("the first one's arrival", || gate.seen().len() == 1).await;
    let gone = complete(&app, "gone", json!({}));
    waits(&app, "normal", 1).await;
    let last = complete(&app, "last", json!({}));
    waits(&app, "normal", 2).await;
    gone.abort();
    waits(&app, "normal", 1).await;
    gate.permits.add_permits(2);
    for answer in [first, last] {
        assert_eq!(soon("an answer", answer).await.unwrap().status, 200);
    }
    assert_eq!(gate.seen(), ["first", "last"]);
    idle(&app).await;
    assert_eq!(app.metric("warmpath_queue_wait_seconds_count{end=\"left\"}"), 1.0);
}

#[tokio::test]
async fn the_urgent_go_first_by_body_and_by_header() {
    let (gate, app) = start(|_| {}).await;
    let mut answers = vec![complete(&app, "first", json!({}))];
    eventually("the first one's arrival", || gate.seen().len() == 1).await;
    for (user, priority, class) in
        [("later", json!(7), "low"), ("soon", json!(0), "normal"), ("now", json!(-1), "high")]
    {
        answers.push(complete(&app, user, json!({"priority": priority})));
        waits(&app, class, 1).await;
    }
    for answered in 1..=4 {
        gate.permits.add_permits(1);
        eventually("the next one's arrival", || gate.seen().len() == (answered + 1).min(4)).await;
    }
    assert_eq!(gate.seen(), ["first", "now", "soon", "later"]);
    for answer in answers {
        assert_eq!(soon("an answer", answer).await.unwrap().status, 200);
    }
    let request =
        hyper::Request::post(format!("http://{}/v1/completions", app.http)).header("x-warmpath-priority", "soon");
    let body = Bytes::from(json!({"model": MODEL, "prompt": [1, 2, 3]}).to_string());
    assert_eq!(send(request.body(Full::new(body)).unwrap()).await.status(), 400);
    idle(&app).await;
}

#[tokio::test]
async fn who_waits_when_the_router_stops_is_told_so() {
    let (gate, app) = start(|_| {}).await;
    let first = complete(&app, "first", json!({}));
    eventually("the first one's arrival", || gate.seen().len() == 1).await;
    let second = complete(&app, "second", json!({}));
    waits(&app, "normal", 1).await;
    let (running, core) = (app.running, app.core);
    let stopped = tokio::spawn(running.stop());
    let second = soon("a refusal", second).await.unwrap();
    assert_eq!((second.status, second.retry_after), (503, Some(1)));
    // What was placed is answered to its end.
    gate.permits.add_permits(1);
    assert_eq!(soon("the first answer", first).await.unwrap().status, 200);
    soon("the end", stopped).await.unwrap();
    assert_eq!(core.router().in_flight(), 0);
}

/// A request that was admitted and not taken is sent elsewhere at once, whoever waits.
#[tokio::test]
async fn a_retry_does_not_wait_again() {
    let gate = Gate::open(0).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refuses = listener.local_addr().unwrap();
    let routes = Router::new().fallback(|| async { StatusCode::SERVICE_UNAVAILABLE });
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let mut config = config(vec![instance("refuses", refuses, None), instance("gate", gate.address, None)]);
    config.routing.saturation = Some(Saturation { prefill_tokens_max: Some(100), kv_usage_max: None });
    let app = start_app(config).await;
    // Only one of them is not saturated, and that one refuses.
    let answers = ["first", "second", "third"].map(|user| complete(&app, user, json!({})));
    eventually("all of them at the gate", || gate.seen().len() == 3).await;
    assert!(app.metric("warmpath_upstream_retries_total{instance=\"refuses\"}") >= 2.0);
    gate.permits.add_permits(3);
    for answer in answers {
        assert_eq!(soon("an answer", answer).await.unwrap().status, 200);
    }
    idle(&app).await;
    assert_eq!(app.metric("warmpath_shed_total{reason=\"full\"}"), 0.0);
}

#[tokio::test]
async fn route_waits_too_as_long_as_its_deadline_lets_it() {
    let (_gate, mut app) = start(|_| {}).await;
    let first = app.route(&prompt(1, 100)).await.unwrap();
    let asked = || RouteRequest { model: MODEL.to_owned(), token_ids: prompt(2, 100), ..RouteRequest::default() };
    let mut hurried = tonic::Request::new(asked());
    // In the metadata only: a client that keeps time itself would give up before the router tells it anything.
    hurried.metadata_mut().insert("grpc-timeout", "50m".parse().unwrap());
    let refused = soon("a refusal", app.client.route(hurried)).await.unwrap_err();
    assert!(
        matches!(refused.code(), Code::ResourceExhausted | Code::DeadlineExceeded | Code::Cancelled),
        "{refused:?}"
    );
    let mut client = app.client.clone();
    let waiting = tokio::spawn(async move { client.route(asked()).await });
    waits(&app, "normal", 1).await;
    let end = CompleteRequest {
        request_id: first.request_id,
        outcome: Outcome::Finished.into(),
        ..CompleteRequest::default()
    };
    app.client.complete(end).await.unwrap();
    let second = soon("the second one", waiting).await.unwrap().unwrap().into_inner();
    assert_eq!((second.instance.as_str(), second.prompt_tokens), ("a", 100));
    app.running.stop().await;
}

#[tokio::test]
async fn a_keys_priority_is_that_of_requests_that_do_not_say_their_own() {
    let lines = [line("a", "a", ""), line("batch", "b", "priority=low")].join("\n");
    let (gate, app) = start(|config| config.security.keys.clients.lines = Some(lines)).await;
    let asked = |key: &'static str, more: Value| {
        let mut body = json!({"model": MODEL, "prompt": prompt(1, 100), "user": key});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let request = hyper::Request::post(format!("http://{}/v1/completions", app.http)).header("x-api-key", key);
        tokio::spawn(send(request.body(Full::new(Bytes::from(body.to_string()))).unwrap()))
    };
    let first = asked("a", json!({}));
    eventually("the first at the gate", || gate.seen().len() == 1).await;
    let batch = asked("b", json!({}));
    waits(&app, "low", 1).await;
    let other = asked("a", json!({}));
    waits(&app, "normal", 1).await;
    let urgent = asked("b", json!({"priority": -1}));
    waits(&app, "high", 1).await;
    gate.permits.add_permits(4);
    for answer in [first, batch, other, urgent] {
        assert_eq!(soon("an answer", answer).await.unwrap().status(), 200);
    }
    app.running.stop().await;
}

#[tokio::test]
async fn route_is_refused_with_a_pushback_where_nothing_may_wait() {
    let (_gate, mut app) = start(|config| config.admission.queue_requests_max = 0).await;
    app.route(&prompt(1, 100)).await.unwrap();
    let refused = app.route(&prompt(2, 100)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let pushback: u64 = refused.metadata().get("grpc-retry-pushback-ms").unwrap().to_str().unwrap().parse().unwrap();
    assert!((1_000..=60_000).contains(&pushback));
}

#[tokio::test]
async fn who_is_held_waits_for_the_first_token_of_those_before_it_and_the_shortest_is_first() {
    let (gate, app) = start_holding(|_| {}).await;
    let mut answers = vec![complete_long(&app, "first", 30_000)];
    eventually("the first one's arrival", || gate.seen() == ["first"]).await;
    for (held, (user, tokens)) in [("long", 20_000), ("short", 1_000), ("middle", 8_000)].into_iter().enumerate() {
        answers.push(complete_long(&app, user, tokens));
        holds(&app, held + 1).await;
    }
    assert_eq!(app.metric("warmpath_instance_saturated{instance=\"a\"}"), 0.0, "it has room");
    assert_eq!(app.core.router().in_flight(), 1, "what is held is booked nowhere");
    for answered in 1..=4 {
        gate.permits.add_permits(1);
        eventually("the next one's arrival", || gate.seen().len() == (answered + 1).min(4)).await;
    }
    assert_eq!(gate.seen(), ["first", "short", "middle", "long"]);
    for answer in answers {
        assert_eq!(soon("an answer", answer).await.unwrap().status, 200);
    }
    idle(&app).await;
    assert_eq!(app.metric("warmpath_held_seconds_count"), 3.0);
    assert!(app.metric("warmpath_route_decisions_total{outcome=\"held\"}") >= 3.0);
    let status: Value = serde_json::from_str(&get(app.admin, "/status").await.1).unwrap();
    let held: Vec<bool> =
        status["decisions"].as_array().unwrap().iter().map(|placed| placed["was_held"].as_bool().unwrap()).collect();
    // The last one is that of which a first token was told of at once.
    assert_eq!(held, [true, true, true, false, false], "{status}");
    assert!(status["decisions"][0]["waited_seconds"].as_f64().unwrap() > 0.0);
}

/// By estimate its instance is nearly done after two seconds; nobody tells so.
#[tokio::test]
async fn who_is_held_is_placed_when_by_estimate_there_is_room() {
    let (gate, app) = start_holding(|config| config.routing.tuning = Tuning::default().with_hold(1.0)).await;
    let first = complete_long(&app, "first", 30_000);
    eventually("the first one's arrival", || gate.seen() == ["first"]).await;
    let second = complete_long(&app, "second", 1_000);
    holds(&app, 1).await;
    eventually("the second one's arrival", || gate.seen() == ["first", "second"]).await;
    gate.permits.add_permits(2);
    for answer in [first, second] {
        assert_eq!(soon("an answer", answer).await.unwrap().status, 200);
    }
    idle(&app).await;
}

#[tokio::test]
async fn nobody_is_refused_for_being_held() {
    // It waited as long as anyone may; the queue is full; the router stops.
    let (gate, app) = start_holding(|config| config.admission.wait_max = Duration::from_millis(100)).await;
    let first = complete_long(&app, "first", 60_000);
    eventually("the first one's arrival", || gate.seen() == ["first"]).await;
    let second = complete_long(&app, "second", 30_000);
    eventually("the second one's arrival", || gate.seen() == ["first", "second"]).await;
    gate.permits.add_permits(2);
    for answer in [first, second] {
        assert_eq!(soon("an answer", answer).await.unwrap().status, 200);
    }
    idle(&app).await;

    let (gate, app) = start_holding(|config| config.admission.queue_requests_max = 1).await;
    let mut answers = vec![complete_long(&app, "first", 60_000)];
    eventually("the first one's arrival", || gate.seen() == ["first"]).await;
    answers.push(complete_long(&app, "held", 30_000));
    holds(&app, 1).await;
    answers.push(complete_long(&app, "third", 30_000));
    eventually("the third one's arrival", || gate.seen() == ["first", "third"]).await;
    let (running, core) = (app.running, app.core);
    let stopped = tokio::spawn(running.stop());
    eventually("the held one's arrival", || gate.seen() == ["first", "third", "held"]).await;
    gate.permits.add_permits(3);
    for answer in answers {
        assert_eq!(soon("an answer", answer).await.unwrap().status, 200);
    }
    soon("the end", stopped).await.unwrap();
    assert_eq!(core.router().in_flight(), 0);
}

#[tokio::test]
async fn who_is_held_and_hangs_up_or_has_no_more_time_is_never_sent() {
    let (gate, mut app) = start_holding(|_| {}).await;
    let first = complete_long(&app, "first", 60_000);
    eventually("the first one's arrival", || gate.seen() == ["first"]).await;
    let gone = complete_long(&app, "gone", 30_000);
    holds(&app, 1).await;
    gone.abort();
    holds(&app, 0).await;
    let asked = RouteRequest { model: MODEL.to_owned(), token_ids: prompt(2, 30_000), ..RouteRequest::default() };
    let explained = app.client.explain(asked.clone()).await.unwrap().into_inner();
    assert_eq!((explained.wait(), explained.room_in_seconds.is_some_and(|seconds| seconds > 0.5)), (Wait::Held, true));
    let mut hurried = tonic::Request::new(asked);
    hurried.metadata_mut().insert("grpc-timeout", "50m".parse().unwrap());
    soon("a refusal", app.client.route(hurried)).await.unwrap_err();
    // Its client counts the time by itself: the router may hear of its going a little later.
    holds(&app, 0).await;
    gate.permits.add_permits(1);
    assert_eq!(soon("the first answer", first).await.unwrap().status, 200);
    idle(&app).await;
    assert_eq!(gate.seen(), ["first"]);
}

/// Two simulated engines at fifty times their pace, and a hundred requests of three conversations at once.
#[tokio::test]
async fn under_load_all_who_are_held_are_answered_and_nothing_stays_booked() {
    let engine = || start_mock(warmpath::mock::MockConfig { speed: 50.0, ..mock_config() });
    let (mut a, mut b) = (engine().await, engine().await);
    let mut config = config(vec![a.instance("a"), b.instance("b")]);
    config.routing.prefill = config.routing.prefill.faster(50.0);
    config.routing.tuning = Tuning::default().with_hold(0.5);
    let app = start_app(config).await;
    a.subscribed().await;
    b.subscribed().await;
    let one = |number: u32| {
        let mut prompt = prompt(number % 3, 4_000);
        prompt.extend((0..number % 40 * 100).map(|token| 1_000_000 + number * 10_000 + token));
        let body = json!({"model": MODEL, "prompt": prompt, "max_tokens": 3, "stream": true});
        let http = app.http;
        tokio::spawn(async move { post(http, "/v1/completions", &body).await })
    };
    // Nobody is held before a first token was told of at once.
    assert_eq!(one(0).await.unwrap().0, 200);
    let answers: Vec<_> = (1..100).map(one).collect();
    for answer in answers {
        let (status, body) = soon("an answer", answer).await.unwrap();
        assert_eq!((status, body.trim_end().ends_with("data: [DONE]")), (200, true), "{body}");
    }
    eventually("idling", || app.core.router().in_flight() == 0).await;
    assert_eq!(app.metric("warmpath_held_requests{priority=\"normal\"}"), 0.0);
    assert!(app.metric("warmpath_held_seconds_count") > 10.0, "most had to wait");
    assert_eq!(
        app.metric("warmpath_queue_wait_seconds_count{end=\"admitted\"}"),
        app.metric("warmpath_held_seconds_count")
    );
    assert_eq!(app.metric("warmpath_route_decisions_total{outcome=\"routed\"}"), 100.0);
    app.running.stop().await;
    a.running.stop().await;
    b.running.stop().await;
}
