//! The configuration in force, line by line, for whoever runs it. What is secret has no place here.

use super::{
    Admission, ApiKey, Config, Health, Http, Instance, InstanceAccess, Keys, Limits, ListenerTls, Quota, Security,
    Server, Tls, UpstreamAccess, Watch,
};
use crate::routing::TierWeights;
use std::path::PathBuf;
use std::time::Duration;

impl Config {
    /// Each setting with its value, defaults included, in the order of the example file.
    pub fn settings(&self) -> Vec<(String, String)> {
        let Server { listen, http_listen, admin_listen } = &self.server;
        let Http { body_bytes_max, retries_max, head_max, idle_max, tokenize_max } = &self.http;
        let Watch { discover_kv_events, load } = &self.watch;
        let never = |time: &Option<Duration>| time.map_or(0, |time| time.as_secs());
        let milliseconds = |time: Option<Duration>| time.map_or(0, |time| time.as_millis());
        let Health { interval, failures_max } = &self.health;
        let routing = &self.routing;
        let Admission { queue_requests_max, queue_bytes_max, wait_max } = self.admission;
        let prefill_tokens_max = routing.saturation.and_then(|bounds| bounds.prefill_tokens_max).unwrap_or(0);
        let kv_usage_max = routing.saturation.and_then(|bounds| bounds.kv_usage_max).unwrap_or(0.0);
        let tracing = self.tracing.as_ref();
        let hold = routing.policy_spec().hold().unwrap_or_default();
        let TierWeights { gpu, cpu, storage } = routing.tier_weights;
        let mut settings: Vec<(String, String)> = [
            ("version", Config::VERSION.to_string()),
            ("server.listen", listen.to_string()),
            ("server.http_listen", http_listen.to_string()),
            ("server.admin_listen", admin_listen.to_string()),
            ("http.body_bytes_max", body_bytes_max.to_string()),
            ("http.retries_max", retries_max.to_string()),
            ("http.head_seconds_max", never(head_max).to_string()),
            ("http.idle_seconds_max", never(idle_max).to_string()),
            ("http.tokenize_milliseconds_max", tokenize_max.as_millis().to_string()),
            ("health.interval_seconds", never(interval).to_string()),
            ("health.failures_max", failures_max.to_string()),
            ("routing.policy", routing.policy_spec().without_hold().to_string()),
            ("routing.hold_steps", hold.to_string()),
            ("routing.block_size", routing.block_size.tokens().to_string()),
            ("routing.seed", routing.seed.to_string()),
            ("routing.lease_seconds", routing.lease.as_secs().to_string()),
            ("routing.max_in_flight", routing.requests_max.to_string()),
            ("routing.index_bytes_max", routing.index_bytes_max.to_string()),
            ("routing.approximate_blocks_max", routing.approximate_blocks_max.to_string()),
            ("routing.tier_weights", format!("gpu {gpu}, cpu {cpu}, storage {storage}")),
            ("admission.prefill_tokens_max", prefill_tokens_max.to_string()),
            ("admission.kv_usage_max", kv_usage_max.to_string()),
            ("admission.queue_requests_max", queue_requests_max.to_string()),
            ("admission.queue_bytes_max", queue_bytes_max.to_string()),
            ("admission.wait_seconds_max", wait_max.as_secs().to_string()),
            ("watch.discover_kv_events", discover_kv_events.to_string()),
            ("watch.load_interval_busy_ms", milliseconds(load.map(|load| load.busy)).to_string()),
            ("watch.load_interval_idle_ms", milliseconds(load.map(|load| load.idle)).to_string()),
            ("discovery.empty_seconds", self.discovery.empty_for.as_secs().to_string()),
            ("discovery.drain_seconds", self.discovery.drain_max.as_secs().to_string()),
            ("reload.poll_seconds", never(&self.reload.poll).to_string()),
            ("logs.format", self.logs.format.name().to_owned()),
            ("logs.requests", self.logs.requests.to_string()),
            ("tracing.endpoint", tracing.map_or_else(String::new, |tracing| tracing.endpoint.clone())),
            ("tracing.sample_ratio", tracing.map_or(1.0, |tracing| tracing.sample_ratio).to_string()),
            ("tracing.queue_spans_max", tracing.map_or(2048, |tracing| tracing.queue_spans_max).to_string()),
            ("tracing.service_name", tracing.map_or("warmpath", |tracing| &tracing.service_name).to_owned()),
        ]
        .into_iter()
        .map(|(path, value)| (path.to_owned(), value))
        .collect();
        settings.extend(of_security(&self.security).map(|(path, value)| (path.to_owned(), value)));
        let instances = self.instances.iter().enumerate();
        settings.extend(instances.map(|(at, instance)| (format!("instances[{at}]"), describe(instance))));
        let sources = self.discovery.sources.iter().enumerate();
        settings.extend(sources.map(|(at, source)| (format!("discovery[{at}]"), source.to_string())));
        let tokenizers = self.tokenizers.iter().enumerate();
        settings.extend(tokenizers.map(|(at, tokenizer)| {
            (format!("tokenizers[{at}]"), format!("{} from {}", tokenizer.model, tokenizer.path.display()))
        }));
        settings
    }
}

