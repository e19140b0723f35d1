//! `[routing]` and `[recorder]`.

use super::super::raw;
use super::Check;
use crate::routing::block::BlockSize;
use crate::routing::policy::{HOLD_STEPS_MAX, PolicySpec, PolicySpecError};
use crate::routing::{self, TierWeights};
use crate::trace::RecorderConfig;
use std::time::Duration;

const HOLD: &str = "write engine steps full of prefill; 0: nothing is held; without it the policy's own";

const BLOCK_SIZE: &str = "write the engines' --block-size: a power of two from 1 to 512";

impl Check {
    pub(super) fn routing(&mut self, raw: raw::Routing) -> routing::Config {
        let default = routing::Config::default();
        let policy = self.leaf("routing.policy", raw.policy, "write a policy's name");
        let block_size = self.leaf("routing.block_size", raw.block_size, BLOCK_SIZE);
        let seed = self.leaf("routing.seed", raw.seed, "write a whole number, not negative");
        let policy =
            self.parsed("routing.policy", policy, |name: String| policy_without_hold(&name), "pick one of them");
        let hold = self.leaf("routing.hold_steps", raw.hold_steps, HOLD);
        let hold = hold.filter(|steps| {
            let fits = (0.0..=HOLD_STEPS_MAX).contains(steps);
            if !fits {
                self.problem("routing.hold_steps", format!("{steps} is not from 0 to {HOLD_STEPS_MAX}"), HOLD);
            }
            fits
        });
        routing::Config {
            policy: policy.kind,
            tuning: hold.map_or(policy.tuning, |steps| policy.tuning.with_hold(steps)),
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

    pub(super) fn tier_weights(&mut self, raw: raw::TierWeights) -> TierWeights {
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

    pub(super) fn recorder(&mut self, raw: raw::Recorder) -> RecorderConfig {
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
}

/// A policy by its name and numbers. What it holds by has a setting of its own.
fn policy_without_hold(name: &str) -> Result<PolicySpec, String> {
    let policy: PolicySpec = name.parse().map_err(|error: PolicySpecError| error.to_string())?;
    if policy.says_hold() {
        return Err(format!("policy {name:?} says how long requests are held, which is routing.hold_steps here"));
    }
    Ok(policy)
}
