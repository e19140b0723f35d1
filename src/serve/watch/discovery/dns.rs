//! A name whose addresses are instances, asked for again when its records' time to live is over, within bounds.
//!
//! Of a plain name the A records count, and the AAAA records where it has none: a pod of a dual-stack cluster has both and is one
//! instance. Of a name that begins with an underscore the SRV records count: the instance's host is their target, and is resolved
//! when it is connected to. That a name has no such record, or does not exist, is an answer: nobody is there.

use super::{FAILED_MAX, Tell, all_of};
use crate::config::{Dns, Instance};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A host and a port.
type At = (String, u16);

/// Asks for ever.
pub(super) async fn watch(dns: &Dns, tell: &Tell) {
    let mut failures = 0;
    loop {
        // Made anew each time, since `/etc/resolv.conf` may have changed; it costs nothing beside the question.
        let wait = match resolver(dns.server) {
            Ok(resolver) => match ask(dns, &resolver).await {
                Ok((found, valid_until)) => {
                    failures = 0;
                    tell.say(all(dns, &found)).await;
                    let valid = valid_until.saturating_duration_since(Instant::now());
                    valid.clamp(dns.interval_min, dns.interval_max)
                }
                Err(error) => failed(dns, &error, &mut failures, tell).await,
            },
            Err(error) => failed(dns, &error, &mut failures, tell).await,
        };
        tokio::time::sleep(wait).await;
    }
}

async fn failed(dns: &Dns, error: &NetError, failures: &mut u32, tell: &Tell) -> Duration {
    tell.say(Err(format!("{} cannot be resolved: {error}", dns.name))).await;
    let wait = dns.interval_min.saturating_mul(1 << *failures);
    *failures = (*failures + 1).min(5);
    wait.clamp(dns.interval_min, dns.interval_max.max(FAILED_MAX))
}

fn resolver(server: Option<SocketAddr>) -> Result<TokioResolver, NetError> {
    let mut builder = match server {
        None => TokioResolver::builder_tokio()?,
        Some(server) => {
            let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
            connections.iter_mut().for_each(|connection| connection.port = server.port());
            let server = NameServerConfig::new(server.ip(), true, connections);
            let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        }
    };
    // What is asked for again is to be answered anew.
    builder.options_mut().cache_size = 0;
    builder.build()
}

/// Who is there, and until when that holds. Where nobody is, it holds no time at all.
async fn ask(dns: &Dns, resolver: &TokioResolver) -> Result<(Vec<At>, Instant), NetError> {
    let Some(port) = dns.port else {
        return look(dns, resolver, RecordType::SRV, 0).await;
    };
    let found = look(dns, resolver, RecordType::A, port).await?;
    if found.0.is_empty() { look(dns, resolver, RecordType::AAAA, port).await } else { Ok(found) }
}

async fn look(
    dns: &Dns,
    resolver: &TokioResolver,
    kind: RecordType,
    port: u16,
) -> Result<(Vec<At>, Instant), NetError> {
    let answer = match resolver.lookup(dns.name.as_str(), kind).await {
        Ok(answer) => answer,
        Err(error) if error.is_no_records_found() => return Ok((Vec::new(), Instant::now())),
        Err(error) => return Err(error),
    };
    let found = answer.answers().iter().filter_map(|record| match &record.data {
        RData::A(address) => Some((address.0.to_string(), port)),
        RData::AAAA(address) => Some((address.0.to_string(), port)),
        // The root as a target says that there is no such service.
        RData::SRV(srv) if !srv.target.is_root() => {
            Some((srv.target.to_utf8().trim_end_matches('.').to_owned(), srv.port))
        }
        // An alias on the way.
        _ => None,
    });
    Ok((found.collect(), answer.valid_until()))
}

fn all(dns: &Dns, found: &[At]) -> Result<Vec<Instance>, String> {
    let mut named: Vec<(String, &str, u16)> =
        found.iter().map(|(host, port)| (format!("{host}:{port}"), host.as_str(), *port)).collect();
    named.sort();
    named.dedup();
    all_of(&dns.template, named.iter().map(|(name, host, port)| (name.as_str(), *host, *port)))
}