fn describe(instance: &Instance) -> String {
    let Instance { name, url, inference_url, data_parallel_rank, model, kv_events, access } = instance;
    let mut text = format!("{name} at {url}, {model}");
    if let Some(url) = inference_url {
        text += &format!(", vllm.Inference at {url}");
    }
    if let Some(rank) = data_parallel_rank {
        text += &format!(", rank {rank}");
    }
    if let Some(events) = kv_events {
        text += &format!(", events from {}", events.endpoint);
        if let Some(replay) = &events.replay {
            text += &format!(", replay from {replay}");
        }
        if !events.topic.is_empty() {
            text += &format!(", topic {:?}", events.topic);
        }
    }
    let InstanceAccess { server_name, api_key } = access;
    if let Some(name) = server_name {
        text += &format!(", certificate of {name}");
    }
    if api_key.is_some() {
        text += &format!(", API key {}", shown(api_key.as_ref()));
    }
    text
}

fn of_security(
    Security { tls, upstream, keys, limits }: &Security,
) -> impl Iterator<Item = (&'static str, String)> + use<> {
    let Tls { grpc, http, admin, reload } = tls;
    let UpstreamAccess { ca, identity, server_name, api_key } = upstream;
    let Keys { clients, operators, forward, quota } = keys;
    let Quota { requests_per_second, burst, tokens_per_minute, concurrent_max } = quota;
    let Limits {
        connections_max,
        streams_max,
        headers_max,
        header_bytes_max,
        header,
        idle,
        body,
        body_bytes_per_second_min,
        write,
        prompt_tokens_max,
    } = limits;
    let path = |path: Option<&PathBuf>| path.map_or_else(String::new, |path| path.display().to_string());
    let hidden = |lines: Option<&String>| lines.map_or(String::new(), |_| HIDDEN.to_owned());
    let seconds = |time: &Duration| time.as_secs().to_string();
    let (certificate, key) = identity.as_ref().map(|(certificate, key)| (certificate, key)).unzip();
    [
        ("tls.grpc", listener(grpc.as_ref())),
        ("tls.http", listener(http.as_ref())),
        ("tls.admin", listener(admin.as_ref())),
        ("tls.reload_seconds", seconds(reload)),
        ("upstream.ca", path(ca.as_ref())),
        ("upstream.certificate", path(certificate)),
        ("upstream.key", path(key)),
        ("upstream.server_name", server_name.clone().unwrap_or_default()),
        ("upstream.api_key", shown(api_key.as_ref().filter(|key| matches!(key, ApiKey::Here(_))))),
        ("upstream.api_key_file", shown(api_key.as_ref().filter(|key| matches!(key, ApiKey::File(_))))),
        ("keys.file", path(clients.file.as_ref())),
        ("keys.lines", hidden(clients.lines.as_ref())),
        ("keys.admin_file", path(operators.file.as_ref())),
        ("keys.admin_lines", hidden(operators.lines.as_ref())),
        ("keys.forward", forward.to_string()),
        ("keys.requests_per_second", requests_per_second.unwrap_or_default().to_string()),
        ("keys.burst", burst.unwrap_or_default().to_string()),
        ("keys.tokens_per_minute", tokens_per_minute.unwrap_or_default().to_string()),
        ("keys.concurrent_max", concurrent_max.unwrap_or_default().to_string()),
        ("limits.connections_max", connections_max.to_string()),
        ("limits.streams_max", streams_max.to_string()),
        ("limits.headers_max", headers_max.to_string()),
        ("limits.header_bytes_max", header_bytes_max.to_string()),
        ("limits.header_seconds_max", seconds(header)),
        ("limits.idle_seconds_max", seconds(idle)),
        ("limits.body_seconds_max", seconds(body)),
        ("limits.body_bytes_per_second_min", body_bytes_per_second_min.to_string()),
        ("limits.write_seconds_max", seconds(write)),
        ("limits.prompt_tokens_max", prompt_tokens_max.to_string()),
    ]
    .into_iter()
}

const HIDDEN: &str = "***";

/// Where a key is, never what it is.
fn shown(key: Option<&ApiKey>) -> String {
    match key {
        None => String::new(),
        Some(ApiKey::Here(_)) => HIDDEN.to_owned(),
        Some(ApiKey::File(path)) => path.display().to_string(),
    }
}

fn listener(tls: Option<&ListenerTls>) -> String {
    let Some(ListenerTls { certificate, client_ca, .. }) = tls else { return "plain text".to_owned() };
    let mut text = certificate.display().to_string();
    if let Some(ca) = client_ca {
        text += &format!(", clients by {}", ca.display());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever adds a setting to the example finds it missing here, and decides whether it is a secret.
    #[test]
    fn every_setting_of_the_example_is_told() {
        let told = Config::parse(Config::EXAMPLE).unwrap().settings();
        let example: toml::Table = Config::EXAMPLE.parse().unwrap();
        for (section, settings) in example {
            let paths: Vec<String> = match settings {
                toml::Value::Table(settings) => settings.keys().map(|key| format!("{section}.{key}")).collect(),
                toml::Value::Array(items) => (0..items.len()).map(|at| format!("{section}[{at}]")).collect(),
                _ => vec![section],
            };
            for path in paths {
                assert!(told.iter().any(|(told, _)| *told == path), "{path} is missing from {told:?}");
            }
        }
        let (_, instance) = told.iter().find(|(path, _)| path == "instances[0]").unwrap();
        assert_eq!(
            instance,
            "vllm-0 at http://127.0.0.1:8000, Qwen/Qwen3-32B, events from tcp://127.0.0.1:5557, replay from tcp://127.0.0.1:5567"
        );
    }
}
