//! Who may come in, and how much is taken, as it is written.

use super::Leaf;
use schemars::JsonSchema;
use serde::Deserialize;

/// TLS on the listeners.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Tls {
    /// Of `server.listen`.
    pub grpc: ListenerTls,
    /// Of `server.http_listen`.
    pub http: ListenerTls,
    /// Of `server.admin_listen`.
    pub admin: ListenerTls,
    /// Seconds between two looks at the files of certificates and keys.
    pub reload_seconds: Option<Leaf<u64>>,
}

/// A certificate to show, and whose clients are let in.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct ListenerTls {
    /// A PEM file: the certificate, then its chain.
    pub certificate: Option<Leaf<String>>,
    /// A PEM file: its private key.
    pub key: Option<Leaf<String>>,
    /// A PEM file: only clients with a certificate of these authorities are let in.
    pub client_ca: Option<Leaf<String>>,
}

/// How instances are reached.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Upstream {
    /// A PEM file: the authorities of their certificates.
    pub ca: Option<Leaf<String>>,
    /// A PEM file: a certificate to show to those that ask for one.
    pub certificate: Option<Leaf<String>>,
    /// A PEM file: its private key.
    pub key: Option<Leaf<String>>,
    /// The name in their certificates, where that is not the host of the URL.
    pub server_name: Option<Leaf<String>>,
    /// The key that they ask for.
    pub api_key: Option<Leaf<String>>,
    /// A file with the key that they ask for.
    pub api_key_file: Option<Leaf<String>>,
}

/// Who may come in.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Keys {
    /// A file with a line for each key: `warmpath key new`.
    pub file: Option<Leaf<String>>,
    /// Such lines themselves; for the environment.
    pub lines: Option<Leaf<String>>,
    /// A file with a line for each key that opens the admin listener.
    pub admin_file: Option<Leaf<String>>,
    /// Such lines themselves; for the environment.
    pub admin_lines: Option<Leaf<String>>,
    /// Whether instances see the client's key.
    pub forward: Option<Leaf<bool>>,
    /// What each key may, where its line does not say.
    pub requests_per_second: Option<Leaf<f64>>,
    /// Requests at once beyond that.
    pub burst: Option<Leaf<u32>>,
    /// Tokens of prompts and answers.
    pub tokens_per_minute: Option<Leaf<u64>>,
    /// Requests under way.
    pub concurrent_max: Option<Leaf<u32>>,
}

/// How much is taken from clients.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Limits {
    /// Connections of each listener.
    pub connections_max: Option<Leaf<usize>>,
    /// Streams of one HTTP/2 connection.
    pub streams_max: Option<Leaf<u32>>,
    /// Headers of a request.
    pub headers_max: Option<Leaf<usize>>,
    /// Their bytes.
    pub header_bytes_max: Option<Leaf<usize>>,
    /// Seconds until a head is there.
    pub header_seconds_max: Option<Leaf<u64>>,
    /// Seconds that a connection may be without a request.
    pub idle_seconds_max: Option<Leaf<u64>>,
    /// Seconds until a body is there, beside what its bytes take.
    pub body_seconds_max: Option<Leaf<u64>>,
    /// Bytes of a body each second.
    pub body_bytes_per_second_min: Option<Leaf<u64>>,
    /// Seconds that an answer may wait to be read.
    pub write_seconds_max: Option<Leaf<u64>>,
    /// Tokens of a prompt.
    pub prompt_tokens_max: Option<Leaf<u32>>,
}

/// What an instance's section says of how it is reached.
pub(in crate::config) struct Access {
    pub server_name: Option<Leaf<String>>,
    pub api_key: Option<Leaf<String>>,
    pub api_key_file: Option<Leaf<String>>,
}
