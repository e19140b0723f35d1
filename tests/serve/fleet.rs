//! Instances that come and go while the router runs, those who watch it, and why a prompt goes where it goes.

use crate::support::{
    MODEL, RunningApp, config, eventually, get, instance, mock_config, open_post, prompt, soon, start_app, start_mock,
};
use http_body_util::BodyExt;
use serde_json::json;
use std::net::SocketAddr;
use tonic::{Code, Streaming};
use warmpath::mock::MockConfig;
use warmpath::routing::{Availability, Fact, InstanceId, Knowledge};
use warmpath::serve::proto::{
    Availability as Told, Barred, Change, CompleteRequest, DeregisterRequest, DrainRequest, Outcome,
    RegisterInstanceRequest, RouteRequest, WatchRequest, WatchResponse,
};

const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);
const NOWHERE_ELSE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 2);

fn registration(name: &str, address: SocketAddr) -> RegisterInstanceRequest {
    let url = format!("http://{address}");
    RegisterInstanceRequest { name: name.to_owned(), url, model: MODEL.to_owned(), ..Default::default() }
}

fn route_request(tokens: &[u32]) -> RouteRequest {
    RouteRequest { model: MODEL.to_owned(), token_ids: tokens.to_vec(), ..RouteRequest::default() }
}

fn deregister(name: &str, wait: u32) -> DeregisterRequest {
    DeregisterRequest { instance: name.to_owned(), wait_seconds_max: Some(wait) }
}

fn drain(name: &str, resume: bool) -> DrainRequest {
    DrainRequest { instance: name.to_owned(), resume }
}

async fn told(watch: &mut Streaming<WatchResponse>) -> (Change, String) {
    let message = soon("a change", watch.message()).await.unwrap().expect("the stream goes on");
    (message.change(), message.instance)
}

