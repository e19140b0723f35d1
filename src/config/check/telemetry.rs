//! `[logs]`, `[tracing]` and `[reload]`.

use super::super::raw;
use super::super::{LogFormat, Logs, Reload, Tracing};
use super::Check;
use super::endpoint::host_and_port;
use std::time::Duration;

const RATIO: &str = "write a share from 0 to 1";
const COLLECTOR: &str = "write http://host:port of a collector's OTLP over gRPC, such as \"http://127.0.0.1:4317\"";

impl Check {
    pub(super) fn logs(&mut self, raw: raw::Logs) -> Logs {
        let advice = "write \"text\" or \"json\"";
        let name = self.leaf("logs.format", raw.format, advice);
        let format = name.map(|name| {
            let known = LogFormat::ALL.into_iter().find(|format| format.name() == name);
            known.unwrap_or_else(|| {
                self.problem("logs.format", format!("{name:?} is not known"), advice);
                LogFormat::default()
            })
        });
        let requests = self.leaf("logs.requests", raw.requests, "write true or false");
        Logs { format: format.unwrap_or_default(), requests: requests.unwrap_or_default() }
    }

    /// `None` where nothing is traced.
    pub(super) fn tracing(&mut self, raw: raw::Tracing) -> Option<Tracing> {
        let endpoint = self.leaf("tracing.endpoint", raw.endpoint, COLLECTOR).unwrap_or_default();
        if !endpoint.is_empty() && host_and_port(&endpoint, "http://").is_none() {
            self.problem("tracing.endpoint", format!("{endpoint:?} is not one"), COLLECTOR);
        }
        let sample_ratio = self.leaf("tracing.sample_ratio", raw.sample_ratio, RATIO).unwrap_or(1.0);
        if !(0.0..=1.0).contains(&sample_ratio) {
            self.problem("tracing.sample_ratio", format!("{sample_ratio} is not from 0 to 1"), RATIO);
        }
        let queue_spans_max = self.at_least_one("tracing.queue_spans_max", raw.queue_spans_max).unwrap_or(2048);
        let advice = "write a name";
        let service_name = match raw.service_name {
            Some(name) => self.text("tracing.service_name", Some(name), advice),
            None => "warmpath".to_owned(),
        };
        (!endpoint.is_empty()).then_some(Tracing { endpoint, sample_ratio, queue_spans_max, service_name })
    }

    pub(super) fn reload(&mut self, raw: raw::Reload) -> Reload {
        let seconds = self.leaf("reload.poll_seconds", raw.poll_seconds, "write whole seconds; 0 is never");
        let default = Reload::default();
        Reload { poll: seconds.map_or(default.poll, |seconds| (seconds > 0).then(|| Duration::from_secs(seconds))) }
    }
}
