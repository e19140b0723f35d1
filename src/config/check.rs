//! From what was written to what can be run, noting every problem on the way.

mod security;

use super::problem::{Invalid, Problem};
use super::raw::{self, Leaf};
use super::{
    Admission, Config, Endpoint, Health, Http, Instance, KvEvents, LoadIntervals, Named, Server, Tokenizer, Watch,
};
use crate::routing::admission::Saturation;
use crate::routing::block::BlockSize;
use crate::routing::policy::{PolicySpec, PolicySpecError};
use crate::routing::{self, InstanceId, TierWeights};
use crate::trace::RecorderConfig;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9000);
const HTTP_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
const ADMIN_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

pub(super) fn config(raw: raw::Config, problems: Vec<Problem>) -> Result<Config, Invalid> {
    let mut check = Check { problems };
    let server = check.server(raw.server);
    let http = check.http(raw.http);
    let health = check.health(raw.health);
    let mut routing = check.routing(raw.routing);
    routing.saturation = check.saturation(&raw.admission);
    let admission = check.admission(raw.admission);
    let instances = check.instances(raw.instances);
    let tokenizers = check.tokenizers(raw.tokenizers, &instances);
    let recorder = raw.recorder.map(|recorder| check.recorder(recorder));
    let watch = check.watch(raw.watch);
    let security = check.security((raw.tls, raw.upstream, raw.keys, raw.limits));
    if check.problems.is_empty() {
        Ok(Config { server, http, health, routing, instances, tokenizers, recorder, watch, admission, security })
    } else {
        Err(Invalid { problems: check.problems })
    }
}

/// One instance that is not in a file.
pub(super) fn named(named: Named) -> Result<Vec<Instance>, Invalid> {
    let mut check = Check { problems: Vec::new() };
    for (field, value) in [("name", &named.name), ("url", &named.url), ("model", &named.model)] {
        if value.len() > NAME_BYTES_MAX {
            check.problem(&format!("instance.{field}"), "is too long", "write 1024 bytes at most");
        }
    }
    if named.data_parallel_ranks.is_some_and(|ranks| ranks as usize > InstanceId::LIMIT) {
        let what = format!("there are more than {}", InstanceId::LIMIT);
        check.problem("instance.data_parallel_ranks", what, RANKS);
    }
    if !check.problems.is_empty() {
        return Err(Invalid { problems: check.problems });
    }
    let given = |text: Option<String>| text.map(Leaf::Value);
    let is_subscribed = named.kv_events_endpoint.is_some()
        || named.kv_events_replay_endpoint.is_some()
        || named.kv_events_topic.is_some();
    let kv_events = is_subscribed.then(|| raw::KvEvents {
        endpoint: given(named.kv_events_endpoint),
        listen: None,
        replay_endpoint: given(named.kv_events_replay_endpoint),
        topic: given(named.kv_events_topic),
    });
    let raw = raw::Instance {
        name: given(Some(named.name)),
        url: given(Some(named.url)),
        inference_url: given(named.inference_url),
        model: given(Some(named.model)),
        data_parallel_ranks: named.data_parallel_ranks.map(Leaf::Value),
        kv_events,
        ..raw::Instance::default()
    };
    let instances = check.ranks("instance", raw);
    if check.problems.is_empty() { Ok(instances) } else { Err(Invalid { problems: check.problems }) }
}

const NAME_BYTES_MAX: usize = 1024;

/// The problems found so far. Where one is found the default stands in, only so that the checks can go on.
struct Check {
    problems: Vec<Problem>,
}

impl Check {
    fn server(&mut self, raw: raw::Server) -> Server {
        let listen = self.address("server.listen", raw.listen, LISTEN);
        let admin_listen = self.address("server.admin_listen", raw.admin_listen, ADMIN_LISTEN);
        let http_listen = self.address("server.http_listen", raw.http_listen, HTTP_LISTEN);
        let listeners =
            [("server.listen", listen), ("server.http_listen", http_listen), ("server.admin_listen", admin_listen)];
        for (at, (path, address)) in listeners.iter().enumerate() {
            if let Some((first, _)) = listeners[..at].iter().find(|(_, other)| other == address && address.port() != 0)
            {
                self.problem(path, format!("{address} is also {first}"), "give each its own port");
            }
        }
        Server { listen, http_listen, admin_listen }
    }

