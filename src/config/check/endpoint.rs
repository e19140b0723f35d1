//! `kv_events`, and hosts with their ports.

use super::super::raw;
use super::super::{Endpoint, KvEvents};
use super::Check;
use std::net::IpAddr;

const ENDPOINT: &str = "write tcp://host:port as seen from here, where vLLM was told tcp://*:port";
const LISTEN_ENDPOINT: &str = "write tcp://address:port, a port for each instance, such as \"tcp://0.0.0.0:5601\"";

impl Check {
    pub(super) fn kv_events(&mut self, path: &str, raw: raw::KvEvents) -> Option<KvEvents> {
        let topic = self.leaf(&format!("{path}.topic"), raw.topic, "write a string").unwrap_or_default();
        let replay_path = format!("{path}.replay_endpoint");
        let replay = self
            .leaf(&replay_path, raw.replay_endpoint, ENDPOINT)
            .and_then(|endpoint| self.endpoint(&replay_path, &endpoint));
        if let (Some(_), Some(_)) = (&raw.endpoint, &raw.listen) {
            self.problem(&format!("{path}.listen"), "is there beside endpoint", "keep the one that applies");
            return None;
        }
        let listens = raw.listen.is_some();
        let (path, raw, advice) = match raw.listen {
            Some(listen) => (format!("{path}.listen"), Some(listen), LISTEN_ENDPOINT),
            None => (format!("{path}.endpoint"), raw.endpoint, ENDPOINT),
        };
        let endpoint = self.text(&path, raw, advice);
        if endpoint.is_empty() {
            return None;
        }
        let endpoint = if listens { self.listened(&path, &endpoint) } else { self.endpoint(&path, &endpoint) }?;
        Some(KvEvents { endpoint, listens, replay, topic })
    }

    /// An address of this machine, for instances to connect to.
    pub(super) fn listened(&mut self, path: &str, endpoint: &str) -> Option<Endpoint> {
        let read = host_and_port(endpoint, "tcp://").filter(|(host, _)| host.parse::<IpAddr>().is_ok());
        let Some((host, port)) = read else {
            self.problem(path, format!("{endpoint:?} is not an address to listen on"), LISTEN_ENDPOINT);
            return None;
        };
        Some(Endpoint { host, port })
    }

    pub(super) fn endpoint(&mut self, path: &str, endpoint: &str) -> Option<Endpoint> {
        match host_and_port(endpoint, "tcp://") {
            Some((host, port)) if host != "*" => Some(Endpoint { host, port }),
            Some(_) | None => {
                self.problem(path, format!("{endpoint:?} is not an endpoint to connect to"), ENDPOINT);
                None
            }
        }
    }
}

/// Whether it is the base of a URL, with a host and a port, in one of these schemes.
pub(super) fn is_base(url: &str, schemes: &[&str]) -> bool {
    schemes.iter().any(|scheme| host_and_port(url, scheme).is_some())
}

/// The host, without brackets, and the port of `{scheme}host:port`; `None` for anything else.
pub(super) fn host_and_port(text: &str, scheme: &str) -> Option<(String, u16)> {
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
    pub(super) fn hosts_and_ports() {
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
