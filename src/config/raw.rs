//! The file as it is written: every field optional, every leaf of any type, unknown fields noted.

mod security;

use super::problem::Problem;
pub(super) use security::{Access, Keys, Limits, ListenerTls, Tls, Upstream};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Config {
    pub server: Server,
    pub http: Http,
    pub health: Health,
    pub routing: Routing,
    pub instances: Vec<Instance>,
    pub tokenizers: Vec<Tokenizer>,
    pub recorder: Option<Recorder>,
    pub watch: Watch,
    pub admission: Admission,
    pub tls: Tls,
    pub upstream: Upstream,
    pub keys: Keys,
    pub limits: Limits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Admission {
    pub prefill_tokens_max: Option<Leaf<u64>>,
    pub kv_usage_max: Option<Leaf<f64>>,
    pub queue_requests_max: Option<Leaf<usize>>,
    pub queue_bytes_max: Option<Leaf<usize>>,
    pub wait_seconds_max: Option<Leaf<u64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Recorder {
    pub folder: Option<Leaf<String>>,
    pub file_bytes_max: Option<Leaf<u64>>,
    pub files_max: Option<Leaf<usize>>,
    pub memory_bytes_max: Option<Leaf<usize>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Watch {
    pub discover_kv_events: Option<Leaf<bool>>,
    pub load_interval_busy_ms: Option<Leaf<u64>>,
    pub load_interval_idle_ms: Option<Leaf<u64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TierWeights {
    pub gpu: Option<Leaf<f64>>,
    pub cpu: Option<Leaf<f64>>,
    pub storage: Option<Leaf<f64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Tokenizer {
    pub model: Option<Leaf<String>>,
    pub path: Option<Leaf<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Server {
    pub listen: Option<Leaf<String>>,
    pub http_listen: Option<Leaf<String>>,
    pub admin_listen: Option<Leaf<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Http {
    pub body_bytes_max: Option<Leaf<usize>>,
    pub retries_max: Option<Leaf<u32>>,
    pub head_seconds_max: Option<Leaf<u64>>,
    pub idle_seconds_max: Option<Leaf<u64>>,
    pub tokenize_milliseconds_max: Option<Leaf<u64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Health {
    pub interval_seconds: Option<Leaf<u64>>,
    pub failures_max: Option<Leaf<u32>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Routing {
    pub policy: Option<Leaf<String>>,
    pub block_size: Option<Leaf<u32>>,
    pub seed: Option<Leaf<u64>>,
    pub lease_seconds: Option<Leaf<u64>>,
    pub max_in_flight: Option<Leaf<usize>>,
    pub index_bytes_max: Option<Leaf<usize>>,
    pub approximate_blocks_max: Option<Leaf<usize>>,
    pub tier_weights: TierWeights,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Instance {
    pub name: Option<Leaf<String>>,
    pub url: Option<Leaf<String>>,
    pub inference_url: Option<Leaf<String>>,
    pub model: Option<Leaf<String>>,
    pub data_parallel_ranks: Option<Leaf<u32>>,
    pub kv_events: Option<KvEvents>,
    pub server_name: Option<Leaf<String>>,
    pub api_key: Option<Leaf<String>>,
    pub api_key_file: Option<Leaf<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct KvEvents {
    pub endpoint: Option<Leaf<String>>,
    pub listen: Option<Leaf<String>>,
    pub replay_endpoint: Option<Leaf<String>>,
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

/// Reads a file's text; the problems are its unknown fields.
pub(super) fn read(text: &str) -> Result<(Config, Vec<Problem>), Problem> {
    let mut problems = Vec::new();
    let unknown = |path: serde_ignored::Path<'_>| {
        problems.push(Problem {
            path: spell(&path),
            what: "unknown field".to_owned(),
            advice: "remove it, or look for the right name in `warmpath config example`".to_owned(),
        });
    };
    let read = toml::Deserializer::parse(text).and_then(|toml| serde_ignored::deserialize(toml, unknown));
    match read {
        Ok(config) => Ok((config, problems)),
        Err(error) => Err(Problem {
            path: String::new(),
            what: spelled(&error),
            advice: "see `warmpath config example` for the right form".to_owned(),
        }),
    }
}

/// What is wrong and where, with the line itself unless a secret may stand there.
fn spelled(error: &toml::de::Error) -> String {
    let told = error.to_string().trim_end().to_owned();
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
