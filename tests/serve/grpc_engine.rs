//! vLLM's gRPC services through the router: to mocks that speak them, and to a server that keeps what it is sent.

use crate::support::{
    MODEL, config, engine_instance, eventually, instance, prompt, soon, start_app, start_grpc_mock, start_mock,
};
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use prost::Message;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest as Health;
use tonic_health::pb::health_client::HealthClient;
use warmpath::config::Instance;
use warmpath::mock::MockConfig;
use warmpath::mock::proto::engine::generate_request::Input;
use warmpath::mock::proto::engine::generate_response::Response as Part;
use warmpath::mock::proto::engine::vllm_engine_client::VllmEngineClient;
use warmpath::mock::proto::engine::{
    AbortRequest, EmbedRequest, GenerateRequest, GetModelInfoRequest, HealthCheckRequest, SamplingParams,
    TokenizedInput,
};
use warmpath::mock::proto::inference;
use warmpath::mock::proto::inference::inference_client::InferenceClient;
use warmpath::routing::{Availability, InstanceId};
use warmpath::serve::Tokenizer;
use warmpath::serve::proto::RouteRequest;

type Engine = VllmEngineClient<Channel>;

async fn engine(address: SocketAddr) -> Engine {
    Engine::connect(format!("http://{address}")).await.unwrap()
}

fn generate(tokens: Vec<u32>, max_tokens: u32, stream: bool) -> GenerateRequest {
    let tokenized = TokenizedInput { original_text: String::new(), input_ids: tokens };
    GenerateRequest {
        request_id: "r".to_owned(),
        input: Some(Input::Tokenized(tokenized)),
        sampling_params: Some(SamplingParams { max_tokens: Some(max_tokens) }),
        stream,
        data_parallel_rank: None,
    }
}

/// Tokens of all chunks, and what the end says: its tokens, and those that were cached.
async fn read(client: &mut Engine, request: GenerateRequest) -> Result<(Vec<u32>, Vec<u32>, u32), Status> {
    let mut answer = client.generate(request).await?.into_inner();
    let mut streamed = Vec::new();
    while let Some(message) = soon("a message", answer.message()).await? {
        match message.response.unwrap() {
            Part::Chunk(chunk) => streamed.extend(chunk.token_ids),
            Part::Complete(complete) => return Ok((streamed, complete.output_ids, complete.cached_tokens)),
        }
    }
    panic!("the answer has no end")
}

#[tokio::test]
async fn generate_goes_where_the_prompt_is_cached_and_streams_back() {
    let (mut first, mut second) = (start_grpc_mock().await, start_grpc_mock().await);
    let instances = vec![engine_instance(&first, "first"), engine_instance(&second, "second")];
    let app = start_app(config(instances)).await;
    first.subscribed().await;
    second.subscribed().await;
    second.complete(&prompt(1, 100), 4).await;
    eventually("the blocks", || app.cached_blocks(1) == 6).await;

    let mut client = engine(app.grpc).await;
    let answer = client.generate(generate(prompt(1, 100), 4, true)).await.unwrap();
    for (key, value) in
        [("x-warmpath-instance", "second"), ("x-warmpath-prompt-tokens", "100"), ("x-warmpath-overlap-tokens", "96")]
    {
        assert_eq!(answer.metadata().get(key).unwrap(), value, "{key}");
    }
    drop(answer);
    // What it still has to do would count against it.
    eventually("its end", || app.core.router().in_flight() == 0).await;
    let (streamed, last, cached) = read(&mut client, generate(prompt(1, 100), 4, true)).await.unwrap();
    assert_eq!((streamed.len(), last.as_slice(), cached), (4, &streamed[3..], 96));
    let (none, whole, _) = read(&mut client, generate(prompt(1, 100), 4, false)).await.unwrap();
    assert_eq!((none.len(), whole), (0, streamed));
    eventually("every reservation's end", || app.core.router().in_flight() == 0).await;
    assert!(app.metric("warmpath_reported_cached_tokens_total{instance=\"second\"}") >= 192.0);
    assert_eq!(app.metric("warmpath_grpc_requests_total{answer=\"forwarded\"}"), 3.0);
    app.running.stop().await;
    first.running.stop().await;
    second.running.stop().await;
}

