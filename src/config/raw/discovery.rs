//! `[discovery]`.

use super::{Instance, Leaf};
use schemars::JsonSchema;
use serde::Deserialize;

/// Where instances are found beside those that are written here.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Discovery {
    /// Seconds until a source that suddenly finds no instance at all is believed.
    pub empty_seconds: Option<Leaf<u64>>,
    /// Seconds that the requests of an instance that is gone get to end.
    pub drain_seconds: Option<Leaf<u64>>,
    /// Files of instances, watched.
    pub file: Vec<FileSource>,
    /// Names that resolve to instances.
    pub dns: Vec<DnsSource>,
    /// Services and pods of a Kubernetes cluster.
    pub kubernetes: Vec<KubernetesSource>,
}

/// A file with `[[instances]]`, as in this one.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields, extend("required" = ["path"]))]
pub(in crate::config) struct FileSource {
    /// TOML, or JSON where the name ends in `.json`.
    pub path: Option<Leaf<String>>,
    /// Seconds between two looks at it.
    #[schemars(range(min = 1))]
    pub poll_seconds: Option<Leaf<u64>>,
}

/// A name whose addresses are instances.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields, extend("required" = ["name", "instance"]))]
pub(in crate::config) struct DnsSource {
    /// Its A records are asked for (AAAA where there are none); SRV where it begins with an underscore.
    pub name: Option<Leaf<String>>,
    /// The port of each address; an SRV record has its own.
    pub port: Option<Leaf<u16>>,
    /// The name server, `address:port`; the system's own unless set.
    pub server: Option<Leaf<String>>,
    /// Seconds between two questions, at least: a shorter TTL does not make them more frequent.
    #[schemars(range(min = 1))]
    pub interval_min_seconds: Option<Leaf<u64>>,
    /// The same at most, whatever the TTL.
    #[schemars(range(min = 1))]
    pub interval_max_seconds: Option<Leaf<u64>>,
    /// What is the same of all that are found.
    pub instance: Option<Template>,
}

/// Instances in a Kubernetes cluster: the endpoints of a service, or pods.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields, extend("required" = ["port", "instance"]))]
pub(in crate::config) struct KubernetesSource {
    /// The namespace; the router's own unless set.
    pub namespace: Option<Leaf<String>>,
    /// A service: its EndpointSlices are watched. Either this or `pods`.
    pub service: Option<Leaf<String>>,
    /// A label selector, such as `app=vllm`: ready pods are instances. Either this or `service`.
    pub pods: Option<Leaf<String>>,
    /// The port of each: that of vLLM's API.
    pub port: Option<Leaf<u16>>,
    /// What is the same of all that are found.
    pub instance: Option<Template>,
}

/// What is the same of all instances that a source finds.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields, extend("required" = ["model"]))]
pub(in crate::config) struct Template {
    /// The name that each serves its model under.
    pub model: Option<Leaf<String>>,
    /// `http`, or `grpc` for `vllm serve --grpc`.
    pub protocol: Option<Leaf<String>>,
    /// How many ranks are behind each address.
    #[schemars(range(min = 1))]
    pub data_parallel_ranks: Option<Leaf<u32>>,
    /// The port that each publishes its cache events on.
    pub kv_events_port: Option<Leaf<u16>>,
    /// The port that what was published before can be asked for at.
    pub kv_events_replay_port: Option<Leaf<u16>>,
    /// The topic that each publishes under.
    pub kv_events_topic: Option<Leaf<String>>,
}

/// A file of instances alone.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::config) struct Fleet {
    pub instances: Vec<Instance>,
}
