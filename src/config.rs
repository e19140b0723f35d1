//! States: what an operator asks for, checked.
//!
//! A TOML file is read in two steps: into raw types that take almost anything, then into the types here, which hold only
//! what can be run. The second step goes on after a problem, so that every problem of a file is reported at once, unknown
//! fields included.
//!
//! Environment variables stand above the file, one for each setting of a section.
//!
//! Where it came from is kept ([`Origin`]), so that it can be read again while the router runs.
//!
//! Absent on purpose: other layers.

mod check;
mod discovery;
mod environment;
mod key_lines;
mod problem;
mod raw;
mod reload;
mod schema;
mod security;
mod settings;
mod source;
mod telemetry;

pub use discovery::{Discovery, Dns, Kubernetes, Pods, Source, Template, instances};
pub use key_lines::{KEYS_MAX, KeyLine, is_key_name, key_line, key_lines};
pub use problem::{Invalid, Problem};
pub use security::{
    ApiKey, InstanceAccess, KeySource, Keys, Limits, ListenerTls, Quota, Secret, Security, Tls, UpstreamAccess,
};
pub use source::{Origin, ReadError, Reload};
pub use telemetry::{LogFormat, Logs, Tracing};

use crate::routing;
use crate::routing::admission::Saturation;
use crate::trace::RecorderConfig;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Everything that `warmpath serve` needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where to listen.
    pub server: Server,
    /// How requests are forwarded.
    pub http: Http,
    /// When an instance counts as down.
    pub health: Health,
    /// How to decide.
    pub routing: routing::Config,
    /// The fleet. An instance's position is its [`InstanceId`](routing::InstanceId).
    pub instances: Vec<Instance>,
    /// How texts become tokens, by model.
    pub tokenizers: Vec<Tokenizer>,
    /// Where requests are recorded; without it they are not.
    pub recorder: Option<RecorderConfig>,
    /// What instances are asked of their own accord.
    pub watch: Watch,
    /// What happens while all instances are saturated; when they are is part of `routing`.
    pub admission: Admission,
    /// Who may come in, and how much is taken from them.
    pub security: Security,
    /// Where instances are found beside those.
    pub discovery: Discovery,
    /// How the file is read again.
    pub reload: Reload,
    /// What is logged, and how.
    pub logs: Logs,
    /// Where traces are sent; without it nothing is traced.
    pub tracing: Option<Tracing>,
}

/// Who may wait while all instances are saturated. The bounds of what waits are those of each priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Requests that wait, at most; 0 is none.
    pub queue_requests_max: usize,
    /// Bytes of their bodies, at most.
    pub queue_bytes_max: usize,
    /// How long one waits, at most.
    pub wait_max: Duration,
}

impl Admission {
    /// When an instance has as much as it should be given: seconds of prefill for a large GPU, or blocks so scarce that requests
    /// wait for some. Only where all instances are so does anything wait here.
    pub const SATURATION: Saturation = Saturation { prefill_tokens_max: Some(131_072), kv_usage_max: Some(0.95) };
}

impl Default for Admission {
    fn default() -> Self {
        Admission { queue_requests_max: 1024, queue_bytes_max: 256 << 20, wait_max: Duration::from_secs(30) }
    }
}

/// Where to listen. Port 0 takes a free one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    /// The gRPC service.
    pub listen: SocketAddr,
    /// The OpenAI API: requests that are forwarded to instances.
    pub http_listen: SocketAddr,
    /// Metrics, probes and inspection, over HTTP.
    pub admin_listen: SocketAddr,
}

/// How requests are forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http {
    /// The longest request body that is taken.
    pub body_bytes_max: usize,
    /// How often one request may be sent again, to another instance each time.
    pub retries_max: u32,
    /// How long an instance may take to begin its answer; without it as long as it takes.
    pub head_max: Option<Duration>,
    /// How long an answer may be silent; without it for as long as the connection stands.
    pub idle_max: Option<Duration>,
    /// How long a request waits for its text to be tokenized; after that it goes by load.
    pub tokenize_max: Duration,
}