#[tokio::test]
async fn whoever_hangs_up_frees_the_engine_and_the_reservation() {
    // At the real thing's pace the answer would take a quarter of an hour.
    let slow = MockConfig { grpc_port: Some(0), speed: 1.0, ..crate::support::mock_config() };
    let mock = start_mock(slow).await;
    let app = start_app(config(vec![engine_instance(&mock, "only")])).await;
    let mut client = engine(app.grpc).await;
    let mut answer = client.generate(generate(prompt(1, 50), 30_000, true)).await.unwrap().into_inner();
    soon("a token", answer.message()).await.unwrap().unwrap();
    eventually("the first token is told", || app.core.instances()[0].load.decode_requests == 1).await;
    drop(answer);
    eventually("the reservation's end", || app.core.router().in_flight() == 0).await;
    let running = async || {
        crate::support::get(mock.http, "/metrics").await.1.contains("requests_running{engine=\"0\",model_name=\"m\"} 0")
    };
    let idle = async {
        while !running().await {
            tokio::task::yield_now().await;
        }
    };
    soon("the engine's rest", idle).await;

    assert_eq!(app.core.instances()[0].availability, Availability::Ready);
    app.running.stop().await;
    mock.running.stop().await;
}

#[tokio::test]
async fn what_an_instance_refuses_the_client_hears() {
    let mock = start_grpc_mock().await;
    let app = start_app(config(vec![engine_instance(&mock, "only")])).await;
    let mut client = engine(app.grpc).await;
    let (through, straight) = (
        client.generate(generate(prompt(1, 40_000), 4, true)).await.unwrap_err(),
        engine(mock.grpc.unwrap()).await.generate(generate(prompt(1, 40_000), 4, true)).await.unwrap_err(),
    );
    assert_eq!((through.code(), through.message()), (Code::InvalidArgument, straight.message()));
    let empty = client.generate(generate(Vec::new(), 4, true)).await.unwrap_err();
    assert_eq!((empty.code(), empty.message()), (Code::InvalidArgument, "the prompt is empty"));
    assert_eq!(app.core.router().in_flight(), 0);
    assert_eq!(app.core.instances()[0].availability, Availability::Ready);
    assert_eq!(app.metric("warmpath_grpc_requests_total{answer=\"refused\"}"), 1.0);
    app.running.stop().await;
    mock.running.stop().await;
}

