//! `[server]`, `[http]`, `[health]` and `[watch]`.

use super::super::raw::{self, Leaf};
use super::super::{Health, Http, LoadIntervals, Server, Watch};
use super::Check;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9000);
const HTTP_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
const ADMIN_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

impl Check {
    pub(super) fn server(&mut self, raw: raw::Server) -> Server {
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

    pub(super) fn http(&mut self, raw: raw::Http) -> Http {
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

    pub(super) fn health(&mut self, raw: raw::Health) -> Health {
        let default = Health::default();
        let seconds = self.leaf("health.interval_seconds", raw.interval_seconds, "write whole seconds; 0 is never");
        Health {
            interval: seconds.map_or(default.interval, |seconds| (seconds > 0).then(|| Duration::from_secs(seconds))),
            failures_max: self.at_least_one("health.failures_max", raw.failures_max).unwrap_or(default.failures_max),
        }
    }

    pub(super) fn watch(&mut self, raw: raw::Watch) -> Watch {
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

    pub(super) fn address(&mut self, path: &str, raw: Option<Leaf<String>>, default: SocketAddr) -> SocketAddr {
        const ADVICE: &str = "write an IP address and a port, such as \"0.0.0.0:9000\"";
        let Some(text) = self.leaf(path, raw, ADVICE) else {
            return default;
        };
        text.parse().unwrap_or_else(|_| {
            self.problem(path, format!("{text:?} is not an address"), ADVICE);
            default
        })
    }
}
