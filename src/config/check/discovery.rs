//! `[discovery]`, and files of instances.

use super::super::problem::{Invalid, Problem};
use super::super::raw::{self, Leaf};
use super::super::{Discovery, Dns, Instance, Kubernetes, Pods, Source, Template};
use super::Check;
use std::collections::HashMap;
use std::time::Duration;

const PORT: &str = "write the port of vLLM's API, such as 8000";
const NAME: &str = "write a DNS name: letters, digits, hyphens and underscores between dots";
const EITHER: &str = "write one of service = \"NAME\" and pods = \"LABEL=VALUE\"";
const TEMPLATE: &str = "write instance = { model = \"NAME\" }, and kv_events_port where they publish";

/// The instances of a file of their own.
pub(in crate::config) fn fleet(raw: raw::Fleet, problems: Vec<Problem>) -> Result<Vec<Instance>, Invalid> {
    let mut check = Check { problems };
    let instances = check.instances(raw.instances, true);
    if check.problems.is_empty() { Ok(instances) } else { Err(Invalid { problems: check.problems }) }
}

impl Check {
    pub(super) fn discovery(&mut self, raw: raw::Discovery) -> Discovery {
        let default = Discovery::default();
        let seconds = "write whole seconds";
        let empty = self.leaf("discovery.empty_seconds", raw.empty_seconds, seconds);
        let drain = self.leaf("discovery.drain_seconds", raw.drain_seconds, seconds);
        let mut sources = Vec::new();
        for (at, file) in raw.file.into_iter().enumerate() {
            sources.push(self.file_source(&format!("discovery.file[{at}]"), file));
        }
        for (at, dns) in raw.dns.into_iter().enumerate() {
            sources.push(Source::Dns(self.dns_source(&format!("discovery.dns[{at}]"), dns)));
        }
        for (at, kubernetes) in raw.kubernetes.into_iter().enumerate() {
            let source = self.kubernetes_source(&format!("discovery.kubernetes[{at}]"), kubernetes);
            sources.push(Source::Kubernetes(source));
        }
        let mut seen = HashMap::new();
        for source in &sources {
            let name = source.to_string();
            self.unique("discovery", &name, &mut seen);
        }
        Discovery {
            sources,
            empty_for: empty.map_or(default.empty_for, Duration::from_secs),
            drain_max: drain.map_or(default.drain_max, Duration::from_secs),
        }
    }

    fn file_source(&mut self, path: &str, raw: raw::FileSource) -> Source {
        let poll = self.at_least_one(&format!("{path}.poll_seconds"), raw.poll_seconds).unwrap_or(2);
        let file = self.text(&format!("{path}.path"), raw.path, "write the path of a file with [[instances]]");
        Source::File { path: file.into(), poll: Duration::from_secs(poll) }
    }

    fn dns_source(&mut self, path: &str, raw: raw::DnsSource) -> Dns {
        let name_path = format!("{path}.name");
        let name = self.text(&name_path, raw.name, NAME);
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        if !name.chars().all(plain) || name.len() > 253 {
            self.problem(&name_path, format!("{name:?} is not one"), NAME);
        }
        let port_path = format!("{path}.port");
        let port = self.port(&port_path, raw.port, PORT);
        let asks_srv = name.starts_with('_');
        if asks_srv && port.is_some() {
            self.problem(&port_path, "is there beside the port of the SRV records", "remove it");
        } else if !asks_srv && port.is_none() && !name.is_empty() {
            self.problem(&port_path, "is missing", PORT);
        }
        let server_path = format!("{path}.server");
        let advice = "write the name server's IP address and port, such as \"10.96.0.10:53\"";
        let server = self.leaf(&server_path, raw.server, advice);
        let server = server.and_then(|text| {
            let server = text.parse().ok();
            if server.is_none() {
                self.problem(&server_path, format!("{text:?} is not an address"), advice);
            }
            server
        });
        let min = self.at_least_one(&format!("{path}.interval_min_seconds"), raw.interval_min_seconds).unwrap_or(5);
        let max_path = format!("{path}.interval_max_seconds");
        let max = self.at_least_one(&max_path, raw.interval_max_seconds).unwrap_or(min.max(60));
        if max < min {
            self.problem(&max_path, format!("{max} is less than interval_min_seconds"), "write no less");
        }
        let template = self.template(path, raw.instance);
        let (interval_min, interval_max) = (Duration::from_secs(min), Duration::from_secs(max));
        Dns { name, port, server, interval_min, interval_max, template }
    }