#[tokio::test]
async fn the_other_calls_are_answered_too() {
    let (first, second) = (start_grpc_mock().await, start_grpc_mock().await);
    let app = start_app(config(vec![engine_instance(&first, "first"), engine_instance(&second, "second")])).await;
    let mut client = engine(app.grpc).await;
    let tokenized = Some(TokenizedInput { input_ids: prompt(1, 40), ..TokenizedInput::default() });
    let embed = EmbedRequest { request_id: "e".to_owned(), tokenized };
    assert_eq!(client.embed(embed).await.unwrap().into_inner().prompt_tokens, 40);
    eventually("the reservation's end", || app.core.router().in_flight() == 0).await;
    let info = client.get_model_info(GetModelInfoRequest {}).await.unwrap();
    assert_eq!(info.get_ref().served_model_name, MODEL);
    client.abort(AbortRequest { request_ids: vec!["r".to_owned()] }).await.unwrap();
    assert!(client.health_check(HealthCheckRequest {}).await.unwrap().into_inner().healthy);
    for instance in [0, 1] {
        let changed =
            warmpath::routing::Fact::Changed { instance: InstanceId(instance), availability: Availability::Down };
        app.core.learn(changed).unwrap();
    }
    assert!(!client.health_check(HealthCheckRequest {}).await.unwrap().into_inner().healthy);
    assert_eq!(client.abort(AbortRequest::default()).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(client.generate(generate(vec![1], 4, true)).await.unwrap_err().code(), Code::Unavailable);

    let mut health =
        HealthClient::new(Channel::from_shared(format!("http://{}", app.grpc)).unwrap().connect().await.unwrap());
    let asked = Health { service: "vllm.grpc.engine.VllmEngine".to_owned() };
    assert_eq!(health.check(asked).await.unwrap().into_inner().status, 1);
    for path in ["/vllm.grpc.engine.VllmEngine/GetLoads", "/vllm.grpc.engine.VllmEngine/What", "/vllm.Control/Shutdown"]
    {
        let (head, _) = call(app.grpc, path, HeaderMap::new(), frame(&[])).await;
        assert_eq!(head.headers["grpc-status"], "12", "{path}");
    }
    app.running.stop().await;
    first.running.stop().await;
    second.running.stop().await;
}

#[tokio::test]
async fn the_rust_frontend_is_spoken_to_beside_its_http() {
    let mut mock = start_grpc_mock().await;
    let inference_url = mock.grpc.map(|grpc| format!("grpc://{grpc}"));
    let app = start_app(config(vec![Instance { inference_url, ..mock.instance("only") }])).await;
    mock.subscribed().await;
    let request = |salt: &str| inference::GenerateRequest {
        model: MODEL.to_owned(),
        prompt: Some(inference::generate_request::Prompt::TokenIds(inference::TokenIds { ids: prompt(1, 50) })),
        stopping: Some(inference::StoppingCriteria { max_new_tokens: 3 }),
        kv: Some(inference::KvCacheParameters { cache_salt: salt.to_owned(), ..Default::default() }),
        ..inference::GenerateRequest::default()
    };
    let mut client = InferenceClient::connect(format!("http://{}", app.grpc)).await.unwrap();
    let whole = client.generate(request("")).await.unwrap();
    assert_eq!(whole.get_ref().outputs.as_ref().unwrap().num_tokens, 3);
    eventually("the blocks", || app.cached_blocks(0) == 3).await;

    let answer = client.generate_stream(request("")).await.unwrap();
    assert_eq!(answer.metadata().get("x-warmpath-overlap-tokens").unwrap(), "48");
    let (mut answer, mut tokens) = (answer.into_inner(), 0);
    while let Some(message) = soon("a message", answer.message()).await.unwrap() {
        tokens += message.outputs.map_or(0, |outputs| outputs.num_tokens);
    }
    assert_eq!(tokens, 3);
    let salted = client.generate_stream(request("tenant")).await.unwrap();
    assert_eq!(salted.metadata().get("x-warmpath-overlap-tokens").unwrap(), "0");
    drop(salted);
    eventually("every reservation's end", || app.core.router().in_flight() == 0).await;

    let unknown = inference::GenerateRequest { model: "what".to_owned(), ..request("") };
    assert_eq!(client.generate(unknown).await.unwrap_err().code(), Code::NotFound);
    // Nobody here is `vllm serve --grpc`.
    let error = engine(app.grpc).await.generate(generate(vec![1], 4, true)).await.unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);
    // And the HTTP beside it is served as ever.
    let body = serde_json::json!({"model": MODEL, "prompt": prompt(1, 50), "max_tokens": 3});
    assert_eq!(crate::support::post(app.http, "/v1/completions", &body).await.0, 200);
    app.running.stop().await;
    mock.running.stop().await;
}

#[tokio::test]
async fn http_is_never_sent_to_an_instance_that_speaks_grpc_alone() {
    let mock = start_grpc_mock().await;
    let app = start_app(config(vec![engine_instance(&mock, "only")])).await;
    let body = serde_json::json!({"model": MODEL, "prompt": prompt(1, 50), "max_tokens": 3});
    let (status, _) = crate::support::post(app.http, "/v1/completions", &body).await;
    assert_eq!((status, app.core.router().in_flight()), (503, 0));
    app.running.stop().await;
    mock.running.stop().await;
}

/// A server that keeps what it is sent and answers each call alike.
async fn keeper(status: &'static str, frames: Vec<u8>) -> (SocketAddr, mpsc::UnboundedReceiver<(HeaderMap, Bytes)>) {
    let (sent, kept) = mpsc::unbounded_channel();
    let handler = async move |request: axum::extract::Request| {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        sent.send((head.headers, body)).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static(status));
        if frames.is_empty() {
            // Over before it began: the status is in the head.
            return axum::response::Response::builder().header("grpc-status", status).body(Body::empty()).unwrap();
        }
        let trailers = std::future::ready(Some(Ok::<_, std::convert::Infallible>(trailers)));
        axum::response::Response::new(Body::new(Full::new(Bytes::from(frames)).with_trailers(trailers)))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // Which every engine is asked for first, where its model's is not configured.
    let no_tokenizer = || async { [("grpc-status", "12")] };
    let routes = axum::Router::new().route(GET_TOKENIZER, axum::routing::post(no_tokenizer)).fallback(handler);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (address, kept)
}