impl Default for Http {
    fn default() -> Self {
        Http {
            body_bytes_max: 64 << 20,
            retries_max: 2,
            head_max: None,
            idle_max: None,
            // A prefill that a cache spares is rarely shorter.
            tokenize_max: Duration::from_millis(100),
        }
    }
}

/// When an instance counts as down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Time between two checks of an instance; without it none is made, and what failed is tried again after ten seconds.
    pub interval: Option<Duration>,
    /// So many failures in a row, of checks or of requests, take an instance out.
    pub failures_max: u32,
}

impl Default for Health {
    fn default() -> Self {
        Health { interval: Some(Duration::from_secs(2)), failures_max: 3 }
    }
}

/// What instances are asked, besides whether they are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Whether those without `kv_events` are asked where they publish them (`GET /kv_event_sources`, vLLM 0.31 and later).
    pub discover_kv_events: bool,
    /// How often `/metrics` is read; without it never.
    pub load: Option<LoadIntervals>,
}

/// Times between two looks at how loaded an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadIntervals {
    /// While it has something to do.
    pub busy: Duration,
    /// While it has nothing to do; reached by doubling.
    pub idle: Duration,
}

impl Default for Watch {
    fn default() -> Self {
        let load = LoadIntervals { busy: Duration::from_millis(500), idle: Duration::from_secs(5) };
        Watch { discover_kv_events: true, load: Some(load) }
    }
}

/// A model's tokenizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokenizer {
    /// The model; unique.
    pub model: String,
    /// A folder with `tokenizer.json` and, for chats, a chat template.
    pub path: PathBuf,
}

/// One vLLM instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// What it is called in answers, logs and metrics; unique.
    pub name: String,
    /// Its base URL; unique but for the data-parallel ranks behind one. `http://host:port` speaks the OpenAI API,
    /// `grpc://host:port` vLLM's `VllmEngine` (`vllm serve --grpc`); `https://` and `grpcs://` the same over TLS.
    pub url: String,
    /// Where it speaks `vllm.Inference`, too: the `--grpc-port` of vLLM's Rust frontend, `grpc://host:port` or `grpcs://host:port`.
    pub inference_url: Option<String>,
    /// Which of the ranks behind its URL it is; requests are pinned to it by the header `X-data-parallel-rank`.
    pub data_parallel_rank: Option<u32>,
    /// The model that it serves.
    pub model: String,
    /// Where it publishes what it caches; without it the router asks, or else believes what it sent there to be cached.
    pub kv_events: Option<KvEvents>,
    /// How it is reached, where not as all are.
    pub access: InstanceAccess,
}

/// An instance as someone names it who is not the file: checked as the file's are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// As in [`Instance`].
    pub name: String,
    /// As in [`Instance`].
    pub url: String,
    /// As in [`Instance`].
    pub model: String,
    /// As in [`Instance`].
    pub inference_url: Option<String>,
    /// How many ranks are behind its URL.
    pub data_parallel_ranks: Option<u32>,
    /// Where it publishes cache events: `tcp://host:port`.
    pub kv_events_endpoint: Option<String>,
    /// Where what it published before can be asked for.
    pub kv_events_replay_endpoint: Option<String>,
    /// The topic that it publishes under.
    pub kv_events_topic: Option<String>,
}

impl Named {
    /// The instance, or one for each rank; the error holds every problem that was found.
    pub fn check(self) -> Result<Vec<Instance>, Invalid> {
        check::named(self)
    }
}

/// What requests are forwarded in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// OpenAI's API over HTTP.
    OpenAi,
    /// `vllm.grpc.engine.VllmEngine`: `vllm serve --grpc`.
    VllmEngine,
    /// `vllm.Inference` of vLLM's Rust frontend.
    Inference,
}

