//! `[admission]`: when an instance is saturated, and who may wait while all are.

use super::super::Admission;
use super::super::raw::{self, Leaf};
use super::Check;
use crate::routing::admission::Saturation;
use std::time::Duration;

impl Check {
    /// Both bounds 0 is never.
    pub(super) fn saturation(&mut self, raw: &raw::Admission) -> Option<Saturation> {
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

    pub(super) fn admission(&mut self, raw: raw::Admission) -> Admission {
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
}
