//! Where instances are found beside those that are configured one by one.

use super::problem::Invalid;
use super::{Instance, Named, check, raw};
use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// What finds instances, and how far it is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// Who is asked.
    pub sources: Vec<Source>,
    /// For so long a source that found instances and suddenly finds none is not believed.
    pub empty_for: Duration,
    /// For so long the requests of an instance that is gone, from a source or from the file, may go on.
    pub drain_max: Duration,
}

impl Default for Discovery {
    fn default() -> Self {
        Discovery { sources: Vec::new(), empty_for: Duration::from_secs(300), drain_max: Duration::from_secs(60) }
    }
}

/// One source of instances. Displayed, it is what the source is called in logs and on the page.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A file with `[[instances]]`.
    File {
        /// TOML, or JSON where it ends in `.json`.
        path: PathBuf,
        /// Time between two looks at it.
        poll: Duration,
    },
    /// A name that resolves to instances.
    Dns(Dns),
    /// Instances in a Kubernetes cluster.
    Kubernetes(Kubernetes),
}

/// A name that resolves to instances.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dns {
    /// The name.
    pub name: String,
    /// The port of each address; `None` where SRV records tell it.
    pub port: Option<u16>,
    /// The name server; the system's own where none is set.
    pub server: Option<SocketAddr>,
    /// Time between two questions, at least.
    pub interval_min: Duration,
    /// Time between two questions, at most.
    pub interval_max: Duration,
    /// What is the same of all.
    pub template: Template,
}

/// Instances in a Kubernetes cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kubernetes {
    /// The namespace; the router's own where none is set.
    pub namespace: Option<String>,
    /// Which of its pods.
    pub pods: Pods,
    /// The port of each.
    pub port: u16,
    /// What is the same of all.
    pub template: Template,
}

/// Which pods are instances.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Pods {
    /// The endpoints of a service.
    Of {
        /// Its name.
        service: String,
    },
    /// Those that a label selector selects.
    Labelled {
        /// As for `kubectl get --selector`.
        selector: String,
    },
}

/// What is the same of all instances that a source finds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Template {
    /// The model that each serves.
    pub model: String,
    /// Whether each speaks `VllmEngine` instead of the OpenAI API.
    pub is_grpc: bool,
    /// How many ranks are behind each address.
    pub data_parallel_ranks: Option<u32>,
    /// The port that each publishes its cache events on.
    pub kv_events_port: Option<u16>,
    /// The port that what was published before can be asked for at.
    pub kv_events_replay_port: Option<u16>,
    /// The topic that each publishes under.
    pub kv_events_topic: Option<String>,
}

impl Template {
    /// The instance of this name at an address, or one for each rank.
    pub fn instances(&self, name: &str, host: &str, port: u16) -> Result<Vec<Instance>, Invalid> {
        let host = match host.parse::<IpAddr>() {
            Ok(IpAddr::V6(address)) => format!("[{address}]"),
            Ok(IpAddr::V4(_)) | Err(_) => host.to_owned(),
        };
        let scheme = if self.is_grpc { "grpc" } else { "http" };
        let endpoint = |port: Option<u16>| port.map(|port| format!("tcp://{host}:{port}"));
        let named = Named {
            name: name.to_owned(),
            url: format!("{scheme}://{host}:{port}"),
            model: self.model.clone(),
            inference_url: None,
            data_parallel_ranks: self.data_parallel_ranks,
            kv_events_endpoint: endpoint(self.kv_events_port),
            kv_events_replay_endpoint: endpoint(self.kv_events_replay_port),
            kv_events_topic: self.kv_events_topic.clone(),
        };
        named.check()
    }
}

impl Discovery {
    /// The models that its sources may bring; `None` where a file may bring any.
    pub(super) fn models(&self) -> Option<BTreeSet<&str>> {
        let models = self.sources.iter().map(|source| match source {
            Source::File { .. } => None,
            Source::Dns(dns) => Some(dns.template.model.as_str()),
            Source::Kubernetes(kubernetes) => Some(kubernetes.template.model.as_str()),
        });
        models.collect()
    }
}

/// The instances of a file that holds nothing else: TOML, or JSON. There may be none.
pub fn instances(text: &str, is_json: bool) -> Result<Vec<Instance>, Invalid> {
    let (fleet, problems) = if is_json { raw::read_json(text) } else { raw::read(text) }.map_err(Invalid::from)?;
    check::fleet(fleet, problems)
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::File { path, .. } => write!(f, "file {}", path.display()),
            Source::Dns(Dns { name, port: Some(port), .. }) => write!(f, "dns {name} port {port}"),
            Source::Dns(Dns { name, port: None, .. }) => write!(f, "dns {name}"),
            Source::Kubernetes(Kubernetes { namespace, pods, port, .. }) => {
                let namespace = namespace.as_deref().unwrap_or("(own namespace)");
                match pods {
                    Pods::Of { service } => write!(f, "kubernetes {namespace} service {service} port {port}"),
                    Pods::Labelled { selector } => write!(f, "kubernetes {namespace} pods {selector} port {port}"),
                }
            }
        }
    }
}