impl Protocol {
    /// All of them, in the order of their positions.
    pub const ALL: [Protocol; 3] = [Protocol::OpenAi, Protocol::VllmEngine, Protocol::Inference];
}

impl Instance {
    /// The name of its section: its own, but for data-parallel ranks, which share one.
    pub fn section(&self) -> &str {
        let suffix = self.data_parallel_rank.map(|rank| format!(".dp{rank}"));
        suffix.and_then(|suffix| self.name.strip_suffix(&suffix)).unwrap_or(&self.name)
    }

    /// Where it speaks a protocol, as `http://host:port` or `https://host:port`.
    pub fn address(&self, protocol: Protocol) -> Option<String> {
        match protocol {
            Protocol::OpenAi => over_http(&self.url).is_none().then(|| self.url.clone()),
            Protocol::VllmEngine => over_http(&self.url),
            Protocol::Inference => over_http(self.inference_url.as_deref()?),
        }
    }
}

/// Where a `grpc://` or `grpcs://` URL leads.
fn over_http(url: &str) -> Option<String> {
    let plain = url.strip_prefix("grpc://").map(|rest| format!("http://{rest}"));
    plain.or_else(|| Some(format!("https://{}", url.strip_prefix("grpcs://")?)))
}

/// A publisher of KV cache events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvEvents {
    /// Where to connect, or, if we listen, where.
    pub endpoint: Endpoint,
    /// Whether the publisher connects to us.
    pub listens: bool,
    /// Where what was published before can be asked for; without it what was missed is lost.
    pub replay: Option<Endpoint>,
    /// The ZeroMQ topic prefix to subscribe to; the empty one takes every topic.
    pub topic: String,
}

/// A ZeroMQ endpoint over TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// A host name or an address, IPv6 without its brackets.
    pub host: String,
    /// The port; not zero.
    pub port: u16,
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Endpoint { host: address.ip().to_string(), port: address.port() }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Endpoint { host, port } = self;
        if host.contains(':') { write!(f, "tcp://[{host}]:{port}") } else { write!(f, "tcp://{host}:{port}") }
    }
}

impl Config {
    /// The version of the file's form. It is raised when a file that was right is so no more.
    pub const VERSION: u64 = 1;

    /// A documented file with every setting; a test keeps it valid and equal to the defaults.
    pub const EXAMPLE: &str = include_str!("../deploy/warmpath.example.toml");

    /// A router of one's own for these instances: on free ports of loopback, with the defaults of each part. No instance is asked for
    /// anything, and none is ever saturated.
    pub fn own(instances: Vec<Instance>) -> Config {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        Config {
            server: Server { listen: free, http_listen: free, admin_listen: free },
            http: Http::default(),
            health: Health { interval: None, ..Health::default() },
            routing: routing::Config::default(),
            instances,
            tokenizers: Vec::new(),
            recorder: None,
            watch: Watch { discover_kv_events: false, load: None },
            admission: Admission::default(),
            security: Security::default(),
            discovery: Discovery::default(),
            reload: Reload::default(),
            logs: Logs::default(),
            tracing: None,
        }
    }

    /// Reads a TOML file's text. The error holds every problem that was found.
    pub fn parse(text: &str) -> Result<Config, Invalid> {
        Config::parse_under(text, [])
    }

    /// The same under environment variables: `WARMPATH__ROUTING__POLICY` stands above `policy` in `[routing]`. Others than
    /// those that begin with `WARMPATH__` are left alone; of those, one that names no setting is a problem.
    pub fn parse_under(text: &str, environment: impl IntoIterator<Item = (String, String)>) -> Result<Config, Invalid> {
        let text = environment::overlay(text, environment).map_err(|problems| Invalid { problems })?;
        let (raw, problems) = raw::read(&text).map_err(Invalid::from)?;
        check::config(raw, problems)
    }
}
