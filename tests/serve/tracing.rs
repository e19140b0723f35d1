//! Traces, request ids and logs, of the router as a process of its own.

use crate::binary::{Router, file, section};
use crate::support::{MODEL, eventually, mock_config, open_post, post, send, soon, start_grpc_mock, start_mock};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A collector that keeps what it is sent: names of services with spans.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.unwrap_or_default().attributes;
            let service =
                attributes.iter().find(|pair| pair.key == "service.name").map(|pair| format!("{:?}", pair.value));
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            let mut kept = self.0.lock().unwrap();
            kept.extend(spans.map(|span| (service.clone().unwrap_or_default(), span)));
        }
        Ok(tonic::Response::new(ExportTraceServiceResponse { partial_success: None }))
    }
}

impl Collector {
    async fn start() -> (Collector, SocketAddr) {
        let (collector, listener) = (Collector::default(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = listener.local_addr().unwrap();
        let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(collector.clone()));
        tokio::spawn(server.serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener)));
        (collector, address)
    }

    fn spans(&self) -> Vec<(String, Span)> {
        self.0.lock().unwrap().clone()
    }
}

fn attribute<'a>(span: &'a Span, key: &str) -> Option<&'a Value> {
    span.attributes.iter().find(|pair| pair.key == key)?.value.as_ref()?.value.as_ref()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An instance that answers each request with the headers that it was sent, as JSON.
