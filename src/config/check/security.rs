//! Who may come in, and how much is taken, checked. Whether the files can be read is found when serving starts.

use super::Check;
use crate::config::raw::{self, Leaf};
use crate::config::{
    ApiKey, InstanceAccess, KeySource, Keys, Limits, ListenerTls, Quota, Secret, Security, Tls, UpstreamAccess,
};
use std::path::PathBuf;
use std::time::Duration;

/// What HTTP/1 cannot be read without.
const HEADER_BYTES_LEAST: usize = 8192;
/// A day: a time that is longer is no limit, and what is added to a moment must not leave the clock.
const SECONDS_MOST: u64 = 86_400;

const FILE: &str = "write the path of a PEM file";
const PLAIN: &str = "write certificate and key, or neither for plain text";
const IDENTITY: &str = "write certificate and key, or neither to show none";
const KEY_LINES: &str = "write lines as `warmpath key new` prints them";
const NAME: &str = "write the DNS name or the address in the instance's certificate";
const KEY: &str = "write the key that the instance was started with (--api-key), or better a file that holds it";

impl Check {
    pub(super) fn security(
        &mut self,
        (tls, upstream, keys, limits): (raw::Tls, raw::Upstream, raw::Keys, raw::Limits),
    ) -> Security {
        let reload = self.at_least_one("tls.reload_seconds", tls.reload_seconds);
        let reload = reload.map_or(Tls::default().reload, |seconds| Duration::from_secs(seconds.min(SECONDS_MOST)));
        let tls = Tls {
            grpc: self.listener_tls("tls.grpc", tls.grpc),
            http: self.listener_tls("tls.http", tls.http),
            admin: self.listener_tls("tls.admin", tls.admin),
            reload,
        };
        Security { tls, upstream: self.upstream(upstream), keys: self.keys(keys), limits: self.limits(limits) }
    }

    fn listener_tls(&mut self, path: &str, raw: raw::ListenerTls) -> Option<ListenerTls> {
        let client_ca = self.path(&format!("{path}.client_ca"), raw.client_ca);
        match self.pair(path, raw.certificate, raw.key, PLAIN) {
            Some((certificate, key)) => Some(ListenerTls { certificate, key, client_ca }),
            None if client_ca.is_some() => {
                self.problem(&format!("{path}.client_ca"), "is there without a certificate", PLAIN);
                None
            }
            None => None,
        }
    }

    fn upstream(&mut self, raw: raw::Upstream) -> UpstreamAccess {
        UpstreamAccess {
            ca: self.path("upstream.ca", raw.ca),
            identity: self.pair("upstream", raw.certificate, raw.key, IDENTITY),
            server_name: self.server_name("upstream.server_name", raw.server_name),
            api_key: self.api_key("upstream", raw.api_key, raw.api_key_file),
        }
    }

    /// How one instance is reached.
    pub(super) fn access(&mut self, path: &str, raw: raw::Access) -> InstanceAccess {
        InstanceAccess {
            server_name: self.server_name(&format!("{path}.server_name"), raw.server_name),
            api_key: self.api_key(path, raw.api_key, raw.api_key_file),
        }
    }

    fn keys(&mut self, raw: raw::Keys) -> Keys {
        let clients = self.key_source(["keys.file", "keys.lines"], raw.file, raw.lines);
        let operators = self.key_source(["keys.admin_file", "keys.admin_lines"], raw.admin_file, raw.admin_lines);
        let forward = self.leaf("keys.forward", raw.forward, "write true or false").unwrap_or_default();
        let unlimited = "write a number, not negative; 0 is no limit";
        let rate = self.leaf("keys.requests_per_second", raw.requests_per_second, unlimited).unwrap_or_default();
        if !(0.0..=1e9).contains(&rate) {
            self.problem("keys.requests_per_second", format!("{rate} is no rate"), unlimited);
        }
        let burst = self.leaf("keys.burst", raw.burst, unlimited).filter(|&burst| burst > 0);
        let tokens = self.leaf("keys.tokens_per_minute", raw.tokens_per_minute, unlimited);
        let concurrent_max = self.leaf("keys.concurrent_max", raw.concurrent_max, unlimited);
        let quota = Quota {
            requests_per_second: Some(rate).filter(|&rate| rate > 0.0),
            burst,
            tokens_per_minute: tokens.filter(|&tokens| tokens > 0),
            concurrent_max: concurrent_max.filter(|&most| most > 0),
        };
        Keys { clients, operators, forward, quota }
    }

