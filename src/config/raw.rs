//! The file as it is written: every field optional, every leaf of any type, unknown fields noted.

mod discovery;
mod security;

pub(super) use discovery::{Discovery, DnsSource, FileSource, Fleet, KubernetesSource, Template};
pub(super) use security::{Access, Keys, Limits, ListenerTls, Tls, Upstream};

use super::problem::Problem;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;

/// What `warmpath serve` reads, as TOML.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(super) struct Config {
    /// Of what this file is written for.
    #[schemars(range(min = 1, max = 1))]
    pub version: Option<Leaf<u64>>,
    /// Where to listen.
    pub server: Server,
    /// How requests are forwarded.
    pub http: Http,
    /// When an instance counts as down.
    pub health: Health,
    /// How to decide.
    pub routing: Routing,
    /// One for each vLLM instance.
    pub instances: Vec<Instance>,
    /// One for each model whose texts and chats are looked up in the index.
    pub tokenizers: Vec<Tokenizer>,
    /// Records placed requests, anonymously.
    pub recorder: Option<Recorder>,
    /// What instances are asked of their own accord.
    pub watch: Watch,
    /// What happens while all instances are saturated.
    pub admission: Admission,
    /// TLS on the listeners.
    pub tls: Tls,
    /// How instances are reached.
    pub upstream: Upstream,
    /// Who may come in.
    pub keys: Keys,
    /// How much is taken from clients.
    pub limits: Limits,
    /// Where instances are found beside those that are written here.
    pub discovery: Discovery,
    /// How this file is read again.
    pub reload: Reload,
    /// What is logged, and how.
    pub logs: Logs,
    /// Where traces are sent.
    pub tracing: Tracing,
}

/// What happens while all instances are saturated.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(super) struct Admission {
    /// An instance with so many prompt tokens to prefill is saturated; 0 is no bound.
    pub prefill_tokens_max: Option<Leaf<u64>>,
    /// An instance with this share of its KV blocks in use is saturated; 0 is no bound.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub kv_usage_max: Option<Leaf<f64>>,
    /// Requests of a priority that wait, at most; 0 is none.
    pub queue_requests_max: Option<Leaf<usize>>,
    /// Bytes of their bodies, at most.
    #[schemars(range(min = 1))]
    pub queue_bytes_max: Option<Leaf<usize>>,
    /// How long one waits, at most.
    #[schemars(range(min = 1))]
    pub wait_seconds_max: Option<Leaf<u64>>,
}

/// How the file is read again while the router runs.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(super) struct Reload {
    /// Seconds between two looks at the file; 0: it is read again on SIGHUP only.
    pub poll_seconds: Option<Leaf<u64>>,
}

/// What is logged, and how.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(super) struct Logs {
    /// `text` or `json`.
    pub format: Option<Leaf<String>>,
    /// Whether each request is a line.
    pub requests: Option<Leaf<bool>>,
}

/// Where traces are sent, by OTLP over gRPC.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(super) struct Tracing {
    /// The collector, `http://host:port`; empty: nothing is traced.
    pub endpoint: Option<Leaf<String>>,
    /// The share of requests that is traced, from 0 to 1, where the client does not say.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sample_ratio: Option<Leaf<f64>>,
    /// Spans that wait to be sent, at most; further ones are dropped.
    #[schemars(range(min = 1))]
    pub queue_spans_max: Option<Leaf<usize>>,
    /// What the router is called there.
    pub service_name: Option<Leaf<String>>,
}

/// Records placed requests, anonymously.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields, extend("required" = ["folder"]))]
pub(super) struct Recorder {
    /// A folder that exists.
    pub folder: Option<Leaf<String>>,
    /// A file of more bytes is followed by the next one.
    #[schemars(range(min = 1))]
    pub file_bytes_max: Option<Leaf<u64>>,
    /// Beyond so many files, the oldest is deleted.
    #[schemars(range(min = 1))]
    pub files_max: Option<Leaf<usize>>,
    /// Memory of requests that wait for their end.
    #[schemars(range(min = 1))]
    pub memory_bytes_max: Option<Leaf<usize>>,
}

