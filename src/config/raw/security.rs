//! Who may come in, and how much is taken, as it is written.

use super::Leaf;
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::config) struct Tls {
    pub grpc: ListenerTls,
    pub http: ListenerTls,
    pub admin: ListenerTls,
    pub reload_seconds: Option<Leaf<u64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::config) struct ListenerTls {
    pub certificate: Option<Leaf<String>>,
    pub key: Option<Leaf<String>>,
    pub client_ca: Option<Leaf<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::config) struct Upstream {
    pub ca: Option<Leaf<String>>,
    pub certificate: Option<Leaf<String>>,
    pub key: Option<Leaf<String>>,
    pub server_name: Option<Leaf<String>>,
    pub api_key: Option<Leaf<String>>,
    pub api_key_file: Option<Leaf<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::config) struct Keys {
    pub file: Option<Leaf<String>>,
    pub lines: Option<Leaf<String>>,
    pub forward: Option<Leaf<bool>>,
    pub requests_per_second: Option<Leaf<f64>>,
    pub burst: Option<Leaf<u32>>,
    pub tokens_per_minute: Option<Leaf<u64>>,
    pub concurrent_max: Option<Leaf<u32>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::config) struct Limits {
    pub connections_max: Option<Leaf<usize>>,
    pub streams_max: Option<Leaf<u32>>,
    pub headers_max: Option<Leaf<usize>>,
    pub header_bytes_max: Option<Leaf<usize>>,
    pub header_seconds_max: Option<Leaf<u64>>,
    pub idle_seconds_max: Option<Leaf<u64>>,
    pub body_seconds_max: Option<Leaf<u64>>,
    pub body_bytes_per_second_min: Option<Leaf<u64>>,
    pub write_seconds_max: Option<Leaf<u64>>,
    pub prompt_tokens_max: Option<Leaf<u32>>,
}

/// What an instance's section says of how it is reached.
pub(in crate::config) struct Access {
    pub server_name: Option<Leaf<String>>,
    pub api_key: Option<Leaf<String>>,
    pub api_key_file: Option<Leaf<String>>,
}