    fn http(&mut self, raw: raw::Http) -> Http {
        let default = Http::default();
        let retries_max = self.leaf("http.retries_max", raw.retries_max, "write a whole number; 0 is never");
        let unlimited = "write a whole number of seconds; 0 is no limit";
        let head_seconds_max = self.leaf("http.head_seconds_max", raw.head_seconds_max, unlimited);
        let idle_seconds_max = self.leaf("http.idle_seconds_max", raw.idle_seconds_max, unlimited);
        let tokenize_max = self.at_least_one("http.tokenize_milliseconds_max", raw.tokenize_milliseconds_max);
        let limit = |seconds: Option<u64>| seconds.filter(|&seconds| seconds > 0).map(Duration::from_secs);
        Http {
            body_bytes_max: self
                .at_least_one("http.body_bytes_max", raw.body_bytes_max)
                .unwrap_or(default.body_bytes_max),
            retries_max: retries_max.unwrap_or(default.retries_max),
            head_max: limit(head_seconds_max),
            idle_max: limit(idle_seconds_max),
            tokenize_max: tokenize_max.map_or(default.tokenize_max, Duration::from_millis),
        }
    }

    fn health(&mut self, raw: raw::Health) -> Health {
        let default = Health::default();
        let seconds = self.leaf("health.interval_seconds", raw.interval_seconds, "write whole seconds; 0 is never");
        Health {
            interval: seconds.map_or(default.interval, |seconds| (seconds > 0).then(|| Duration::from_secs(seconds))),
            failures_max: self.at_least_one("health.failures_max", raw.failures_max).unwrap_or(default.failures_max),
        }
    }

    fn watch(&mut self, raw: raw::Watch) -> Watch {
        let default = Watch::default();
        let discover = self.leaf("watch.discover_kv_events", raw.discover_kv_events, "write true or false");
        let intervals = default.load.expect("load is watched by default");
        let busy =
            self.leaf("watch.load_interval_busy_ms", raw.load_interval_busy_ms, "write milliseconds; 0 is never");
        let busy = busy.map_or(intervals.busy, Duration::from_millis);
        let idle = self
            .at_least_one("watch.load_interval_idle_ms", raw.load_interval_idle_ms)
            .map_or(intervals.idle.max(busy), Duration::from_millis);
        if idle < busy {
            let what = format!("{} ms is less than load_interval_busy_ms", idle.as_millis());
            self.problem("watch.load_interval_idle_ms", what, "look at idle instances no more often than at busy ones");
        }
        Watch {
            discover_kv_events: discover.unwrap_or(default.discover_kv_events),
            load: (busy > Duration::ZERO).then_some(LoadIntervals { busy, idle }),
        }
    }

    /// Both bounds 0 is never.
    fn saturation(&mut self, raw: &raw::Admission) -> Option<Saturation> {
        const USAGE: &str = "write a share from 0 to 1; 0 is no bound";
        let default = Admission::SATURATION;
        let tokens = raw.prefill_tokens_max.as_ref().map(Leaf::of);
        let tokens = self.leaf("admission.prefill_tokens_max", tokens, "write a whole number; 0 is no bound");
        let usage = self.leaf("admission.kv_usage_max", raw.kv_usage_max.as_ref().map(Leaf::of), USAGE);
        if let Some(usage) = usage.filter(|usage| !(0.0..=1.0).contains(usage)) {
            self.problem("admission.kv_usage_max", format!("{usage} is not from 0 to 1"), USAGE);
        }
        let saturation = Saturation {
            prefill_tokens_max: tokens.or(default.prefill_tokens_max).filter(|&tokens| tokens > 0),
            kv_usage_max: usage.or(default.kv_usage_max).filter(|&usage| usage > 0.0),
        };
        (saturation.prefill_tokens_max.is_some() || saturation.kv_usage_max.is_some()).then_some(saturation)
    }

    fn admission(&mut self, raw: raw::Admission) -> Admission {
        let default = Admission::default();
        let requests =
            self.leaf("admission.queue_requests_max", raw.queue_requests_max, "write a whole number; 0 is none");
        let bytes = self.at_least_one("admission.queue_bytes_max", raw.queue_bytes_max);
        let wait = self.at_least_one("admission.wait_seconds_max", raw.wait_seconds_max);
        Admission {
            queue_requests_max: requests.unwrap_or(default.queue_requests_max),
            queue_bytes_max: bytes.unwrap_or(default.queue_bytes_max),
            wait_max: wait.map_or(default.wait_max, Duration::from_secs),
        }
    }

    fn tier_weights(&mut self, raw: raw::TierWeights) -> TierWeights {
        const ADVICE: &str =
            "write what a cached block there spares of a computed one, from 0 to 1, no more in a lower tier";
        let mut most = 1.0;
        let mut weight = |check: &mut Check, tier: &str, raw, default| {
            let path = format!("routing.tier_weights.{tier}");
            let weight: f64 = check.leaf(&path, raw, ADVICE).unwrap_or(default);
            if !(0.0..=1.0).contains(&weight) {
                check.problem(&path, format!("{weight} is not from 0 to 1"), ADVICE);
            } else if weight > most {
                check.problem(&path, format!("{weight} is more than the tier above has"), ADVICE);
            }
            most = weight;
            weight
        };
        let default = TierWeights::default();
        TierWeights {
            gpu: weight(self, "gpu", raw.gpu, default.gpu),
            cpu: weight(self, "cpu", raw.cpu, default.cpu),
            storage: weight(self, "storage", raw.storage, default.storage),
        }
    }

