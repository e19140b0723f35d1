//! From what was written to what can be run, noting every problem on the way.

use super::problem::{Invalid, Problem};
use super::raw::{self, Leaf};
use super::{Config, Endpoint, Instance, KvEvents, Server};
use crate::routing::block::BlockSize;
use crate::routing::policy::PolicySpec;
use crate::routing::{self, InstanceId};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9000);
const ADMIN_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

pub(super) fn config(raw: raw::Config, problems: Vec<Problem>) -> Result<Config, Invalid> {
    let mut check = Check { problems };
    let server = check.server(raw.server);
    let routing = check.routing(raw.routing);
    let instances = check.instances(raw.instances);
    if check.problems.is_empty() {
        Ok(Config { server, routing, instances })
    } else {
        Err(Invalid { problems: check.problems })
    }
}

/// The problems found so far. Where one is found the default stands in, only so that the checks can go on.
struct Check {
    problems: Vec<Problem>,
}

impl Check {
    fn server(&mut self, raw: raw::Server) -> Server {
        let listen = self.address("server.listen", raw.listen, LISTEN);
        let admin_listen = self.address("server.admin_listen", raw.admin_listen, ADMIN_LISTEN);
        if listen == admin_listen && listen.port() != 0 {
            let what = format!("{listen} is also server.listen");
            self.problem("server.admin_listen", what, "give each its own port");
        }
        Server { listen, admin_listen }
    }

    fn routing(&mut self, raw: raw::Routing) -> routing::Config {
        let default = routing::Config::default();
        let policy = self.leaf("routing.policy", raw.policy, "write a policy's name");
        let block_size = self.leaf("routing.block_size", raw.block_size, BLOCK_SIZE);
        let seed = self.leaf("routing.seed", raw.seed, "write a whole number, not negative");
        let policy =
            self.parsed("routing.policy", policy, |name: String| name.parse::<PolicySpec>(), "pick one of them");
        routing::Config {
            policy: policy.kind,
            tuning: policy.tuning,
            block_size: self.parsed("routing.block_size", block_size, BlockSize::new, BLOCK_SIZE),
            seed: seed.unwrap_or(default.seed),
            lease: self
                .at_least_one("routing.lease_seconds", raw.lease_seconds)
                .map_or(default.lease, Duration::from_secs),
            requests_max: self.at_least_one("routing.max_in_flight", raw.max_in_flight).unwrap_or(default.requests_max),
            index_bytes_max: self
                .at_least_one("routing.index_bytes_max", raw.index_bytes_max)
                .unwrap_or(default.index_bytes_max),
            ..default
        }
    }

    fn instances(&mut self, raw: Vec<raw::Instance>) -> Vec<Instance> {
        if raw.is_empty() {
            self.problem("instances", "there are none", "add an [[instances]] section for each vLLM instance");
        }
        if raw.len() > InstanceId::LIMIT {
            let what = format!("there are {}, and a router knows {} at most", raw.len(), InstanceId::LIMIT);
            self.problem("instances", what, "split the fleet between several routers");
        }
        let (mut names, mut urls) = (HashMap::new(), HashMap::new());
        let mut checked = Vec::with_capacity(raw.len());
        for (at, instance) in raw.into_iter().enumerate() {
            let path = format!("instances[{at}]");
            let instance = self.instance(&path, instance);
            self.unique(&format!("{path}.name"), &instance.name, &mut names);
            self.unique(&format!("{path}.url"), &instance.url, &mut urls);
            checked.push(instance);
        }
        checked
    }

    fn instance(&mut self, path: &str, raw: raw::Instance) -> Instance {
        let name = self.text(&format!("{path}.name"), raw.name, "give it a name of its own, such as \"vllm-0\"");
        let model = self.text(&format!("{path}.model"), raw.model, "write the name that the instance serves it under");
        let url_path = format!("{path}.url");
        let url = self.text(&url_path, raw.url, URL);
        if !url.is_empty() && host_and_port(&url, "http://").is_none() {
            self.problem(&url_path, format!("{url:?} is not a base URL"), URL);
        }
        let kv_events = raw.kv_events.and_then(|raw| self.kv_events(&format!("{path}.kv_events"), raw));
        Instance { name, url, model, kv_events }
    }

