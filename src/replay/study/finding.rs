//! What a study found: scenarios, a cell for each policy in each, and who did best over all.

use crate::replay::outcome::Outcome;
use serde::{Deserialize, Serialize};

/// What a study found. Nothing in it depends on when or where it ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudyReport {
    /// One for each trace, fleet size and load.
    pub scenarios: Vec<Scenario>,
    /// One for each policy, in the order asked for.
    pub standings: Vec<Standing>,
}

/// One trace through one fleet at one load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scenario {
    /// The trace file, without its folder.
    pub trace: String,
    /// Where its prefix structure, and with it every hit ratio, comes from.
    #[serde(default)]
    pub prefix: String,
    /// Sent to a live endpoint, not simulated. What the fleet is made of is then what its operator said.
    #[serde(default)]
    pub measured: bool,
    /// Requests in it.
    pub requests: u64,
    /// How many instances.
    pub instances: u16,
    /// KV blocks in each.
    pub blocks: u32,
    /// What they run, on what.
    pub preset: String,
    /// How they evict.
    pub eviction: String,
    /// The load, as a share of measured capacity, if that was asked for.
    pub load: Option<f64>,
    /// What the time between requests was multiplied by.
    pub time_scale: f64,
    /// Mean requests a second.
    pub requests_per_second: f64,
    /// Token hit ratio of an engine with an infinite cache that serves all: full blocks, those that outputs completed among
    /// them where the trace tells what they were.
    pub ideal_token_hit_ratio: f64,
    /// Token hit ratio of one LRU cache as large as all instances' together, in which what an output completes is when the request,
    /// alone at an instance, would be answered; at once, where it was measured.
    pub pooled_token_hit_ratio: f64,
    /// The same when it evicts what will be used last: no placement and no eviction in the fleet could do better.
    #[serde(default)]
    pub clairvoyant_token_hit_ratio: f64,
    /// Mean time to first token in seconds where each request is alone at an instance and finds what the pooled LRU cache holds;
    /// none where it was measured.
    #[serde(default)]
    pub pooled_ttft_mean: Option<f64>,
    /// Its 90th percentile.
    #[serde(default)]
    pub pooled_ttft_p90: Option<f64>,
    /// One for each policy, in the order asked for.
    pub cells: Vec<Cell>,
}

/// One policy in one scenario. Times in seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The policy, with what was tuned of it.
    pub policy: String,
    /// Mean time to first token.
    pub ttft_mean: Figure,
    /// Its median.
    pub ttft_p50: Figure,
    /// Its 90th percentile.
    pub ttft_p90: Figure,
    /// Its 99th percentile.
    pub ttft_p99: Figure,
    /// Mean time a token after the first.
    pub tpot_mean: Figure,
    /// Mean time to the last token.
    pub end_to_end_mean: Figure,
    /// Prompt tokens from the cache.
    pub token_hit_ratio: Figure,
    /// Share of requests answered in time.
    pub goodput: Figure,
    /// Most requests an instance had, over the mean.
    pub requests_max_over_mean: Figure,
    /// Most time in steps an instance had, over the mean; zero where it was measured, as an endpoint does not tell.
    pub busy_max_over_mean: Figure,
    /// The most uncached prompt tokens that an instance was given, over the mean, in each of up to 96 slices of the time in which
    /// requests came; mean over seeds. Empty where it was measured.
    #[serde(default)]
    pub balance_over_time: Vec<f64>,
}

/// A mean over seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The mean.
    pub mean: f64,
    /// The standard deviation between seeds; zero for one seed.
    pub deviation: f64,
}

/// How a policy fared over all scenarios.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// The policy.
    pub policy: String,
    /// Mean time to first token, over that of the best peer in the scenario.
    pub ttft_mean: Versus,
    /// The same for the 90th percentile.
    pub ttft_p90: Versus,
    /// The same for the mean time to the last token.
    pub end_to_end_mean: Versus,
    /// The lowest share of the pooled cache's hit ratio in any scenario; `None` where nothing can be hit.
    pub pooled_share_min: Option<f64>,
}

/// A ratio to the best peer, over scenarios. A peer is any policy that is not ours; without one, everybody is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Versus {
    /// Geometric mean over scenarios.
    pub geometric_mean: f64,
    /// The largest.
    pub worst: f64,
}

impl Versus {
    pub(super) fn of(ratios: impl Iterator<Item = f64>) -> Self {
        let (mut logarithms, mut count, mut worst) = (0.0, 0.0, 0.0_f64);
        for ratio in ratios {
            logarithms += ratio.ln();
            count += 1.0;
            worst = worst.max(ratio);
        }
        Versus { geometric_mean: (logarithms / count).exp(), worst }
    }
}

impl Cell {
    /// Of the same replay under several seeds, at least one.
    pub(super) fn of(outcomes: &[Outcome]) -> Self {
        let figure = |of: fn(&Outcome) -> f64| Figure::of(&outcomes.iter().map(of).collect::<Vec<_>>());
        Cell {
            policy: outcomes[0].policy.clone(),
            ttft_mean: figure(|outcome| outcome.ttft_seconds.mean),
            ttft_p50: figure(|outcome| outcome.ttft_seconds.p50),
            ttft_p90: figure(|outcome| outcome.ttft_seconds.p90),
            ttft_p99: figure(|outcome| outcome.ttft_seconds.p99),
            tpot_mean: figure(|outcome| outcome.tpot_seconds.mean),
            end_to_end_mean: figure(|outcome| outcome.end_to_end_seconds.mean),
            token_hit_ratio: figure(|outcome| outcome.token_hit_ratio),
            goodput: figure(|outcome| outcome.goodput),
            requests_max_over_mean: figure(|outcome| outcome.requests_balance.max_over_mean),
            busy_max_over_mean: figure(|outcome| outcome.busy_balance.max_over_mean),
            balance_over_time: {
                // Seeds move the last request by less than a slice, if at all.
                let slices = outcomes.iter().map(|outcome| outcome.balance_over_time.len()).min().unwrap_or(0);
                let mean = |slice: usize| outcomes.iter().map(|outcome| outcome.balance_over_time[slice]).sum::<f64>();
                (0..slices).map(|slice| mean(slice) / outcomes.len() as f64).collect()
            },
        }
    }
}

impl Figure {
    /// Of something seen once.
    pub(in crate::replay) fn once(mean: f64) -> Self {
        Figure { mean, deviation: 0.0 }
    }

    fn of(values: &[f64]) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Figure { mean, deviation: (squares / (count - 1.0).max(1.0)).sqrt() }
    }
}