fn at(name: &str, address: SocketAddr) -> Instance {
    Instance { url: format!("grpc://{address}"), ..instance(name, address, None) }
}

fn frame(message: &[u8]) -> Vec<u8> {
    [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat()
}

/// A call with these very bytes: the head and the frames of its answer.
async fn call(
    address: SocketAddr,
    path: &str,
    headers: HeaderMap,
    body: Vec<u8>,
) -> (axum::http::response::Parts, Bytes) {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let mut request = hyper::Request::post(format!("http://{address}{path}")).body(Full::new(body.into())).unwrap();
    *request.headers_mut() = headers;
    let response: hyper::Response<Incoming> = soon("an answer", client.request(request)).await.unwrap();
    let (head, body) = response.into_parts();
    (head, soon("its end", body.collect()).await.unwrap().to_bytes())
}

const GENERATE: &str = "/vllm.grpc.engine.VllmEngine/Generate";
const GET_TOKENIZER: &str = "/vllm.grpc.engine.VllmEngine/GetTokenizer";

#[tokio::test]
async fn bytes_and_metadata_pass_unchanged_whatever_they_are() {
    let answer = [frame(b"\x12\x04\x0a\x02\x01\x02"), frame(b"\xfa\x7f\x01x")].concat();
    let (address, mut kept) = keeper("0", answer.clone()).await;
    let app = start_app(config(vec![at("only", address)])).await;
    let known = generate(prompt(1, 40), 4, true).encode_to_vec();
    let unknown_fields = [&known[..], b"\xfa\x7f\x03odd\x90\x4e\x07"].concat();
    let twice = [&known[..], &known[..]].concat();
    let compressed = [&[1], &frame(&known)[1..]].concat();
    for body in
        [frame(&known), frame(&unknown_fields), frame(&twice), compressed, frame(b"\xff\xff"), b"xy".to_vec(), vec![]]
    {
        let mut headers = HeaderMap::new();
        for (name, value) in [("te", "trailers"), ("content-type", "application/grpc+proto"), ("grpc-timeout", "77S")] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.append("x-key", HeaderValue::from_static("1"));
        headers.append("x-key", HeaderValue::from_static("2"));
        headers.insert("x-blob-bin", HeaderValue::from_static("AAEC"));
        let (head, got) = call(app.grpc, GENERATE, headers.clone(), body.clone()).await;
        assert_eq!((head.status.as_u16(), &got[..]), (200, &answer[..]));
        let (metadata, sent) = kept.recv().await.unwrap();
        assert_eq!(sent, body);
        for (name, value) in &headers {
            assert!(metadata.get_all(name).iter().any(|kept| kept == value), "{name} is missing from {metadata:?}");
        }
        assert_eq!(metadata.get_all("x-key").iter().count(), 2);
    }
    eventually("every reservation's end", || app.core.router().in_flight() == 0).await;
    app.running.stop().await;
}

#[tokio::test]
async fn a_call_is_sent_elsewhere_only_when_it_was_not_taken() {
    let (busy, mut at_busy) = keeper("14", Vec::new()).await;
    let (broken, mut at_broken) = keeper("13", Vec::new()).await;
    let mut config = config(vec![at("busy", busy), at("broken", broken)]);
    config.routing.policy = warmpath::routing::policy::PolicyKind::LeastLoaded;
    config.health.failures_max = 2;
    let app = start_app(config).await;
    let mut client = engine(app.grpc).await;
    // The first one is asked, refuses, and so the second one is; what that one says is an answer.
    assert_eq!(client.generate(generate(vec![1], 4, true)).await.unwrap_err().code(), Code::Internal);
    assert_eq!(app.metric("warmpath_upstream_retries_total{instance=\"busy\"}"), 1.0);
    assert_eq!(client.generate(generate(vec![1], 4, true)).await.unwrap_err().code(), Code::Internal);
    eventually("the breaker", || app.core.instances()[1].availability == Availability::Down).await;
    let open = |instance| app.metric(&format!("warmpath_instance_breaker_open{{instance=\"{instance}\"}}"));
    assert_eq!((open("busy"), open("broken")), (0.0, 1.0));
    assert_eq!(app.core.instances()[0].availability, Availability::Ready);
    // Nobody else is left: the refusal is the client's to hear.
    assert_eq!(client.generate(generate(vec![1], 4, true)).await.unwrap_err().code(), Code::Unavailable);
    assert!(at_busy.recv().await.is_some() && at_broken.recv().await.is_some());
    assert_eq!(app.core.router().in_flight(), 0);
    app.running.stop().await;
}

#[tokio::test]
async fn an_engine_that_dies_within_its_answer_ends_the_stream_with_a_status() {
    let slow = MockConfig { grpc_port: Some(0), speed: 1.0, ..crate::support::mock_config() };
    let mock = start_mock(slow).await;
    let app = start_app(config(vec![engine_instance(&mock, "only")])).await;
    let mut client = engine(app.grpc).await;
    let mut answer = client.generate(generate(prompt(1, 50), 30_000, true)).await.unwrap().into_inner();
    soon("a token", answer.message()).await.unwrap().unwrap();
    mock.running.stop().await;
    let error = loop {
        match soon("the end", answer.message()).await {
            Ok(message) => assert!(message.is_some(), "the answer came to its end"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error.code(), Code::Internal | Code::Unavailable), "{error:?}");
    eventually("the reservation's end", || app.core.router().in_flight() == 0).await;
    assert_eq!(client.generate(generate(vec![1], 4, true)).await.unwrap_err().code(), Code::Unavailable);
    app.running.stop().await;
}

#[tokio::test]
async fn a_rank_is_pinned_in_the_message_and_in_the_metadata() {
    let (address, mut kept) = keeper("0", frame(b"")).await;
    let ranks = (0..2).map(|rank| Instance {
        name: format!("only.dp{rank}"),
        data_parallel_rank: Some(rank),
        inference_url: None,
        ..at("only", address)
    });
    let app = start_app(config(ranks.collect())).await;
    let mut pinned = Vec::new();
    let known = generate(prompt(1, 40), 4, true);
    for asked in [None, None, Some(1), Some(1)] {
        let request = GenerateRequest { data_parallel_rank: asked, ..known.clone() };
        let (head, _) = call(app.grpc, GENERATE, HeaderMap::new(), frame(&request.encode_to_vec())).await;
        let (metadata, body) = kept.recv().await.unwrap();
        let rank = GenerateRequest::decode(&body[5..]).unwrap().data_parallel_rank.unwrap();
        assert_eq!(head.headers["x-warmpath-instance"], format!("only.dp{rank}"));
        assert_eq!(metadata["x-data-parallel-rank"], rank.to_string());
        assert!(asked.is_none_or(|asked| asked == rank));
        pinned.push(rank);
    }
    assert!(pinned[2..].iter().all(|&rank| rank == 1), "{pinned:?}");
    app.running.stop().await;
}

#[tokio::test]
async fn an_instance_that_speaks_grpc_alone_is_checked_by_its_own_health() {
    let mock = start_grpc_mock().await;
    let (ill, _kept) = keeper("0", frame(b"\x12\x03ill")).await;
    let mut config = config(vec![engine_instance(&mock, "well"), at("ill", ill)]);
    config.health.interval = Some(Duration::from_millis(20));
    let app = start_app(config).await;
    eventually("the ill one is found out", || app.core.instances()[1].availability == Availability::Down).await;
    assert_eq!(app.core.instances()[0].availability, Availability::Ready);
    mock.running.stop().await;
    eventually("the end is noticed", || app.core.instances()[0].availability == Availability::Down).await;
    app.running.stop().await;
}

#[tokio::test]
async fn a_fleet_of_several_models_wants_one_named() {
    let (a, b) = (start_grpc_mock().await, start_grpc_mock().await);
    let other = Instance { model: "other".to_owned(), ..engine_instance(&b, "b") };
    let app = start_app(config(vec![engine_instance(&a, "a"), other])).await;
    let mut client = engine(app.grpc).await;
    let error = client.generate(generate(vec![1], 1, true)).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("x-warmpath-model"), "{error:?}");
    let mut named = Request::new(generate(vec![1], 1, true));
    named.metadata_mut().insert("x-warmpath-model", "other".parse().unwrap());
    let answer = client.generate(named).await.unwrap();
    assert_eq!(answer.metadata().get("x-warmpath-instance").unwrap(), "b");
    drop((answer, client));
    app.running.stop().await;
    a.running.stop().await;
    b.running.stop().await;
}

/// `VllmEngine` at this address takes calls and says, after a head or not, nothing more.
async fn silent(has_head: bool) -> SocketAddr {
    let handler = async move || {
        if !has_head {
            std::future::pending::<()>().await;
        }
        let first = futures_util::stream::iter([Ok::<_, std::convert::Infallible>(frame(b"\x0a\x02\x0a\x00"))]);
        let stream = futures_util::StreamExt::chain(first, futures_util::stream::pending());
        let mut response = axum::response::Response::new(Body::from_stream(stream));
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        response
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(handler)).await });
    address
}