/// What instances are asked of their own accord.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(super) struct Watch {
    /// Ask instances without `kv_events` where they publish them.
    pub discover_kv_events: Option<Leaf<bool>>,
    /// Milliseconds between two looks at the `/metrics` of a busy instance; 0: never.
    pub load_interval_busy_ms: Option<Leaf<u64>>,
    /// The same of an idle one.
    #[schemars(range(min = 1))]
    pub load_interval_idle_ms: Option<Leaf<u64>>,
}

/// What a cached block spares of a computed one, from 0 to 1.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(super) struct TierWeights {
    /// In the GPU's memory.
    pub gpu: Option<Leaf<f64>>,
    /// In the host's memory.
    pub cpu: Option<Leaf<f64>>,
    /// Further away.
    pub storage: Option<Leaf<f64>>,
}

/// A model's tokenizer.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields, extend("required" = ["model", "path"]))]
pub(super) struct Tokenizer {
    /// The model that it belongs to.
    pub model: Option<Leaf<String>>,
    /// A folder with `tokenizer.json` and the chat template.
    pub path: Option<Leaf<String>>,
}

/// Where to listen: an IP address and a port.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(super) struct Server {
    /// gRPC.
    pub listen: Option<Leaf<String>>,
    /// The OpenAI API.
    pub http_listen: Option<Leaf<String>>,
    /// HTTP for operators.
    pub admin_listen: Option<Leaf<String>>,
}

/// How requests are forwarded.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(super) struct Http {
    /// The longest request body that is taken.
    #[schemars(range(min = 1))]
    pub body_bytes_max: Option<Leaf<usize>>,
    /// How often one request may be sent again, to another instance each time.
    pub retries_max: Option<Leaf<u32>>,
    /// Seconds that an instance may take to begin its answer; 0: as long as it takes.
    pub head_seconds_max: Option<Leaf<u64>>,
    /// Seconds that an answer may be silent; 0: as long as the connection stands.
    pub idle_seconds_max: Option<Leaf<u64>>,
    /// Milliseconds that a request waits for its text to be tokenized.
    #[schemars(range(min = 1))]
    pub tokenize_milliseconds_max: Option<Leaf<u64>>,
}

/// When an instance counts as down.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(super) struct Health {
    /// Seconds between two checks of an instance; 0: never.
    pub interval_seconds: Option<Leaf<u64>>,
    /// So many failures in a row take an instance out.
    #[schemars(range(min = 1))]
    pub failures_max: Option<Leaf<u32>>,
}

/// How to decide.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(super) struct Routing {
    /// A policy's name, with what is tuned.
    pub policy: Option<Leaf<String>>,
    /// Engine steps full of prefill behind which a request is held rather than placed; 0: nothing is held; without it the policy's
    /// own.
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub hold_steps: Option<Leaf<f64>>,
    /// Tokens a cache block: a power of two from 1 to 512.
    pub block_size: Option<Leaf<u32>>,
    /// Seeds chance and the block hashes.
    pub seed: Option<Leaf<u64>>,
    /// A request that nobody completes is given up after this long.
    #[schemars(range(min = 1))]
    pub lease_seconds: Option<Leaf<u64>>,
    /// Requests placed and not completed, at most.
    #[schemars(range(min = 1))]
    pub max_in_flight: Option<Leaf<usize>>,
    /// Memory that the index may take, in bytes.
    #[schemars(range(min = 1))]
    pub index_bytes_max: Option<Leaf<usize>>,
    /// Blocks that an instance without events is believed to hold, at most.
    #[schemars(range(min = 1))]
    pub approximate_blocks_max: Option<Leaf<usize>>,
    /// What a cached block is worth, by where it is.
    pub tier_weights: TierWeights,
}

