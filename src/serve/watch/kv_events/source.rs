//! Where an instance's events come from: as configured, or as the instance says when asked.

use crate::config::{Endpoint, KvEvents};
use crate::routing::InstanceId;
use crate::serve::core::Core;
use crate::serve::upstream::Upstream;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// Who says where to subscribe.
pub(in crate::serve) enum Source {
    /// The configuration.
    Configured(KvEvents),
    /// The instance, asked before each connection: it may have restarted on other ports.
    Asked {
        /// The way to it.
        upstream: Arc<Upstream>,
        /// The router, which knows its URL and rank.
        core: Arc<Core>,
        /// Which.
        instance: InstanceId,
    },
}

/// What an instance says when it is asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoSource {
    /// It may be another time.
    #[error("it does not say where it publishes them: no answer to /kv_event_sources")]
    Silent,
    /// It answered, and nothing of use.
    #[error("it publishes none that can be subscribed to: {0}")]
    None(String),
}

/// One publisher, as `/kv_event_sources` has it. Source: `vllm/entrypoints/serve` 0.32 and a capture.
#[derive(Deserialize)]
struct Published {
    #[serde(default)]
    enable_kv_cache_events: bool,
    #[serde(default)]
    publisher: Option<String>,
    #[serde(default)]
    endpoint: Option<String>,
    #[serde(default)]
    replay_endpoint: Option<String>,
    #[serde(default)]
    topic: Option<String>,
}

impl Source {
    /// Where to subscribe now.
    pub(super) async fn find(&self) -> Result<KvEvents, NoSource> {
        let (upstream, core, instance) = match self {
            Source::Configured(source) => return Ok(source.clone()),
            Source::Asked { upstream, core, instance } => (upstream, core, *instance),
        };
        let member = core.member(instance);
        match upstream.get(instance, "/kv_event_sources", None).await {
            Ok((200, answer)) => read(&answer, member.data_parallel_rank.unwrap_or(0), &member.url),
            // vLLM before 0.31, or something that does not have it.
            Ok((status @ 400..=499, _)) => Err(NoSource::None(format!("/kv_event_sources answers {status}"))),
            Ok(_) | Err(_) => Err(NoSource::Silent),
        }
    }
}

fn read(answer: &[u8], rank: u32, url: &str) -> Result<KvEvents, NoSource> {
    let none = |why: &str| NoSource::None(why.to_owned());
    let mut ranks: BTreeMap<String, Published> =
        serde_json::from_slice(answer).map_err(|error| NoSource::None(format!("/kv_event_sources: {error}")))?;
    let published = ranks.remove(&rank.to_string()).ok_or_else(|| NoSource::None(format!("no rank {rank}")))?;
    let Published { enable_kv_cache_events, publisher, endpoint, replay_endpoint, topic } = published;
    if !enable_kv_cache_events {
        return Err(none("cache events are not enabled there"));
    }
    if let Some(other) = publisher.filter(|publisher| publisher != "zmq") {
        return Err(NoSource::None(format!("its publisher is {other:?}")));
    }
    let endpoint = endpoint.ok_or_else(|| none("no endpoint"))?;
    let seen_from_here = |endpoint: &str| from_here(endpoint, url);
    Ok(KvEvents {
        endpoint: seen_from_here(&endpoint)
            .ok_or_else(|| NoSource::None(format!("{endpoint:?} does not take connections")))?,
        listens: false,
        replay: replay_endpoint.as_deref().and_then(seen_from_here),
        topic: topic.unwrap_or_default(),
    })
}

/// What an instance binds, as an endpoint to connect to: on every address means on that of its URL. `None` for one that it
/// connects to itself, and for what is not TCP.
fn from_here(endpoint: &str, url: &str) -> Option<Endpoint> {
    let (host, port) = endpoint.strip_prefix("tcp://")?.rsplit_once(':')?;
    let port = port.parse().ok().filter(|&port| port != 0)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    // vLLM binds what has a `*` or a `::`; anything else it connects to, unless discovery is told the address that it bound.
    let everywhere = host == "*" || host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified());
    let address = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"))?;
    let (url_host, _) = address.rsplit_once(':')?;
    let url_host = url_host.trim_start_matches('[').trim_end_matches(']');
    let own = everywhere || host == url_host || host.parse::<Ipv6Addr>().is_ok();
    let host = if everywhere { url_host } else { host };
    own.then(|| Endpoint { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As answered by vLLM 0.32.0 with two data-parallel ranks.
    const ANSWER: &str = r#"{"0":{"enable_kv_cache_events":true,"publisher":"zmq","endpoint":"tcp://*:15577",
        "replay_endpoint":"tcp://*:15587","buffer_steps":10000,"hwm":100000,"max_queue_size":100000,"topic":"kv-events"},
        "1":{"enable_kv_cache_events":true,"publisher":"zmq","endpoint":"tcp://*:15578","replay_endpoint":null,"topic":""}}"#;

    fn said(answer: &str, rank: u32) -> String {
        match read(answer.as_bytes(), rank, "http://vllm-0:8000") {
            Ok(KvEvents { endpoint, replay, topic, .. }) => {
                format!("{endpoint} {} {topic:?}", replay.map_or_else(|| "-".to_owned(), |replay| replay.to_string()))
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn each_rank_publishes_where_its_instance_is() {
        assert_eq!(said(ANSWER, 0), "tcp://vllm-0:15577 tcp://vllm-0:15587 \"kv-events\"");
        assert_eq!(said(ANSWER, 1), "tcp://vllm-0:15578 - \"\"");
    }

    #[test]
    fn what_is_of_no_use_says_why() {
        for (answer, why) in [
            ("{}", "no rank 0"),
            ("[]", "/kv_event_sources"),
            ("{\"0\":{}}", "not enabled"),
            ("{\"0\":{\"enable_kv_cache_events\":true,\"publisher\":\"null\"}}", "\"null\""),
            ("{\"0\":{\"enable_kv_cache_events\":true,\"publisher\":\"zmq\"}}", "no endpoint"),
            (
                "{\"0\":{\"enable_kv_cache_events\":true,\"endpoint\":\"tcp://router:5601\"}}",
                "does not take connections",
            ),
            ("{\"0\":{\"enable_kv_cache_events\":true,\"endpoint\":\"ipc:///tmp/x\"}}", "does not take connections"),
        ] {
            assert!(said(answer, 0).contains(why), "{answer}: {}", said(answer, 0));
        }
    }

    #[test]
    fn endpoints_as_seen_from_here() {
        let of = |endpoint, url| from_here(endpoint, url).map(|endpoint| endpoint.to_string());
        assert_eq!(of("tcp://0.0.0.0:1", "http://10.0.0.7:80").as_deref(), Some("tcp://10.0.0.7:1"));
        assert_eq!(of("tcp://[::]:1", "http://[fd00::7]:80").as_deref(), Some("tcp://[fd00::7]:1"));
        assert_eq!(of("tcp://10.0.0.7:1", "http://10.0.0.7:80").as_deref(), Some("tcp://10.0.0.7:1"));
        assert_eq!((of("tcp://*:0", "http://a:80"), of("tcp://*", "http://a:80")), (None, None));
    }
}
