//! Acts: the router behind real sockets, on the real clock.
//!
//! [`App`] is the only wiring: it binds, says where, runs and drains. Requests come in through the ingress, what the
//! instances cache comes in through the watchers, and both go through the two doors of one [`Router`](crate::routing::Router), which
//! [`Core`] keeps together with what serving adds: a clock, the instances' names, metrics.
//!
//! The configured instances, those that are registered later and those that are discovered join and leave by one way, `fleet`,
//! and are watched the same. What the configuration and the sources of instances want is made so by one reconciler, and the
//! configuration is read again by one reloader, whole or not at all.

mod admission;
mod app;
mod clock;
mod core;
mod fleet;
mod health;
mod ingress;
mod journal;
mod members;
mod news;
mod protobuf;
mod recorder;
mod reload;
mod security;
mod status;
mod tasks;
mod telemetry;
mod ticket;
mod tls;
mod tokenizer;
mod upstream;
mod watch;

pub use app::{App, AppError};
pub use clock::Clock;
pub use core::{Core, RegisterError};
pub use journal::{Step, Suspect, Verdict, Why};
pub use members::{JoinError, Member};
pub use recorder::RecorderError;
pub use reload::Watched;
pub use security::SecurityError;
pub use status::{Found, Instance, Placed, Queue, Reloaded, ReportedLoad, Status};
pub use telemetry::{logs, metrics_document};
pub use tls::TlsError;
pub(crate) use tls::{ClientTls, Connector};
pub use tokenizer::{Tokenizer, TokenizerError, tokenizer_for_traces};
pub use upstream::ApiKeyError;
pub(crate) use upstream::api_key;
pub use watch::kv_events;

/// The wire types of `proto/warmpath/v1/router.proto`, with a client and a server.
#[allow(missing_docs, reason = "generated; what there is to say is in the proto")]
pub mod proto {
    tonic::include_proto!("warmpath.v1");

    /// The protos themselves, for reflection: an encoded `FileDescriptorSet`.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}