    fn key_source(
        &mut self,
        [file_path, lines_path]: [&str; 2],
        file: Option<Leaf<String>>,
        lines: Option<Leaf<String>>,
    ) -> KeySource {
        let file = self.path(file_path, file);
        let lines = self.written(lines_path, lines, KEY_LINES);
        if let Some(lines) = &lines
            && let Err(problem) = crate::config::key_lines(lines)
        {
            self.problem(lines_path, problem, KEY_LINES);
        }
        KeySource { file, lines }
    }

    fn limits(&mut self, raw: raw::Limits) -> Limits {
        let default = Limits::default();
        let header_bytes_max = self.at_least_one("limits.header_bytes_max", raw.header_bytes_max);
        if header_bytes_max.is_some_and(|bytes| bytes < HEADER_BYTES_LEAST) {
            let what = format!("is less than {HEADER_BYTES_LEAST}");
            self.problem("limits.header_bytes_max", what, "write bytes, 8192 or more");
        }
        let mut time = |path: &str, raw: Option<Leaf<u64>>, default: Duration| {
            self.at_least_one(path, raw).map_or(default, |seconds| Duration::from_secs(seconds.min(SECONDS_MOST)))
        };
        let header = time("limits.header_seconds_max", raw.header_seconds_max, default.header);
        let idle = time("limits.idle_seconds_max", raw.idle_seconds_max, default.idle);
        let body = time("limits.body_seconds_max", raw.body_seconds_max, default.body);
        let write = time("limits.write_seconds_max", raw.write_seconds_max, default.write);
        Limits {
            connections_max: self
                .at_least_one("limits.connections_max", raw.connections_max)
                .unwrap_or(default.connections_max),
            streams_max: self.at_least_one("limits.streams_max", raw.streams_max).unwrap_or(default.streams_max),
            headers_max: self.at_least_one("limits.headers_max", raw.headers_max).unwrap_or(default.headers_max),
            header_bytes_max: header_bytes_max.unwrap_or(default.header_bytes_max),
            header,
            idle,
            body,
            body_bytes_per_second_min: self
                .at_least_one("limits.body_bytes_per_second_min", raw.body_bytes_per_second_min)
                .unwrap_or(default.body_bytes_per_second_min),
            write,
            prompt_tokens_max: self
                .at_least_one("limits.prompt_tokens_max", raw.prompt_tokens_max)
                .unwrap_or(default.prompt_tokens_max),
        }
    }

    /// Certificate and key: both or neither.
    fn pair(
        &mut self,
        path: &str,
        certificate: Option<Leaf<String>>,
        key: Option<Leaf<String>>,
        advice: &str,
    ) -> Option<(PathBuf, PathBuf)> {
        let certificate_path = format!("{path}.certificate");
        let key_path = format!("{path}.key");
        match (self.path(&certificate_path, certificate), self.path(&key_path, key)) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (Some(_), None) => {
                self.problem(&key_path, "is missing", advice);
                None
            }
            (None, Some(_)) => {
                self.problem(&certificate_path, "is missing", advice);
                None
            }
            (None, None) => None,
        }
    }

    fn server_name(&mut self, path: &str, raw: Option<Leaf<String>>) -> Option<String> {
        let name = self.written(path, raw, NAME)?;
        if rustls::pki_types::ServerName::try_from(name.as_str()).is_err() {
            self.problem(path, format!("{name:?} is no name of a server"), NAME);
            return None;
        }
        Some(name)
    }

    fn api_key(&mut self, path: &str, key: Option<Leaf<String>>, file: Option<Leaf<String>>) -> Option<ApiKey> {
        let key_path = format!("{path}.api_key");
        // What a wrong type holds is not shown either.
        let key = key.map(|key| match key {
            Leaf::Value(key) => Leaf::Value(key),
            Leaf::Wrong(_) => Leaf::Wrong("is not a text".to_owned()),
        });
        let key = self.written(&key_path, key, KEY);
        let file = self.path(&format!("{path}.api_key_file"), file);
        match (key, file) {
            (Some(_), Some(_)) => {
                self.problem(&key_path, "is there beside api_key_file", "keep the one that applies");
                None
            }
            (Some(key), None) if key.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Some(ApiKey::Here(Secret::new(key)))
            }
            (Some(_), None) => {
                // What is wrong is not shown: most of it may be right.
                self.problem(&key_path, "has characters that no key has", KEY);
                None
            }
            (None, Some(file)) => Some(ApiKey::File(file)),
            (None, None) => None,
        }
    }

    fn path(&mut self, path: &str, raw: Option<Leaf<String>>) -> Option<PathBuf> {
        self.written(path, raw, FILE).map(PathBuf::from)
    }

    /// A text, unless it is empty.
    fn written(&mut self, path: &str, raw: Option<Leaf<String>>, advice: &str) -> Option<String> {
        self.leaf(path, raw, advice).filter(|text| !text.is_empty())
    }
}