    fn routing(&mut self, raw: raw::Routing) -> routing::Config {
        let default = routing::Config::default();
        let policy = self.leaf("routing.policy", raw.policy, "write a policy's name");
        let block_size = self.leaf("routing.block_size", raw.block_size, BLOCK_SIZE);
        let seed = self.leaf("routing.seed", raw.seed, "write a whole number, not negative");
        let policy =
            self.parsed("routing.policy", policy, |name: String| policy_that_serves(&name), "pick one of them");
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
            approximate_blocks_max: self
                .at_least_one("routing.approximate_blocks_max", raw.approximate_blocks_max)
                .unwrap_or(default.approximate_blocks_max),
            tier_weights: self.tier_weights(raw.tier_weights),
            ..default
        }
    }

    fn recorder(&mut self, raw: raw::Recorder) -> RecorderConfig {
        let default =
            RecorderConfig::new(self.text("recorder.folder", raw.folder, "write a folder that exists").into());
        RecorderConfig {
            file_bytes_max: self
                .at_least_one("recorder.file_bytes_max", raw.file_bytes_max)
                .unwrap_or(default.file_bytes_max),
            files_max: self.at_least_one("recorder.files_max", raw.files_max).unwrap_or(default.files_max),
            memory_bytes_max: self
                .at_least_one("recorder.memory_bytes_max", raw.memory_bytes_max)
                .unwrap_or(default.memory_bytes_max),
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
        let (mut names, mut urls, mut listened) = (HashMap::new(), HashMap::new(), HashMap::new());
        let mut checked = Vec::with_capacity(raw.len());
        for (at, instance) in raw.into_iter().enumerate() {
            let path = format!("instances[{at}]");
            let mut ranks = self.ranks(&path, instance);
            if let Some(first) = ranks.first() {
                self.unique(&format!("{path}.name"), first.section(), &mut names);
                self.unique(&format!("{path}.url"), &first.url, &mut urls);
                if let Some(events) = first.kv_events.as_ref().filter(|events| events.listens) {
                    self.unique(&format!("{path}.kv_events.listen"), &events.endpoint.to_string(), &mut listened);
                }
            }
            checked.append(&mut ranks);
        }
        if checked.len() > InstanceId::LIMIT {
            let what = format!("there are {} with their ranks, and {} at most", checked.len(), InstanceId::LIMIT);
            self.problem("instances", what, "split the fleet between several routers");
        }
        checked
    }

    /// An instance, or one for each of its data-parallel ranks.
    fn ranks(&mut self, path: &str, raw: raw::Instance) -> Vec<Instance> {
        let ranks_path = format!("{path}.data_parallel_ranks");
        let ranks = self.at_least_one(&ranks_path, raw.data_parallel_ranks.as_ref().map(Leaf::of));
        let instance = self.instance(path, raw);
        match ranks {
            Some(ranks @ 2..) => match expand(&instance, ranks) {
                Some(expanded) => expanded,
                None => {
                    self.problem(&ranks_path, format!("there are no {ranks} ports for events"), RANKS);
                    vec![instance]
                }
            },
            Some(_) | None => vec![instance],
        }
    }

    fn instance(&mut self, path: &str, raw: raw::Instance) -> Instance {
        let name = self.text(&format!("{path}.name"), raw.name, "give it a name of its own, such as \"vllm-0\"");
        let model = self.text(&format!("{path}.model"), raw.model, "write the name that the instance serves it under");
        let url_path = format!("{path}.url");
        let url = self.text(&url_path, raw.url, URL);
        let is_grpc = is_base(&url, &["grpc://", "grpcs://"]);
        if !url.is_empty() && !is_grpc && !is_base(&url, &["http://", "https://"]) {
            self.problem(&url_path, format!("{url:?} is not a base URL"), URL);
        }
        let inference_path = format!("{path}.inference_url");
        let inference_url = self.leaf(&inference_path, raw.inference_url, INFERENCE_URL);
        if inference_url.as_deref().is_some_and(|url| !is_base(url, &["grpc://", "grpcs://"])) {
            self.problem(
                &inference_path,
                format!("{:?} is not one", inference_url.as_deref().unwrap_or_default()),
                INFERENCE_URL,
            );
        } else if inference_url.is_some() && is_grpc {
            self.problem(
                &inference_path,
                "the Rust frontend's HTTP is its url",
                "write http://host:port as the url, or remove this",
            );
        }
        let kv_events = raw.kv_events.and_then(|raw| self.kv_events(&format!("{path}.kv_events"), raw));
        let access = raw::Access { server_name: raw.server_name, api_key: raw.api_key, api_key_file: raw.api_key_file };
        let access = self.access(path, access);
        Instance { name, url, inference_url, data_parallel_rank: None, model, kv_events, access }
    }

    fn tokenizers(&mut self, raw: Vec<raw::Tokenizer>, instances: &[Instance]) -> Vec<Tokenizer> {
        let (mut models, mut checked) = (HashMap::new(), Vec::with_capacity(raw.len()));
        for (at, tokenizer) in raw.into_iter().enumerate() {
            let model_path = format!("tokenizers[{at}].model");
            let model = self.text(&model_path, tokenizer.model, "write the model that it belongs to");
            self.unique(&model_path, &model, &mut models);
            if !model.is_empty() && instances.iter().all(|instance| instance.model != model) {
                self.problem(&model_path, format!("no instance serves {model:?}"), "write an instance's model");
            }
            let advice = "write a folder with tokenizer.json and the chat template in it";
            let path = self.text(&format!("tokenizers[{at}].path"), tokenizer.path, advice).into();
            checked.push(Tokenizer { model, path });
        }
        checked
    }

    fn kv_events(&mut self, path: &str, raw: raw::KvEvents) -> Option<KvEvents> {
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
    fn listened(&mut self, path: &str, endpoint: &str) -> Option<Endpoint> {
        let read = host_and_port(endpoint, "tcp://").filter(|(host, _)| host.parse::<IpAddr>().is_ok());
        let Some((host, port)) = read else {
            self.problem(path, format!("{endpoint:?} is not an address to listen on"), LISTEN_ENDPOINT);
            return None;
        };
        Some(Endpoint { host, port })
    }

    fn endpoint(&mut self, path: &str, endpoint: &str) -> Option<Endpoint> {
        match host_and_port(endpoint, "tcp://") {
            Some((host, port)) if host != "*" => Some(Endpoint { host, port }),
            Some(_) | None => {
                self.problem(path, format!("{endpoint:?} is not an endpoint to connect to"), ENDPOINT);
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

const URL: &str = "write http(s)://host:port, without a path, or grpc(s)://host:port for vllm serve --grpc";
const INFERENCE_URL: &str = "write grpc(s)://host:port, with the Rust frontend's --grpc-port";
const ENDPOINT: &str = "write tcp://host:port as seen from here, where vLLM was told tcp://*:port";
const LISTEN_ENDPOINT: &str = "write tcp://address:port, a port for each instance, such as \"tcp://0.0.0.0:5601\"";
const BLOCK_SIZE: &str = "write the engines' --block-size: a power of two from 1 to 512";

const RANKS: &str = "write how many ranks the instance has; rank r publishes on its events' port + r";

/// One instance for each data-parallel rank behind a URL; vLLM publishes rank r's events on the port + r. `None` when there
/// are not so many ports.
fn expand(instance: &Instance, ranks: u32) -> Option<Vec<Instance>> {
    let after = |endpoint: &Endpoint, rank: u16| {
        Some(Endpoint { host: endpoint.host.clone(), port: endpoint.port.checked_add(rank)? })
    };
    (0..u16::try_from(ranks).ok()?)
        .map(|rank| {
            let kv_events = match &instance.kv_events {
                Some(events) => Some(KvEvents {
                    endpoint: after(&events.endpoint, rank)?,
                    listens: events.listens,
                    replay: match &events.replay {
                        Some(replay) => Some(after(replay, rank)?),
                        None => None,
                    },
                    topic: events.topic.clone(),
                }),
                None => None,
            };
            let name = format!("{}.dp{rank}", instance.name);
            Some(Instance { name, data_parallel_rank: Some(u32::from(rank)), kv_events, ..instance.clone() })
        })
        .collect()
}

fn is_base(url: &str, schemes: &[&str]) -> bool {
    schemes.iter().any(|scheme| host_and_port(url, scheme).is_some())
}

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

/// A policy by its name and numbers. To hold requests a router needs somewhere for them to wait, which only the simulated one has.
fn policy_that_serves(name: &str) -> Result<PolicySpec, String> {
    let policy: PolicySpec = name.parse().map_err(|error: PolicySpecError| error.to_string())?;
    match policy.tuning.hold() {
        Some(_) => Err(format!("policy {name:?} holds requests, which is simulated only")),
        None => Ok(policy),
    }
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