#[tokio::test]
async fn an_engine_may_be_silent_only_so_long_where_that_is_configured() {
    let late =
        [(false, Code::DeadlineExceeded, "did not answer in time"), (true, Code::Unavailable, "silent for too long")];
    for (has_head, code, words) in late {
        let mut config = config(vec![at("slow", silent(has_head).await)]);
        config.http.head_max = Some(Duration::from_millis(200));
        config.http.idle_max = Some(Duration::from_millis(200));
        let app = start_app(config).await;
        let mut client = engine(app.grpc).await;
        let error = match client.generate(generate(prompt(1, 40), 4, true)).await {
            Ok(answer) => {
                let mut answer = answer.into_inner();
                assert!(soon("a message", answer.message()).await.unwrap().is_some());
                soon("its end", answer.message()).await.unwrap_err()
            }
            Err(error) => error,
        };
        assert_eq!((error.code(), error.message().contains(words)), (code, true), "{error}");
        eventually("the end", || app.core.router().in_flight() == 0).await;
        assert_eq!(app.metric("warmpath_upstream_failures_total{instance=\"slow\",kind=\"late\"}"), 1.0);
        app.running.stop().await;
    }
}

#[tokio::test]
async fn a_text_is_made_tokens_or_goes_by_its_bytes() {
    let text =
        |words: &str| GenerateRequest { input: Some(Input::Text(words.to_owned())), ..generate(Vec::new(), 1, true) };
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vllm_render/tools");
    for tokenizer in [true, false] {
        let (address, mut kept) = keeper("0", frame(b"")).await;
        let (other, mut others) = keeper("0", frame(b"")).await;
        let mut config = config(vec![at("a", address), at("b", other)]);
        config.http.tokenize_max = Duration::from_secs(30);
        if tokenizer {
            config.tokenizers = vec![warmpath::config::Tokenizer { model: MODEL.to_owned(), path: folder.clone() }];
        }
        let app = start_app(config).await;
        let long = "Once upon a time there was a machine. ".repeat(30);
        let mut went = Vec::new();
        for words in [long.clone(), format!("{long} And then?"), long] {
            let body = frame(&text(&words).encode_to_vec());
            let (head, _) = call(app.grpc, GENERATE, HeaderMap::new(), body.clone()).await;
            // The engine is sent the text all the same.
            let sent = tokio::select! { sent = kept.recv() => sent, sent = others.recv() => sent };
            assert_eq!(sent.unwrap().1, body);
            went.push(head.headers["x-warmpath-instance"].clone());
            assert_eq!(head.headers.contains_key("x-warmpath-overlap-tokens"), tokenizer);
        }
        assert!(went.iter().all(|instance| *instance == went[0]), "{went:?}");
        let guessed = if tokenizer { 0.0 } else { 3.0 };
        assert_eq!(app.metric("warmpath_guessed_lookups_total{why=\"no_tokenizer\"}"), guessed);
        app.running.stop().await;
    }
}