    fn kubernetes_source(&mut self, path: &str, raw: raw::KubernetesSource) -> Kubernetes {
        if !cfg!(feature = "kubernetes") {
            self.problem(path, "this Warmpath was built without it", "build it with the feature kubernetes");
        }
        let namespace = self.leaf(&format!("{path}.namespace"), raw.namespace, "write a namespace");
        let service = self.leaf(&format!("{path}.service"), raw.service, EITHER);
        let pods = self.leaf(&format!("{path}.pods"), raw.pods, EITHER);
        let pods = match (service, pods) {
            (Some(service), None) if !service.is_empty() => Pods::Of { service },
            (None, Some(selector)) if !selector.is_empty() => Pods::Labelled { selector },
            (service, _) => {
                self.problem(path, "names no pods, or names them twice", EITHER);
                Pods::Of { service: service.unwrap_or_default() }
            }
        };
        let port_path = format!("{path}.port");
        if raw.port.is_none() {
            self.problem(&port_path, "is missing", PORT);
        }
        let port = self.port(&port_path, raw.port, PORT).unwrap_or_default();
        Kubernetes { namespace, pods, port, template: self.template(path, raw.instance) }
    }

    fn template(&mut self, path: &str, raw: Option<raw::Template>) -> Template {
        let Some(raw) = raw else {
            self.problem(&format!("{path}.instance"), "is missing", TEMPLATE);
            return Template::default();
        };
        let path = format!("{path}.instance");
        let protocol_path = format!("{path}.protocol");
        let advice = "write \"http\" or \"grpc\"";
        let protocol = self.leaf(&protocol_path, raw.protocol, advice).unwrap_or_else(|| "http".to_owned());
        if protocol != "http" && protocol != "grpc" {
            self.problem(&protocol_path, format!("{protocol:?} is not known"), advice);
        }
        let events = "write a port of the instances";
        let template = Template {
            model: self.text(&format!("{path}.model"), raw.model, "write the name that they serve it under"),
            is_grpc: protocol == "grpc",
            data_parallel_ranks: self.at_least_one(&format!("{path}.data_parallel_ranks"), raw.data_parallel_ranks),
            kv_events_port: self.port(&format!("{path}.kv_events_port"), raw.kv_events_port, events),
            kv_events_replay_port: self.port(
                &format!("{path}.kv_events_replay_port"),
                raw.kv_events_replay_port,
                events,
            ),
            kv_events_topic: self.leaf(&format!("{path}.kv_events_topic"), raw.kv_events_topic, "write a string"),
        };
        let needs_events = template.kv_events_replay_port.is_some() || template.kv_events_topic.is_some();
        if needs_events && template.kv_events_port.is_none() {
            self.problem(&format!("{path}.kv_events_port"), "is missing beside the rest of kv_events", events);
        }
        // What is asked of every instance is asked once here, so that what a source finds cannot fail for the template's sake.
        else if let Err(invalid) = template.instances("name", "192.0.2.1", 8000)
            && !template.model.is_empty()
        {
            for problem in invalid.problems {
                self.problem(&path, format!("makes no instance: {}: {}", problem.path, problem.what), &problem.advice);
            }
        }
        template
    }

    fn port(&mut self, path: &str, raw: Option<Leaf<u16>>, advice: &str) -> Option<u16> {
        let port = self.leaf(path, raw, advice);
        if port == Some(0) {
            self.problem(path, "is 0", advice);
        }
        port.filter(|&port| port != 0)
    }
}
