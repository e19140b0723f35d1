//! Apps, mocks and clients for the tests: all on loopback, all on ports that the system chose.

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use warmpath::config::{Config, Endpoint, Instance, InstanceAccess, KvEvents};
use warmpath::mock::{Mock, MockConfig};
use warmpath::routing::InstanceId;
use warmpath::serve::proto::fleet_client::FleetClient;
use warmpath::serve::proto::router_client::RouterClient;
use warmpath::serve::proto::{RouteRequest, RouteResponse};
use warmpath::serve::{App, Core};

/// Far longer than anything here takes, also on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` holds.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What `future` gives, which must not take long.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {PATIENCE:?}"),
    }
}

/// Something that runs until it is told to stop.
pub struct Running<E> {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), E>>,
}

impl<E: std::error::Error + Send + 'static> Running<E> {
    fn start<F>(run: impl FnOnce(oneshot::Receiver<()>) -> F) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        Running { stop, task: tokio::spawn(run(stopped)) }
    }

    /// Stops it, which must go well.
    pub async fn stop(self) {
        self.stop.send(()).expect("it still runs");
        soon("stopping", self.task).await.expect("it does not panic").expect("it ends well");
    }
}

/// A mock that runs.
pub struct RunningMock {
    pub http: SocketAddr,
    pub grpc: Option<SocketAddr>,
    pub kv_events: SocketAddr,
    pub kv_replay: Option<SocketAddr>,
    pub subscriptions: watch::Receiver<u64>,
    pub running: Running<warmpath::mock::MockError>,
}

/// A mock on free ports, a thousand times faster than the real thing.
pub fn mock_config() -> MockConfig {
    MockConfig { port: 0, kv_events_port: 0, model: MODEL.to_owned(), speed: 1000.0, ..MockConfig::default() }
}

pub const MODEL: &str = "m";

pub async fn start_mock(config: MockConfig) -> RunningMock {
    let mock = Mock::bind(config).await.expect("the mock binds");
    let (http, kv_events, subscriptions) = (mock.http_address(), mock.kv_events_address(), mock.subscriptions());
    let (kv_replay, grpc) = (mock.kv_replay_address(), mock.grpc_address());
    let running = Running::start(|stop| mock.run(async { stop.await.unwrap_or_default() }));
    RunningMock { http, grpc, kv_events, kv_replay, subscriptions, running }
}

impl RunningMock {
    /// Waits until the router is subscribed, so that it misses nothing from here on.
    pub async fn subscribed(&mut self) {
        soon("the subscription", self.subscriptions.wait_for(|&subscriptions| subscriptions > 0)).await.unwrap();
    }

    /// Sends a prompt and waits for the whole answer.
    pub async fn complete(&self, prompt: &[u32], max_tokens: u32) -> Value {
        let body = json!({"model": MODEL, "prompt": prompt, "max_tokens": max_tokens});
        let (status, answer) = post(self.http, "/v1/completions", &body).await;
        assert_eq!(status, 200, "{answer}");
        serde_json::from_str(&answer).unwrap()
    }

    /// This mock, as an instance of a router.
    pub fn instance(&self, name: &str) -> Instance {
        let mut instance = instance(name, self.http, Some(self.kv_events));
        if let (Some(events), Some(replay)) = (&mut instance.kv_events, self.kv_replay) {
            events.replay = Some(Endpoint::from(replay));
        }
        instance
    }
}

/// A mock that speaks gRPC, as an instance that is reached by `VllmEngine`.
pub fn engine_instance(mock: &RunningMock, name: &str) -> Instance {
    let url = format!("grpc://{}", mock.grpc.expect("the mock speaks gRPC"));
    Instance { url, ..mock.instance(name) }
}

/// A mock that speaks gRPC.
pub async fn start_grpc_mock() -> RunningMock {
    start_mock(MockConfig { grpc_port: Some(0), ..mock_config() }).await
}

