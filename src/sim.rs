//! Imagines: a fleet of vLLM instances on virtual time.
//!
//! [`Instance`] is one engine: a scheduler with continuous batching and chunked prefill over a finite pool of KV blocks.
//! [`Cluster`] is several of them behind the very [`Router`](crate::routing::Router) that serves. The mock server drives
//! an [`Instance`] too, on the wall clock.
//!
//! Absent on purpose: threads and clocks. One seed, one order of events, the same bytes every time.

mod agenda;
mod cache;
mod cluster;
mod cost;
mod energy;
mod eviction;
mod fit;
mod instance;
mod kavier;
mod pooled;
mod work;

pub use agenda::Agenda;
pub use cluster::{Arrival, Cluster, ClusterConfig, Conditions, Refused, Served};
pub use cost::{Preset, StepModel, UnknownPreset};
pub use energy::{Energy, Gpus, Tariff};
pub use eviction::{Category, Eviction, Foresight, UnknownEviction};
pub use fit::{Fit, FitError, Measurement, MeasurementsError, fit};
pub use instance::{Instance, InstanceConfig};
pub use kavier::KavierModel;
pub use pooled::{Answering, PooledCache};
pub use work::{CacheEvent, InstanceStats, Progress, TooLarge, Work};