/// One vLLM instance.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields, extend("required" = ["name", "url", "model"]))]
pub(super) struct Instance {
    /// A name of its own.
    pub name: Option<Leaf<String>>,
    /// `http://host:port`, or `grpc://host:port` for `vllm serve --grpc`.
    pub url: Option<Leaf<String>>,
    /// Where the Rust frontend speaks gRPC: `grpc://host:port`.
    pub inference_url: Option<Leaf<String>>,
    /// The name that it serves its model under.
    pub model: Option<Leaf<String>>,
    /// How many ranks are behind the URL.
    #[schemars(range(min = 1))]
    pub data_parallel_ranks: Option<Leaf<u32>>,
    /// Where it publishes what it caches.
    pub kv_events: Option<KvEvents>,
    /// The name in its certificate, where that is not the URL's host.
    pub server_name: Option<Leaf<String>>,
    /// The key that it asks for.
    pub api_key: Option<Leaf<String>>,
    /// A file with the key that it asks for.
    pub api_key_file: Option<Leaf<String>>,
}

/// A publisher of cache events.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(super) struct KvEvents {
    /// `tcp://host:port` to connect to.
    pub endpoint: Option<Leaf<String>>,
    /// `tcp://address:port` that the instance connects to instead.
    pub listen: Option<Leaf<String>>,
    /// Where what was published before can be asked for.
    pub replay_endpoint: Option<Leaf<String>>,
    /// The topic that it publishes under.
    pub topic: Option<Leaf<String>>,
}

/// A value of the right type, or what is wrong with it: a wrong type must not hide the problems after it.
#[derive(Debug)]
pub(super) enum Leaf<T> {
    Value(T),
    Wrong(String),
}

impl<T: Clone> Leaf<T> {
    /// A copy.
    pub fn of(&self) -> Self {
        match self {
            Leaf::Value(value) => Leaf::Value(value.clone()),
            Leaf::Wrong(what) => Leaf::Wrong(what.clone()),
        }
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Leaf<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = toml::Value::deserialize(deserializer)?;
        Ok(match T::deserialize(value) {
            Ok(value) => Leaf::Value(value),
            Err(error) => Leaf::Wrong(error.to_string().trim().to_owned()),
        })
    }
}

/// In a schema, what it is when it is right.
impl<T: JsonSchema> JsonSchema for Leaf<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// Reads a TOML file's text; the problems are its unknown fields.
pub(super) fn read<T: DeserializeOwned>(text: &str) -> Result<(T, Vec<Problem>), Problem> {
    noting_unknown(|unknown| {
        let toml = toml::Deserializer::parse(text).map_err(|error| spelled(&error))?;
        serde_ignored::deserialize(toml, unknown).map_err(|error| spelled(&error))
    })
}

/// The same of a JSON file's text.
pub(super) fn read_json<T: DeserializeOwned>(text: &str) -> Result<(T, Vec<Problem>), Problem> {
    noting_unknown(|unknown| {
        let mut json = serde_json::Deserializer::from_str(text);
        let read = serde_ignored::deserialize(&mut json, unknown).map_err(|error| error.to_string())?;
        json.end().map_err(|error| error.to_string())?;
        Ok(read)
    })
}

fn noting_unknown<T>(
    read: impl FnOnce(&mut dyn FnMut(serde_ignored::Path<'_>)) -> Result<T, String>,
) -> Result<(T, Vec<Problem>), Problem> {
    let mut problems = Vec::new();
    let read = read(&mut |path| {
        problems.push(Problem {
            path: spell(&path),
            what: "unknown field".to_owned(),
            advice: "remove it, or look for the right name in `warmpath config example`".to_owned(),
        });
    });
    match read {
        Ok(read) => Ok((read, problems)),
        Err(error) => Err(Problem {
            path: String::new(),
            what: error.trim_end().to_owned(),
            advice: "see `warmpath config example` for the right form".to_owned(),
        }),
    }
}

/// What is wrong and where, with the line itself unless a secret may stand there.
fn spelled(error: &toml::de::Error) -> String {
    let told = error.to_string();
    if SECRETS.iter().any(|secret| told.contains(secret)) { error.message().to_owned() } else { told }
}

const SECRETS: [&str; 1] = ["api_key"];

/// `instances[0].kv_events.endpoint` rather than `instances.0.kv_events.?.endpoint`.
fn spell(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", spell(parent)),
        Path::Map { parent, key } => match spell(parent) {
            parent if parent.is_empty() => key.clone(),
            parent => format!("{parent}.{key}"),
        },
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => spell(parent),
    }
}