/// The tokenizer of the tests in a zip archive, as an engine hands it out: in pieces, with their SHA-256.
fn tokenizer_chunks(flawed: bool) -> Vec<u8> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vllm_render/tools");
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
        zip.start_file(name, options).unwrap();
        let file = std::fs::read(folder.join(name)).unwrap_or_else(|_| b"{}".to_vec());
        std::io::Write::write_all(&mut zip, &file).unwrap();
    }
    let archive = zip.finish().unwrap().into_inner();
    let mut sha256: String = sha2::Digest::finalize(<sha2::Sha256 as sha2::Digest>::new_with_prefix(&archive))
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if flawed {
        sha256 = sha256.chars().rev().collect();
    }
    let last = archive.len() / 1000;
    let chunk = |(at, data): (usize, &[u8])| {
        let said = if at == last { sha256.clone() } else { String::new() };
        frame(&Chunk { data: data.to_vec(), sha256: said }.encode_to_vec())
    };
    archive.chunks(1000).enumerate().flat_map(chunk).collect()
}

/// `smg.grpc.common.GetTokenizerChunk`
#[derive(prost::Message)]
struct Chunk {
    #[prost(bytes = "vec", tag = "1")]
    data: Vec<u8>,
    #[prost(string, tag = "2")]
    sha256: String,
}