pub fn instance(name: &str, http: SocketAddr, kv_events: Option<SocketAddr>) -> Instance {
    let source = |address| {
        let endpoint = Endpoint::from(address);
        KvEvents { endpoint, listens: false, replay: None, topic: String::new() }
    };
    Instance {
        name: name.to_owned(),
        url: format!("http://{http}"),
        inference_url: None,
        data_parallel_rank: None,
        model: MODEL.to_owned(),
        kv_events: kv_events.map(source),
        access: InstanceAccess::default(),
    }
}

/// A configuration with free ports.
pub fn config(instances: Vec<Instance>) -> Config {
    // Most tests have instances that nobody is behind; those about health say so.
    Config {
        routing: warmpath::routing::Config {
            // Most tests ask again and again and tell of no first token.
            tuning: warmpath::routing::policy::Tuning::default().with_hold(0.0),
            ..warmpath::routing::Config::default()
        },
        ..Config::own(instances)
    }
}

/// A router that runs.
pub struct RunningApp {
    pub core: Arc<Core>,
    pub grpc: SocketAddr,
    pub http: SocketAddr,
    pub admin: SocketAddr,
    pub client: RouterClient<Channel>,
    pub fleet: FleetClient<Channel>,
    pub running: Running<warmpath::serve::AppError>,
}

pub async fn start_app(config: Config) -> RunningApp {
    let app = App::bind(config).await.expect("the app binds");
    let (core, grpc, admin) = (app.core(), app.grpc_address(), app.admin_address());
    let http = app.http_address();
    let running = Running::start(|stop| app.run(async { stop.await.unwrap_or_default() }));
    let client = RouterClient::new(Channel::from_shared(format!("http://{grpc}")).unwrap().connect_lazy());
    let fleet = FleetClient::new(Channel::from_shared(format!("http://{admin}")).unwrap().connect_lazy());
    RunningApp { core, grpc, http, admin, client, fleet, running }
}

impl RunningApp {
    pub async fn route(&mut self, prompt: &[u32]) -> Result<RouteResponse, tonic::Status> {
        let request = RouteRequest { model: MODEL.to_owned(), token_ids: prompt.to_vec(), ..RouteRequest::default() };
        self.client.route(request).await.map(tonic::Response::into_inner)
    }

    pub fn cached_blocks(&self, instance: u16) -> usize {
        self.core.router().cached_blocks(InstanceId(instance))
    }

    /// The value of a metric, named with its labels as it is rendered.
    pub fn metric(&self, series: &str) -> f64 {
        let text = self.core.render_metrics();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{series} is not in\n{text}")).parse().unwrap()
    }

    pub fn knowledge(&self, instance: usize) -> warmpath::routing::Knowledge {
        self.core.instances()[instance].knowledge
    }
}

/// A prompt of its own for each seed.
pub fn prompt(seed: u32, tokens: u32) -> Vec<u32> {
    (0..tokens).map(|position| 1000 + seed * 10_000 + position).collect()
}

pub async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let request = hyper::Request::get(format!("http://{address}{path}")).body(Full::default()).unwrap();
    whole(send(request).await).await
}

pub async fn post(address: SocketAddr, path: &str, body: &Value) -> (u16, String) {
    whole(open_post(address, path, body).await).await
}

/// Sends a request; the response's body is still to be read.
pub async fn open_post(address: SocketAddr, path: &str, body: &Value) -> hyper::Response<Incoming> {
    let request = hyper::Request::post(format!("http://{address}{path}"));
    send(request.body(Full::new(Bytes::from(body.to_string()))).unwrap()).await
}

pub async fn send(request: hyper::Request<Full<Bytes>>) -> hyper::Response<Incoming> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    soon("a response", client.request(request)).await.expect("the server answers")
}

async fn whole(response: hyper::Response<Incoming>) -> (u16, String) {
    let status = response.status().as_u16();
    let body = soon("a body", response.into_body().collect()).await.expect("the body comes").to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}
