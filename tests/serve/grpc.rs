//! The gRPC service: decisions over real mocks, reports, statuses, health and reflection.

use crate::support::{config, eventually, instance, mock_config, prompt, soon, start_app, start_mock};
use std::net::SocketAddr;
use std::time::Duration;
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use warmpath::mock::MockConfig;
use warmpath::routing::Knowledge;
use warmpath::serve::proto::{self, CompleteRequest, FirstTokenRequest, InstancesRequest, Outcome, RouteRequest};

/// Nobody is there; an instance without events needs no one to be.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

async fn channel(address: SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

fn finished(request_id: u64) -> CompleteRequest {
    CompleteRequest { request_id, outcome: Outcome::Finished.into(), output_tokens: 4 }
}

#[tokio::test]
async fn a_prompt_goes_where_it_is_cached_until_it_is_evicted() {
    // 8 blocks of 16 tokens: one prompt of 100 tokens and its output, and little else.
    let small = MockConfig { blocks: Some(8), ..mock_config() };
    let (mut first, mut second) = (start_mock(small.clone()).await, start_mock(small).await);
    let mut app = start_app(config(vec![first.instance("first"), second.instance("second")])).await;
    first.subscribed().await;
    second.subscribed().await;

    let wanted = prompt(1, 100);
    assert_eq!(app.route(&wanted).await.unwrap().overlap_tokens, 0);
    second.complete(&wanted, 4).await;
    eventually("the second mock's blocks", || app.cached_blocks(1) == 6).await;

    // 6 full blocks; the last 4 tokens are no block.
    let routed = app.route(&wanted).await.unwrap();
    assert_eq!((routed.instance.as_str(), routed.url), ("second", format!("http://{}", second.http)));
    assert_eq!((routed.prompt_tokens, routed.overlap_tokens, routed.best_overlap_tokens), (100, 96, 96));
    assert!(routed.expected_ttft_seconds > 0.0);
    // The engine always computes the last token, so a prompt of exactly 6 blocks can use 5.
    assert_eq!(app.route(&wanted[..96]).await.unwrap().best_overlap_tokens, 80);
    assert_eq!(app.knowledge(1), Knowledge::Exact);

    // What is on its way counts as cached where it was sent; from here on nothing is.
    for request_id in 0..3 {
        app.client.complete(finished(request_id)).await.unwrap();
    }
    // Another prompt takes the blocks that were used longest ago: all of them.
    second.complete(&prompt(2, 120), 4).await;
    eventually("the eviction", || app.cached_blocks(1) == 7).await;
    let routed = app.route(&wanted).await.unwrap();
    assert_eq!(routed.best_overlap_tokens, 0, "{routed:?}");
    assert_eq!(app.knowledge(1), Knowledge::Exact);

    app.running.stop().await;
    first.running.stop().await;
    second.running.stop().await;
}

#[tokio::test]
async fn what_an_engine_generates_can_be_reused_too() {
    let mut mock = start_mock(mock_config()).await;
    let mut app = start_app(config(vec![mock.instance("only")])).await;
    mock.subscribed().await;
    let first = prompt(1, 20);
    let body = serde_json::json!({"model": "m", "prompt": first, "max_tokens": 50, "return_token_ids": true});
    let (_, answer) = crate::support::post(mock.http, "/v1/completions", &body).await;
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let output = answer["choices"][0]["token_ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32);
    let conversation: Vec<u32> = first.into_iter().chain(output).chain(prompt(2, 10)).collect();

    // 69 of the 70 tokens were computed: 4 full blocks.
    eventually("the decoded blocks", || app.cached_blocks(0) == 4).await;
    assert_eq!(app.route(&conversation).await.unwrap().overlap_tokens, 64);
    app.running.stop().await;
    mock.running.stop().await;
}

#[tokio::test]
async fn a_salted_prompt_is_cached_for_its_tenant_only() {
    let mut mock = start_mock(mock_config()).await;
    let mut app = start_app(config(vec![mock.instance("only")])).await;
    mock.subscribed().await;
    let body = serde_json::json!({"model": "m", "prompt": prompt(1, 40), "max_tokens": 1, "cache_salt": "tenant"});
    crate::support::post(mock.http, "/v1/completions", &body).await;
    eventually("the salted blocks", || app.cached_blocks(0) == 2).await;

    assert_eq!(app.route(&prompt(1, 40)).await.unwrap().overlap_tokens, 0);
    let salted = RouteRequest {
        model: "m".to_owned(),
        token_ids: prompt(1, 40),
        cache_salt: Some("tenant".to_owned()),
        ..RouteRequest::default()
    };
    assert_eq!(app.client.route(salted).await.unwrap().into_inner().overlap_tokens, 32);
    app.running.stop().await;
    mock.running.stop().await;
}

#[tokio::test]
async fn a_request_is_in_flight_until_it_is_completed_once() {
    let mut app = start_app(config(vec![instance("only", NOWHERE, None)])).await;
    let routed = app.route(&prompt(1, 40)).await.unwrap();
    assert_eq!(app.core.router().in_flight(), 1);

    let first_token = FirstTokenRequest { request_id: routed.request_id };
    app.client.first_token(first_token).await.unwrap();
    assert_eq!(app.client.first_token(first_token).await.unwrap_err().code(), Code::NotFound);
    let instances = app.client.instances(InstancesRequest {}).await.unwrap().into_inner().instances;
    let load = instances[0].load.unwrap();
    assert_eq!((load.prefill_requests, load.decode_requests, load.decode_tokens), (0, 1, 40));
    assert_eq!(instances[0].knowledge, i32::from(proto::Knowledge::Approximate));
    assert_eq!(instances[0].availability, i32::from(proto::Availability::Ready));

    app.client.complete(finished(routed.request_id)).await.unwrap();
    assert_eq!(app.core.router().in_flight(), 0);
    let again = app.client.complete(finished(routed.request_id)).await.unwrap_err();
    assert_eq!((again.code(), again.message()), (Code::NotFound, "request 0 is not in flight"));

    let routed = app.route(&prompt(1, 40)).await.unwrap();
    let unsaid = CompleteRequest { request_id: routed.request_id, outcome: 0, output_tokens: 0 };
    assert_eq!(app.client.complete(unsaid).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(app.core.router().in_flight(), 1);
    let abandoned = CompleteRequest { outcome: Outcome::Abandoned.into(), ..unsaid };
    app.client.complete(abandoned).await.unwrap();
    assert_eq!(app.core.router().in_flight(), 0);
    app.running.stop().await;
}

#[tokio::test]
async fn refusals_have_their_codes_and_are_counted() {
    let mut config = config(vec![instance("only", NOWHERE, None)]);
    config.routing.requests_max = 1;
    let mut app = start_app(config).await;

    let unknown = RouteRequest { model: "what".to_owned(), token_ids: vec![1], ..RouteRequest::default() };
    let error = app.client.route(unknown).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::NotFound, "no instance serves model \"what\""));
    assert_eq!(app.route(&[]).await.unwrap_err().code(), Code::InvalidArgument);
    app.route(&[1]).await.unwrap();
    assert_eq!(app.route(&[1]).await.unwrap_err().code(), Code::ResourceExhausted);

    for (outcome, count) in
        [("routed", 1.0), ("unknown_model", 1.0), ("empty_prompt", 1.0), ("too_many_in_flight", 1.0)]
    {
        assert_eq!(app.metric(&format!("warmpath_route_decisions_total{{outcome=\"{outcome}\"}}")), count, "{outcome}");
    }
    assert_eq!(app.metric("warmpath_requests_in_flight"), 1.0);
    assert_eq!(app.metric("warmpath_decision_seconds_count"), 4.0);
    app.running.stop().await;
}

#[tokio::test]
async fn a_draining_fleet_is_unavailable() {
    let mut app = start_app(config(vec![instance("only", NOWHERE, None)])).await;
    let changed = warmpath::routing::Fact::Changed {
        instance: warmpath::routing::InstanceId(0),
        availability: warmpath::routing::Availability::Draining,
    };
    app.core.learn(changed).unwrap();
    assert_eq!(app.route(&[1]).await.unwrap_err().code(), Code::Unavailable);
    app.running.stop().await;
}

#[tokio::test]
async fn what_a_caller_leaves_behind_is_freed_when_its_lease_runs_out() {
    let mut config = config(vec![instance("only", NOWHERE, None)]);
    config.routing.lease = Duration::from_millis(50);
    let mut app = start_app(config).await;
    // The call is dropped at any point on its way, or its answer is; either way nobody will complete the request.
    for patience in 0..20 {
        let call =
            app.client.route(RouteRequest { model: "m".to_owned(), token_ids: vec![1], ..RouteRequest::default() });
        let _ = tokio::time::timeout(Duration::from_micros(patience * 100), call).await;
    }
    app.route(&[1]).await.unwrap();
    eventually("the leases' end", || app.core.router().in_flight() == 0).await;
    app.running.stop().await;
}

#[tokio::test]
async fn health_is_told_and_watched() {
    let app = start_app(config(vec![instance("only", NOWHERE, None)])).await;
    let mut client = HealthClient::new(channel(app.grpc).await);
    for service in ["", "warmpath.v1.Router"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = client.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
    let request = HealthCheckRequest { service: "warmpath.v1.Router".to_owned() };
    let mut watch = client.watch(request).await.unwrap().into_inner();
    assert_eq!(soon("the state", watch.message()).await.unwrap().unwrap().status(), ServingStatus::Serving);
    let stopped = tokio::spawn(app.running.stop());
    assert_eq!(soon("the end", watch.message()).await.unwrap().unwrap().status(), ServingStatus::NotServing);
    drop((watch, client, app.client));
    soon("the stop", stopped).await.unwrap();
}

#[tokio::test]
async fn reflection_answers_in_both_versions() {
    use tonic_reflection::pb::{v1, v1alpha};
    let app = start_app(config(vec![instance("only", NOWHERE, None)])).await;
    let channel = channel(app.grpc).await;

    use v1::server_reflection_request::MessageRequest;
    use v1::server_reflection_response::MessageResponse;
    let request = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let mut answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("{answer:?}") };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    assert!(names.contains(&"warmpath.v1.Router") && names.contains(&"grpc.health.v1.Health"), "{names:?}");

    use v1alpha::server_reflection_request::MessageRequest as OldRequest;
    use v1alpha::server_reflection_response::MessageResponse as OldResponse;
    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(OldRequest::FileContainingSymbol("warmpath.v1.Router.Route".to_owned())),
    };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let mut answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response;
    assert!(matches!(answer, Some(OldResponse::FileDescriptorResponse(_))), "{answer:?}");
    app.running.stop().await;
}