async fn watched(app: &mut RunningApp) -> Streaming<WatchResponse> {
    app.client.watch(WatchRequest {}).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_registered_instance_is_watched_and_routed_to_until_it_leaves_and_can_come_back() {
    let mut mock = start_mock(mock_config()).await;
    let mut app = start_app(config(vec![instance("configured", NOWHERE, None)])).await;
    let registration = RegisterInstanceRequest {
        kv_events_endpoint: Some(format!("tcp://{}", mock.kv_events)),
        ..registration("late", mock.http)
    };
    let joined = app.fleet.register_instance(registration.clone()).await.unwrap().into_inner();
    assert_eq!(joined.instances, ["late"]);
    mock.subscribed().await;
    let wanted = prompt(1, 100);
    mock.complete(&wanted, 4).await;
    eventually("its blocks", || app.cached_blocks(1) == 6).await;
    let routed = app.route(&wanted).await.unwrap();
    assert_eq!((routed.instance.as_str(), routed.overlap_tokens), ("late", 96));

    // A request of its own keeps it; then it is gone, and so is what was known of it.
    let end = CompleteRequest { request_id: routed.request_id, outcome: Outcome::Finished.into(), output_tokens: 1 };
    app.client.complete(end).await.unwrap();
    let left = soon("leaving", app.fleet.deregister(deregister("late", 60))).await.unwrap().into_inner();
    assert_eq!((left.unfinished, app.cached_blocks(1)), (0, 0));
    assert_eq!(app.route(&wanted).await.unwrap().instance, "configured");
    let again = app.fleet.deregister(deregister("late", 60)).await.unwrap_err();
    assert_eq!(again.code(), Code::NotFound);

    // It begins anew, under its old id, and its events are heard again.
    app.fleet.register_instance(registration).await.unwrap();
    eventually("the second subscription", || app.metric("warmpath_kv_events_connected{instance=\"late\"}") == 1.0)
        .await;
    mock.complete(&prompt(2, 100), 4).await;
    eventually("its blocks", || app.cached_blocks(1) >= 6).await;
    app.running.stop().await;
    mock.running.stop().await;
}

#[tokio::test]
async fn what_cannot_be_registered_is_refused_with_what_to_do() {
    let mut app = start_app(config(vec![instance("a", NOWHERE, None)])).await;
    let wrong = [
        (registration("a", NOWHERE_ELSE), Code::AlreadyExists, "called \"a\" already"),
        (registration("b", NOWHERE), Code::AlreadyExists, "is at http://127.0.0.1:1 already"),
        (registration("", NOWHERE_ELSE), Code::InvalidArgument, "name"),
        (
            RegisterInstanceRequest { url: "vllm".to_owned(), ..registration("b", NOWHERE_ELSE) },
            Code::InvalidArgument,
            "http(s)://host:port",
        ),
        (
            RegisterInstanceRequest { data_parallel_ranks: Some(u32::MAX), ..registration("b", NOWHERE_ELSE) },
            Code::InvalidArgument,
            "ranks",
        ),
        (registration(&"x".repeat(2000), NOWHERE_ELSE), Code::InvalidArgument, "too long"),
    ];
    for (registration, code, words) in wrong {
        let refused = app.fleet.register_instance(registration).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
        assert!(refused.message().contains(words), "{refused}");
    }
    // All ranks or none: the second one's name is taken.
    app.fleet.register_instance(registration("c.dp1", NOWHERE_ELSE)).await.unwrap();
    let ranks = RegisterInstanceRequest {
        data_parallel_ranks: Some(2),
        ..registration("c", SocketAddr::from(([127, 0, 0, 1], 3)))
    };
    assert_eq!(app.fleet.register_instance(ranks).await.unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(app.core.members().map(|(_, member)| member.name.clone()).collect::<Vec<_>>(), ["a", "c.dp1"]);
    app.running.stop().await;
}

#[tokio::test]
async fn the_fleet_is_not_changed_through_the_open_listener_or_over_http_1() {
    let app = start_app(config(vec![instance("a", NOWHERE, None)])).await;
    let open = format!("http://{}", app.grpc);
    let mut client = warmpath::serve::proto::fleet_client::FleetClient::connect(open).await.unwrap();
    let refused = client.register_instance(registration("b", NOWHERE_ELSE)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    let answer = open_post(app.admin, "/warmpath.v1.Fleet/Drain", &json!({})).await;
    assert_eq!(answer.headers()["grpc-status"], "7");
    assert_eq!(get(app.admin, "/nothing").await.0, 404);
    app.running.stop().await;
}

#[tokio::test]
async fn an_instance_that_leaves_under_load_ends_what_it_has() {
    let slow = MockConfig { speed: 20.0, ..mock_config() };
    let (first, second) = (start_mock(slow.clone()).await, start_mock(slow).await);
    let mut app = start_app(config(vec![first.instance("first"), second.instance("second")])).await;
    let mut answers = Vec::new();
    for seed in 0..16 {
        // Far longer than it takes to ask for all of them.
        let body = json!({"model": MODEL, "prompt": prompt(seed, 64), "max_tokens": 2000, "stream": true});
        answers.push(open_post(app.http, "/v1/completions", &body).await);
    }
    assert!(app.core.router().requests_at(InstanceId(0)) > 0);
    let mut leaving = app.fleet.clone();
    let left = tokio::spawn(async move { leaving.deregister(deregister("first", 60)).await });
    eventually("draining", || app.core.instances()[0].availability == Availability::Draining).await;
    assert_eq!(app.route(&prompt(50, 40)).await.unwrap().instance, "second");
    for answer in answers {
        assert_eq!(answer.status(), 200);
        let text = soon("an answer", answer.into_body().collect()).await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&text).ends_with("data: [DONE]\n\n"));
    }
    assert_eq!(soon("leaving", left).await.unwrap().unwrap().into_inner().unfinished, 0);
    assert_eq!(app.core.instances().len(), 1);
    app.running.stop().await;
    first.running.stop().await;
    second.running.stop().await;
}

#[tokio::test]
async fn who_does_not_end_in_time_is_told_of_and_forgotten() {
    let mut app = start_app(config(vec![instance("a", NOWHERE, None)])).await;
    let routed = app.route(&prompt(1, 40)).await.unwrap();
    assert_eq!(app.fleet.drain(drain("a", false)).await.unwrap().into_inner().in_flight, 1);
    assert_eq!(app.route(&prompt(1, 40)).await.unwrap_err().code(), Code::Unavailable);
    app.fleet.drain(drain("a", true)).await.unwrap();
    app.route(&prompt(1, 40)).await.unwrap();
    assert_eq!(app.fleet.deregister(deregister("a", 0)).await.unwrap().into_inner().unfinished, 2);
    let end = CompleteRequest { request_id: routed.request_id, outcome: Outcome::Finished.into(), output_tokens: 1 };
    assert_eq!(app.client.complete(end).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(app.route(&prompt(1, 40)).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(app.core.router().in_flight(), 0);
    app.running.stop().await;
}

#[tokio::test]
async fn a_watcher_hears_who_is_there_and_then_every_change_in_order() {
    let mut app = start_app(config(vec![instance("a", NOWHERE, None), instance("b", NOWHERE_ELSE, None)])).await;
    let mut watch = watched(&mut app).await;
    assert_eq!(told(&mut watch).await, (Change::Joined, "a".to_owned()));
    assert_eq!(told(&mut watch).await, (Change::Joined, "b".to_owned()));
    assert_eq!(told(&mut watch).await, (Change::SnapshotEnd, String::new()));

    let at = SocketAddr::from(([127, 0, 0, 1], 3));
    app.fleet.register_instance(registration("c", at)).await.unwrap();
    app.fleet.drain(drain("b", false)).await.unwrap();
    // Twice is once: it drains already.
    app.fleet.drain(drain("b", false)).await.unwrap();
    app.core.learn(Fact::Known { instance: InstanceId(2), knowledge: Knowledge::Exact }).unwrap();
    app.fleet.deregister(deregister("c", 0)).await.unwrap();
    assert_eq!(told(&mut watch).await, (Change::Joined, "c".to_owned()));
    let drains = soon("a change", watch.message()).await.unwrap().unwrap();
    assert_eq!((drains.change(), drains.instance.as_str()), (Change::State, "b"));
    assert_eq!(drains.availability(), Told::Draining);
    assert_eq!(told(&mut watch).await, (Change::State, "c".to_owned()));
    // It drains before it leaves.
    assert_eq!(told(&mut watch).await, (Change::State, "c".to_owned()));
    assert_eq!(told(&mut watch).await, (Change::Left, "c".to_owned()));
    // Nobody's watch keeps the router from stopping.
    app.running.stop().await;
    let ended = soon("the end", watch.message()).await.unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_watcher_that_does_not_keep_up_is_told_so_and_counted() {
    let mut app = start_app(config(vec![instance("a", NOWHERE, None)])).await;
    let mut watch = watched(&mut app).await;
    // Nothing else runs meanwhile, so that the watcher cannot keep up.
    for availability in [Availability::Down, Availability::Ready].into_iter().cycle().take(5000) {
        app.core.learn(Fact::Changed { instance: InstanceId(0), availability }).unwrap();
    }
    let ended = loop {
        match soon("a change", watch.message()).await {
            Ok(change) => assert!(change.is_some()),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::Aborted, "{ended}");
    assert!(ended.message().contains("watch again"), "{ended}");
    assert_eq!(app.metric("warmpath_watchers_lost_total"), 1.0);
    app.running.stop().await;
}

#[tokio::test]
async fn too_many_watchers_are_refused_and_those_who_go_make_room() {
    let mut app = start_app(config(vec![instance("a", NOWHERE, None)])).await;
    let mut watches = Vec::new();
    for _ in 0..256 {
        watches.push(watched(&mut app).await);
    }
    assert_eq!(app.client.watch(WatchRequest {}).await.unwrap_err().code(), Code::ResourceExhausted);
    drop(watches);
    for attempt in 0.. {
        match app.client.watch(WatchRequest {}).await {
            Ok(_) => break,
            Err(status) => assert!(attempt < 10_000, "{status}"),
        }
        tokio::task::yield_now().await;
    }
    app.running.stop().await;
}

#[tokio::test]
async fn an_explanation_says_what_route_then_does_and_books_nothing() {
    let instances = ["a", "b", "c"].into_iter().zip(1..);
    let instances = instances.map(|(name, port)| instance(name, SocketAddr::from(([127, 0, 0, 1], port)), None));
    let mut app = start_app(config(instances.collect())).await;
    let wanted = prompt(1, 100);
    let first = app.route(&wanted).await.unwrap();
    app.fleet.drain(drain("c", false)).await.unwrap();
    for allowed in [vec![], vec!["a".to_owned()], vec!["b".to_owned()]] {
        let request = RouteRequest { allowed_instances: allowed.clone(), ..route_request(&wanted) };
        let in_flight = app.core.router().in_flight();
        let explained = app.client.explain(request.clone()).await.unwrap().into_inner();
        let again = app.client.explain(request.clone()).await.unwrap().into_inner();
        assert_eq!(explained.chosen, again.chosen);
        assert_eq!(app.core.router().in_flight(), in_flight);
        assert_eq!(explained.prompt_tokens, 100);
        let names: Vec<&str> = explained.instances.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(explained.instances[2].barred(), Barred::Draining);
        for one in &explained.instances[..2] {
            let may = allowed.is_empty() || allowed.contains(&one.name);
            assert_eq!(one.barred() == Barred::Unspecified, may, "{one:?}");
            assert_eq!(one.prefill_seconds.is_some(), may);
            assert!(one.name != first.instance || one.overlap_tokens == 96, "{one:?}");
        }
        let chosen = explained.instances.iter().find(|one| one.name == explained.chosen).unwrap();
        let routed = app.client.route(request).await.unwrap().into_inner();
        assert_eq!((&routed.instance, routed.overlap_tokens), (&explained.chosen, chosen.overlap_tokens));
        if let [only] = &allowed[..] {
            assert_eq!(&routed.instance, only);
        }
    }
    let none = RouteRequest { allowed_instances: vec!["z".to_owned()], ..route_request(&wanted) };
    assert_eq!(app.client.route(none.clone()).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(app.client.explain(none).await.unwrap_err().code(), Code::NotFound);
    let many = RouteRequest { allowed_instances: vec!["a".to_owned(); 257], ..route_request(&wanted) };
    assert_eq!(app.client.route(many).await.unwrap_err().code(), Code::InvalidArgument);
    app.running.stop().await;
}

#[tokio::test]
async fn a_text_is_made_tokens_where_there_is_a_tokenizer() {
    let mut config = config(vec![instance("a", NOWHERE, None)]);
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vllm_render/tools");
    config.tokenizers = vec![warmpath::config::Tokenizer { model: MODEL.to_owned(), path: folder }];
    // However busy the machine is.
    config.http.tokenize_max = std::time::Duration::from_secs(30);
    let mut app = start_app(config).await;
    let text = Some("A text that is long enough to be several blocks of tokens. ".repeat(20));
    let request = RouteRequest { text: text.clone(), ..route_request(&[]) };
    let first = app.client.route(request.clone()).await.unwrap().into_inner();
    let second = app.client.route(request).await.unwrap().into_inner();
    assert_eq!(first.prompt_tokens, second.prompt_tokens);
    assert!(first.overlap_tokens == 0 && second.overlap_tokens > 0, "{second:?}");
    let both = RouteRequest { text: text.clone(), ..route_request(&[1]) };
    assert_eq!(app.client.route(both).await.unwrap_err().code(), Code::InvalidArgument);
    assert!(!second.is_estimated);
    let other = RouteRequest { text, model: "other".to_owned(), ..route_request(&[]) };
    assert_eq!(app.client.route(other).await.unwrap_err().code(), Code::NotFound);
    app.running.stop().await;
}

#[tokio::test]
async fn a_text_goes_by_its_bytes_without_a_tokenizer_and_by_load_where_there_is_no_time() {
    let text = Some("A text that is long enough to be several blocks of tokens. ".repeat(20));
    let request = RouteRequest { text, ..route_request(&[]) };
    let mut app = start_app(config(vec![instance("a", NOWHERE, None), instance("b", NOWHERE_ELSE, None)])).await;
    let first = app.client.route(request.clone()).await.unwrap().into_inner();
    // A quarter of its bytes, and what it shares is guessed too.
    assert_eq!((first.is_estimated, first.prompt_tokens, first.overlap_tokens), (true, 1180 / 4, 0));
    let end = CompleteRequest { request_id: first.request_id, outcome: Outcome::Finished.into(), output_tokens: 1 };
    app.client.complete(end).await.unwrap();
    let second = app.client.route(request.clone()).await.unwrap().into_inner();
    assert!(second.instance == first.instance && second.overlap_tokens > 0, "{second:?}");
    assert!(app.client.explain(request.clone()).await.unwrap().into_inner().is_estimated);
    assert_eq!(app.metric("warmpath_guessed_lookups_total{why=\"no_tokenizer\"}"), 3.0);
    let empty = RouteRequest { text: Some(String::new()), ..route_request(&[]) };
    assert_eq!(app.client.route(empty).await.unwrap_err().code(), Code::InvalidArgument);
    app.running.stop().await;

    let mut config = config(vec![instance("a", NOWHERE, None)]);
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vllm_render/tools");
    config.tokenizers = vec![warmpath::config::Tokenizer { model: MODEL.to_owned(), path: folder }];
    config.http.tokenize_max = std::time::Duration::ZERO;
    let mut app = start_app(config).await;
    // Longer than can be made tokens in no time.
    let text = Some("One word after another, and none like those before. ".repeat(20_000));
    let late = app.client.route(RouteRequest { text, ..route_request(&[]) }).await.unwrap().into_inner();
    assert_eq!((late.is_estimated, late.prompt_tokens, late.overlap_tokens), (true, 260_000, 0));
    assert_eq!(app.metric("warmpath_routed_by_load_total{reason=\"late\"}"), 1.0);
    app.running.stop().await;
}

#[tokio::test]
async fn the_rank_to_send_to_is_told_and_all_ranks_are_allowed_by_one_name() {
    let mut app = start_app(config(vec![instance("a", NOWHERE, None)])).await;
    let ranks = RegisterInstanceRequest { data_parallel_ranks: Some(2), ..registration("many", NOWHERE_ELSE) };
    app.fleet.register_instance(ranks).await.unwrap();
    let mut told = Vec::new();
    for (allowed, seed) in [("many", 1), ("many", 2), ("many.dp1", 3), ("a", 4)] {
        let request = RouteRequest { allowed_instances: vec![allowed.to_owned()], ..route_request(&prompt(seed, 100)) };
        let routed = app.client.route(request).await.unwrap().into_inner();
        told.push((routed.instance, routed.data_parallel_rank));
    }
    // The second one goes to the rank that is idle.
    told[..2].sort();
    let expected = [("many.dp0", Some(0)), ("many.dp1", Some(1)), ("many.dp1", Some(1)), ("a", None)];
    assert_eq!(told, expected.map(|(name, rank)| (name.to_owned(), rank)));
    app.running.stop().await;
}

/// What `warmpath` prints when it is called with these arguments.
async fn warmpath(arguments: &[&str]) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_warmpath"));
    command.args(arguments);
    let run = tokio::task::spawn_blocking(move || command.output());
    let output = soon("the command", run).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn the_command_line_looks_at_the_fleet_and_changes_it() {
    let app = start_app(config(vec![instance("a", NOWHERE, None)])).await;
    let (router, admin) = (format!("http://{}", app.grpc), format!("http://{}", app.admin));
    let at = ["--router", &router, "--admin", &admin];
    let instances = async |arguments: &[&str]| warmpath(&[&["instances"], arguments, &at].concat()).await;
    let joined = instances(&["register", "b", "http://127.0.0.1:2", "--model", MODEL]).await;
    assert_eq!(joined, "joined: b\n");
    assert_eq!(instances(&["drain", "b"]).await, "0 requests in flight there\n");
    let listed = instances(&["--json"]).await;
    let states: Vec<serde_json::Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&states[0]["instance"], &states[0]["availability"]), (&json!("a"), &json!("ready")));
    assert_eq!((&states[1]["instance"], &states[1]["availability"]), (&json!("b"), &json!("draining")));
    let explain = ["route", "--router", &router, "--model", MODEL, "--token-ids", "1,2,3", "--explain"];
    let explained = warmpath(&explain).await;
    assert!(explained.contains("* a: 0 tokens cached (approximate)"), "{explained}");
    assert!(
        explained.contains("  b: 0 tokens cached") && explained.contains("may not take it: draining"),
        "{explained}"
    );
    let explained = warmpath(&[&explain[..], &["--json"]].concat()).await;
    let first: serde_json::Value = serde_json::from_str(explained.lines().next().unwrap()).unwrap();
    assert_eq!((&first["chosen"], &first["barred"]), (&json!(true), &json!(null)));
    let text = ["route", "--router", &router, "--model", MODEL, "--text", "It was", "--allow", "a", "--session", "s"];
    let placed = warmpath(&[&text[..], &["--lora", "l", "--cache-salt", "c"]].concat()).await;
    assert!(placed.starts_with("a at http://127.0.0.1:1: about 0 of 1 prompt tokens"), "{placed}");
    assert_eq!(app.core.router().in_flight(), 0);
    assert_eq!(instances(&["remove", "b"]).await, "removed; 0 requests had not ended\n");
    assert_eq!(instances(&["list"]).await.lines().count(), 1);
    app.running.stop().await;
}