async fn start_echo() -> SocketAddr {
    let echo = async |headers: axum::http::HeaderMap| {
        let pairs = headers.iter().map(|(name, value)| (name.to_string(), json!(value.to_str().unwrap_or_default())));
        axum::Json(serde_json::Value::Object(pairs.collect()))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().fallback(echo);
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

async fn post_with(
    address: SocketAddr,
    headers: &[(&str, &str)],
    body: &serde_json::Value,
) -> (axum::http::HeaderMap, String) {
    let mut request = hyper::Request::post(format!("http://{address}/v1/completions"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = send(request.body(Full::new(Bytes::from(body.to_string()))).unwrap()).await;
    let headers = response.headers().clone();
    let body = soon("a body", response.into_body().collect()).await.unwrap().to_bytes();
    (headers, String::from_utf8(body.to_vec()).unwrap())
}

fn tracing_to(collector: SocketAddr, more: &str) -> String {
    format!("[tracing]\nendpoint = \"http://{collector}\"\n{more}\n")
}

#[tokio::test]
async fn a_request_is_a_span_with_its_decision_and_its_context_goes_through() {
    let (collector, address) = Collector::start().await;
    let mock = start_mock(mock_config()).await;
    let router = Router::start(&file(&format!("{}{}", tracing_to(address, ""), section("a", mock.http))), &[]);
    let body = json!({"model": MODEL, "prompt": (1..=100).collect::<Vec<u32>>(), "max_tokens": 4});
    let parent = format!("00-{TRACE}-{PARENT}-01");
    let sent = [("traceparent", parent.as_str()), ("tracestate", "vendor=1"), ("x-request-id", "one")];
    let (_, answer) = post_with(router.http, &sent, &body).await;
    assert!(answer.contains("\"usage\""), "{answer}");
    post(router.http, "/v1/completions", &body).await;
    eventually("two spans", || collector.spans().len() == 2).await;
    let spans = collector.spans();
    let of = |id: &str| spans.iter().find(|(_, span)| attribute(span, "warmpath.request_id") == Some(&text(id)));
    let (service, span) = of("one").unwrap();
    assert!(service.contains("warmpath"), "{service}");
    assert_eq!((hex(&span.trace_id), hex(&span.parent_span_id)), (TRACE.to_owned(), PARENT.to_owned()));
    assert_eq!((span.name.as_str(), span.trace_state.as_str()), ("completions", "vendor=1"));
    for (key, value) in [
        ("warmpath.instance", text("a")),
        ("warmpath.policy", text("prefix_cost")),
        ("warmpath.prompt_tokens", Value::IntValue(100)),
        ("warmpath.overlap_tokens", Value::IntValue(0)),
        ("warmpath.attempts", Value::IntValue(1)),
        ("warmpath.output_tokens", Value::IntValue(4)),
        ("http.response.status_code", Value::IntValue(200)),
    ] {
        assert_eq!(attribute(span, key), Some(&value), "{key} in {span:?}");
    }
    assert!(span.end_time_unix_nano > span.start_time_unix_nano);
    // Nothing of what was asked is in it, and the one without a context is a trace of its own.
    let (_, other) = spans.iter().find(|(_, other)| other.span_id != span.span_id).unwrap();
    assert!(other.parent_span_id.is_empty() && hex(&other.trace_id) != TRACE);
    // Counted once the collector's answer came, which is after it has them.
    let counted = async {
        while router.metric("warmpath_trace_spans_total{outcome=\"sent\"}").await != 2.0 {
            tokio::task::yield_now().await;
        }
    };
    soon("the count", counted).await;
}

#[tokio::test]
async fn calls_of_our_own_service_are_spans_and_have_ids_too() {
    let (collector, address) = Collector::start().await;
    let configuration = format!("{}[logs]\nrequests = true\n", tracing_to(address, ""));
    let nobody = "127.0.0.1:1".parse().unwrap();
    let router = Router::start(&file(&format!("{configuration}{}", section("a", nobody))), &[]);
    let channel = tonic::transport::Channel::from_shared(format!("http://{}", router.grpc)).unwrap();
    let mut client = warmpath::serve::proto::router_client::RouterClient::new(channel.connect_lazy());
    let asked = |model: &str, id: &'static str| {
        let message = warmpath::serve::proto::RouteRequest {
            model: model.to_owned(),
            token_ids: (1..=100).collect(),
            ..Default::default()
        };
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert("traceparent", format!("00-{TRACE}-{PARENT}-01").parse().unwrap());
        request.metadata_mut().insert("x-request-id", id.parse().unwrap());
        request
    };
    let routed = client.route(asked(MODEL, "routed")).await.unwrap();
    assert_eq!(routed.metadata().get("x-request-id").unwrap(), "routed");
    assert_eq!(client.route(asked("nobody's", "refused")).await.unwrap_err().code(), tonic::Code::NotFound);
    eventually("two spans", || collector.spans().len() == 2).await;
    let spans = collector.spans();
    let of =
        |id: &str| &spans.iter().find(|(_, span)| attribute(span, "warmpath.request_id") == Some(&text(id))).unwrap().1;
    let span = of("routed");
    assert_eq!((hex(&span.trace_id), hex(&span.parent_span_id)), (TRACE.to_owned(), PARENT.to_owned()));
    for (key, value) in [
        ("url.path", text("/warmpath.v1.Router/Route")),
        ("warmpath.instance", text("a")),
        ("warmpath.prompt_tokens", Value::IntValue(100)),
        ("rpc.grpc.status_code", text("0")),
    ] {
        assert_eq!(attribute(span, key), Some(&value), "{key} in {span:?}");
    }
    // NOT_FOUND, said at once.
    assert_eq!(attribute(of("refused"), "rpc.grpc.status_code"), Some(&text("5")));
    router.logged(&["request_id=\"refused\"", "call=\"grpc\""]).await;
}

fn text(text: &str) -> Value {
    Value::StringValue(text.to_owned())
}

#[tokio::test]
async fn the_instance_is_told_of_our_span_where_requests_are_traced_and_of_the_clients_where_not() {
    let (collector, address) = Collector::start().await;
    let echo = start_echo().await;
    let body = json!({"model": MODEL, "prompt": [1, 2, 3]});
    let parent = format!("00-{TRACE}-{PARENT}-01");
    let sent = [("traceparent", parent.as_str()), ("tracestate", "vendor=1")];
    let told = |answer: &str| {
        let headers: serde_json::Value = serde_json::from_str(answer).unwrap();
        (headers["traceparent"].as_str().unwrap_or_default().to_owned(), headers["tracestate"].clone())
    };

    let traced = Router::start(&file(&format!("{}{}", tracing_to(address, ""), section("a", echo))), &[]);
    let (traceparent, tracestate) = told(&post_with(traced.http, &sent, &body).await.1);
    assert_eq!(tracestate, "vendor=1");
    eventually("the span", || collector.spans().len() == 1).await;
    let span = collector.spans()[0].1.clone();
    assert_eq!(traceparent, format!("00-{TRACE}-{}-01", hex(&span.span_id)));

    // Not sampled: the context still goes on, and says so.
    let unsampled = format!("00-{TRACE}-{PARENT}-00");
    let (traceparent, _) = told(&post_with(traced.http, &[("traceparent", &unsampled)], &body).await.1);
    assert!(traceparent.starts_with(&format!("00-{TRACE}-")) && traceparent.ends_with("-00"), "{traceparent}");
    drop(traced);

    let never = tracing_to(address, "sample_ratio = 0.0");
    let never = Router::start(&file(&format!("{never}{}", section("a", echo))), &[]);
    post_with(never.http, &[], &body).await;
    assert_eq!(told(&post_with(never.http, &sent, &body).await.1).0.len(), parent.len());
    eventually("the span that the client wants", || collector.spans().len() == 2).await;

    let off = Router::start(&file(&section("a", echo)), &[]);
    let (traceparent, tracestate) = told(&post_with(off.http, &sent, &body).await.1);
    assert_eq!((traceparent, tracestate), (parent, json!("vendor=1")));
    assert_eq!(off.metric("warmpath_trace_spans_total{outcome=\"sent\"}").await, 0.0);
}

#[tokio::test]
async fn requests_do_not_wait_for_a_collector_that_is_not_there_and_spans_are_counted_as_lost() {
    let echo = start_echo().await;
    // A port that was free a moment ago.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let tracing = tracing_to(nobody, "queue_spans_max = 1");
    let router = Router::start(&file(&format!("{tracing}{}", section("a", echo))), &[]);
    for _ in 0..20 {
        let (_, answer) = post_with(router.http, &[], &json!({"model": MODEL, "prompt": [1]})).await;
        assert!(answer.contains("traceparent"), "{answer}");
    }
    router.logged(&["WARN", "the collector of traces does not take spans"]).await;
    let failed = router.metric("warmpath_trace_spans_total{outcome=\"failed\"}").await;
    assert!(failed >= 1.0, "{failed}");
    assert_eq!(router.metric("warmpath_trace_spans_total{outcome=\"sent\"}").await, 0.0);
}

#[tokio::test]
async fn a_request_has_an_id_that_is_forwarded_returned_and_logged() {
    let echo = start_echo().await;
    let logs = "[logs]\nformat = \"json\"\nrequests = true\n";
    let router = Router::start(&file(&format!("{logs}{}", section("a", echo))), &[]);
    let body = json!({"model": MODEL, "prompt": [1]});
    let (headers, answer) = post_with(router.http, &[("x-request-id", "mine-1")], &body).await;
    assert_eq!(headers["x-request-id"], "mine-1");
    assert!(answer.contains("\"x-request-id\":\"mine-1\""), "{answer}");
    // One that is made, and one that is no id: both are told to all.
    let long = "x".repeat(200);
    for sent in [&[][..], &[("x-request-id", long.as_str())]] {
        let (headers, answer) = post_with(router.http, sent, &body).await;
        let made = headers["x-request-id"].to_str().unwrap();
        assert!(made.len() == 32 && made.bytes().all(|byte| byte.is_ascii_hexdigit()), "{made}");
        assert!(answer.contains(made), "{answer}");
    }
    router
        .logged(&["\"request_id\":\"mine-1\"", "\"call\":\"completions\"", "\"status\":200", "\"instance\":\"a\""])
        .await;
    for line in router.log().lines() {
        let parsed: Result<serde_json::Value, _> = serde_json::from_str(line);
        assert!(parsed.is_ok_and(|line| line["level"].is_string()), "{line}");
    }
    // Ours, too, have one.
    let (headers, _) = post_with(router.http, &[], &json!({"model": "nobody's", "prompt": [1]})).await;
    assert!(headers.contains_key("x-request-id"));
}

/// At the most talkative level, over both listeners, streamed and whole, served, refused and broken off.
#[tokio::test]
async fn prompts_and_tokens_are_never_logged() {
    let (mock, engine) = (start_mock(mock_config()).await, start_grpc_mock().await);
    let sections = section("a", mock.http) + &section("b", "127.0.0.1:1".parse().unwrap());
    let sections =
        format!("{sections}[[instances]]\nname = \"c\"\nurl = \"grpc://{}\"\nmodel = \"m\"\n", engine.grpc.unwrap());
    let logs = "[logs]\nrequests = true\n";
    let router = Router::start(&file(&format!("{logs}{sections}")), &[("RUST_LOG", "trace")]);
    const MARKER: &str = "xyzzyMarkerPlugh";
    const TOKEN: u32 = 987_654_321;
    for stream in [false, true] {
        let text = json!({"model": MODEL, "prompt": format!("{MARKER} said"), "max_tokens": 2, "stream": stream});
        let tokens = json!({"model": MODEL, "prompt": vec![TOKEN; 40], "max_tokens": 2, "stream": stream});
        let chat = json!({"model": MODEL, "messages": [{"role": "user", "content": MARKER}], "stream": stream});
        post(router.http, "/v1/completions", &text).await;
        post(router.http, "/v1/completions", &tokens).await;
        post(router.http, "/v1/chat/completions", &chat).await;
        drop(open_post(router.http, "/v1/completions", &tokens).await);
    }
    post(router.http, "/v1/completions", &json!({"model": MARKER, "prompt": [1]})).await;
    let channel = tonic::transport::Channel::from_shared(format!("http://{}", router.grpc)).unwrap();
    let mut client = warmpath::serve::proto::router_client::RouterClient::new(channel.connect_lazy());
    let request = warmpath::serve::proto::RouteRequest {
        model: MODEL.to_owned(),
        token_ids: vec![TOKEN; 40],
        ..Default::default()
    };
    client.route(request).await.unwrap();
    let request = warmpath::serve::proto::RouteRequest {
        model: MODEL.to_owned(),
        text: Some(MARKER.to_owned()),
        ..Default::default()
    };
    client.route(request).await.unwrap();
    router.logged(&["TRACE"]).await;
    router.logged(&["request", "call=", "chat"]).await;
    router.signal("TERM");
    router.logged(&["draining"]).await;
    let log = router.log();
    for secret in [MARKER, &TOKEN.to_string()] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} is logged");
    }
}