/// An engine that hands out `frames` for its tokenizer, from the second time it is asked on; how often it was asked.
async fn with_tokenizer(frames: Vec<u8>) -> (SocketAddr, Arc<AtomicU32>) {
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let hand_out = async move || {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        if count.fetch_add(1, Ordering::Relaxed) == 0 {
            return axum::response::Response::builder().header("grpc-status", "14").body(Body::empty()).unwrap();
        }
        let trailers = std::future::ready(Some(Ok::<_, std::convert::Infallible>(trailers)));
        axum::response::Response::new(Body::new(Full::new(Bytes::from(frames)).with_trailers(trailers)))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = axum::Router::new().route(GET_TOKENIZER, axum::routing::post(hand_out));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (address, asked)
}

#[tokio::test]
async fn a_tokenizer_is_fetched_once_from_an_engine_that_hands_it_out() {
    let (engine, asked) = with_tokenizer(tokenizer_chunks(false)).await;
    let (other, others_asked) = with_tokenizer(tokenizer_chunks(false)).await;
    let mut config = config(vec![at("a", engine), at("b", other)]);
    config.http.tokenize_max = Duration::from_secs(30);
    let mut app = start_app(config).await;
    let text = Some("Once upon a time".to_owned());
    let question = RouteRequest { model: MODEL.to_owned(), text, ..RouteRequest::default() };
    let mut answer = app.client.route(question.clone()).await.unwrap().into_inner();
    assert!(answer.is_estimated);
    while answer.is_estimated {
        tokio::time::sleep(Duration::from_millis(20)).await;
        answer = soon("an answer", app.client.route(question.clone())).await.unwrap().into_inner();
    }
    // Each was not ready once; then one was enough.
    eventually("all asking is over", || asked.load(Ordering::Relaxed) + others_asked.load(Ordering::Relaxed) == 3)
        .await;
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vllm_render/tools");
    let tokens =
        Tokenizer::load(&folder).unwrap().prompt_tokens("/v1/completions", br#"{"prompt": "Once upon a time"}"#);
    assert_eq!(answer.prompt_tokens as usize, tokens.unwrap().len());
    app.running.stop().await;
}

#[tokio::test]
async fn a_tokenizer_whose_checksum_is_another_is_not_used() {
    let (engine, asked) = with_tokenizer(tokenizer_chunks(true)).await;
    let mut app = start_app(config(vec![at("a", engine)])).await;
    eventually("it is asked again", || asked.load(Ordering::Relaxed) == 2).await;
    let text = Some("Once upon a time".to_owned());
    let question = RouteRequest { model: MODEL.to_owned(), text, ..RouteRequest::default() };
    // As long as the other test's takes to be in use, and longer.
    for _ in 0..40 {
        assert!(app.client.route(question.clone()).await.unwrap().into_inner().is_estimated);
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    app.running.stop().await;
}
