//! Who may come in, how much of what is taken from them, and how connections are kept from other eyes.
//!
//! Files are named here and read when serving starts, and again when they change.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// All of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Security {
    /// TLS of the listeners.
    pub tls: Tls,
    /// TLS towards instances, and what is shown to them.
    pub upstream: UpstreamAccess,
    /// Who may come in.
    pub keys: Keys,
    /// How much is taken from one.
    pub limits: Limits,
}

/// TLS of the listeners; plain text where there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The gRPC listener's.
    pub grpc: Option<ListenerTls>,
    /// The OpenAI listener's.
    pub http: Option<ListenerTls>,
    /// The admin listener's.
    pub admin: Option<ListenerTls>,
    /// Time between two looks at certificates and keys.
    pub reload: Duration,
}

impl Default for Tls {
    fn default() -> Self {
        Tls { grpc: None, http: None, admin: None, reload: Duration::from_secs(10) }
    }
}

/// How one listener shows who it is. All files are PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// Its certificate, and those between it and an authority that clients know.
    pub certificate: PathBuf,
    /// The certificate's key.
    pub key: PathBuf,
    /// Authorities, one of which must have signed a client's certificate; without it clients need none.
    pub client_ca: Option<PathBuf>,
}

/// How instances are reached at `https://` and `grpcs://`, and the key that is shown to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamAccess {
    /// Authorities that sign instances' certificates, PEM; without it those that the system trusts.
    pub ca: Option<PathBuf>,
    /// Certificate and key that are shown to instances that ask.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name that instances' certificates must have; without it the host of their URLs.
    pub server_name: Option<String>,
    /// The key of instances that have none of their own.
    pub api_key: Option<ApiKey>,
}

/// How one instance is reached, where not as all are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceAccess {
    /// The name that its certificate must have.
    pub server_name: Option<String>,
    /// Its key.
    pub api_key: Option<ApiKey>,
}

/// Where the key is that is shown to instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiKey {
    /// In the configuration.
    Here(Secret),
    /// In a file of its own: the first line.
    File(PathBuf),
}

/// What is never shown, not even by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Keeps a text from being shown.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Secret(text.into())
    }

    /// The text, for whoever has to send it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Who may come in by a key. Where a listener has none, everyone who reaches it may.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Keys {
    /// Those of the OpenAI and the gRPC listener.
    pub clients: KeySource,
    /// Those of the admin listener.
    pub operators: KeySource,
    /// Whether a client's key is passed on to the instance.
    pub forward: bool,
    /// What each client's key may, where its line does not say.
    pub quota: Quota,
}

/// Where keys are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySource {
    /// Lines as `warmpath key new` prints them.
    pub file: Option<PathBuf>,
    /// Such lines, in the configuration or the environment itself.
    pub lines: Option<String>,
}

impl KeySource {
    /// Whether one must be shown.
    pub fn are_asked_for(&self) -> bool {
        self.file.is_some() || self.lines.is_some()
    }
}

/// What one key may; without limit where nothing is said.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Quota {
    /// Requests a second, on average.
    pub requests_per_second: Option<f64>,
    /// Requests at once, after a while without any. At least one.
    pub burst: Option<u32>,
    /// Prompt and output tokens a minute, on average.
    pub tokens_per_minute: Option<u64>,
    /// Requests under way.
    pub concurrent_max: Option<u32>,
}

/// How much is taken from one client, or one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections to one listener.
    pub connections_max: usize,
    /// Requests at once on one HTTP/2 connection.
    pub streams_max: u32,
    /// Headers of one request.
    pub headers_max: usize,
    /// Bytes of all headers of one request.
    pub header_bytes_max: usize,
    /// How long a TLS handshake, a connection's first request and a request's head may take.
    pub header: Duration,
    /// How long a connection may stand without a request.
    pub idle: Duration,
    /// How long a body may take...
    pub body: Duration,
    /// ...and a second more for so many bytes of it.
    pub body_bytes_per_second_min: u64,
    /// How long a client may leave an answer unread.
    pub write: Duration,
    /// Tokens of one request's prompts.
    pub prompt_tokens_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections_max: 8192,
            streams_max: 1024,
            headers_max: 100,
            header_bytes_max: 64 << 10,
            header: Duration::from_secs(30),
            idle: Duration::from_secs(300),
            body: Duration::from_secs(30),
            body_bytes_per_second_min: 16 << 10,
            write: Duration::from_secs(60),
            prompt_tokens_max: 1 << 24,
        }
    }
}