    fn kv_events(&mut self, path: &str, raw: raw::KvEvents) -> Option<KvEvents> {
        let topic = self.leaf(&format!("{path}.topic"), raw.topic, "write a string").unwrap_or_default();
        let path = format!("{path}.endpoint");
        let endpoint = self.text(&path, raw.endpoint, ENDPOINT);
        if endpoint.is_empty() {
            return None;
        }
        match host_and_port(&endpoint, "tcp://") {
            Some((host, port)) if host != "*" => Some(KvEvents { endpoint: Endpoint { host, port }, topic }),
            Some(_) | None => {
                self.problem(&path, format!("{endpoint:?} is not an endpoint to connect to"), ENDPOINT);
                None
            }
        }
    }

    fn address(&mut self, path: &str, raw: Option<Leaf<String>>, default: SocketAddr) -> SocketAddr {
        const ADVICE: &str = "write an IP address and a port, such as \"0.0.0.0:9000\"";
        let Some(text) = self.leaf(path, raw, ADVICE) else {
            return default;
        };
        text.parse().unwrap_or_else(|_| {
            self.problem(path, format!("{text:?} is not an address"), ADVICE);
            default
        })
    }

    /// A text that must be there and not be empty; the empty text once the problem is noted.
    fn text(&mut self, path: &str, raw: Option<Leaf<String>>, advice: &str) -> String {
        if raw.is_none() {
            self.problem(path, "is missing", advice);
            return String::new();
        }
        let text = self.leaf(path, raw, advice);
        if text.as_deref() == Some("") {
            self.problem(path, "is empty", advice);
        }
        text.unwrap_or_default()
    }

    fn at_least_one<T: Default + PartialEq>(&mut self, path: &str, raw: Option<Leaf<T>>) -> Option<T> {
        const ADVICE: &str = "write a whole number, at least 1";
        let value = self.leaf(path, raw, ADVICE);
        if value.as_ref() == Some(&T::default()) {
            self.problem(path, "is 0", ADVICE);
        }
        value
    }

    fn parsed<R, T: Default, E: std::fmt::Display>(
        &mut self,
        path: &str,
        raw: Option<R>,
        parse: impl FnOnce(R) -> Result<T, E>,
        advice: &str,
    ) -> T {
        match raw.map(parse) {
            None => T::default(),
            Some(Ok(value)) => value,
            Some(Err(error)) => {
                self.problem(path, error.to_string(), advice);
                T::default()
            }
        }
    }

    fn leaf<T>(&mut self, path: &str, raw: Option<Leaf<T>>, advice: &str) -> Option<T> {
        match raw? {
            Leaf::Value(value) => Some(value),
            Leaf::Wrong(what) => {
                self.problem(path, what, advice);
                None
            }
        }
    }

    fn unique(&mut self, path: &str, value: &str, seen: &mut HashMap<String, String>) {
        if value.is_empty() {
            return;
        }
        match seen.get(value) {
            Some(first) => self.problem(path, format!("{value:?} is also {first}"), "make each one different"),
            None => {
                seen.insert(value.to_owned(), path.to_owned());
            }
        }
    }

    fn problem(&mut self, path: &str, what: impl Into<String>, advice: &str) {
        self.problems.push(Problem { path: path.to_owned(), what: what.into(), advice: advice.to_owned() });
    }
}

const URL: &str = "write http://host:port, without a path";
const ENDPOINT: &str = "write tcp://host:port as seen from here, where vLLM was told tcp://*:port";
const BLOCK_SIZE: &str = "write the engines' --block-size: a power of two from 1 to 512";

/// The host, without brackets, and the port of `{scheme}host:port`; `None` for anything else.
fn host_and_port(text: &str, scheme: &str) -> Option<(String, u16)> {
    let (host, port) = text.strip_prefix(scheme)?.rsplit_once(':')?;
    let port = port.parse().ok().filter(|&port| port != 0)?;
    let host = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:%*".contains(c);
    (!host.is_empty() && host.chars().all(plain)).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        let read = |text| host_and_port(text, "http://").map(|(host, port)| format!("{host} {port}"));
        for (text, expected) in [
            ("http://vllm-0:8000", Some("vllm-0 8000")),
            ("http://10.0.0.1:8000", Some("10.0.0.1 8000")),
            ("http://[::1]:8000", Some("::1 8000")),
            ("http://::1:8000", None),
            ("http://[::1:8000", None),
            ("http://vllm-0", None),
            ("http://vllm-0:0", None),
            ("http://vllm-0:99999", None),
            ("http://vllm-0:8000/v1", None),
            ("http://a/b:8000", None),
            ("http://:8000", None),
            ("https://vllm-0:8000", None),
            ("vllm-0:8000", None),
        ] {
            assert_eq!(read(text).as_deref(), expected, "{text}");
        }
    }
}
