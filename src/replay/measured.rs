//! What a live endpoint made of a trace, in the figures of a [`StudyReport`], so that measured and simulated stand side by
//! side.
//!
//! Times count from when a request was due, not from when it was sent: a sender that fell behind must not flatter.

use super::outcome::{Balance, Slo, Summary};
use super::study::{Cell, Figure, Scenario, StudyReport};
use super::workload::Workload;
use crate::routing::Time;
use crate::sim::{Eviction, Served};
use std::collections::BTreeMap;
use std::time::Duration;

/// A request that was answered to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// When it was due, since the start.
    pub due: Duration,
    /// How much later it was sent, for want of room under the bound on requests in flight.
    pub late: Duration,
    /// From when it was due to its first token.
    pub first_token: Duration,
    /// From when it was due to its last token.
    pub finished: Duration,
    /// Prompt length, as the endpoint counts.
    pub prompt_tokens: u32,
    /// Output length.
    pub output_tokens: u32,
    /// Prompt tokens that came from a cache, if the endpoint says.
    pub cached_tokens: Option<u32>,
    /// Which instance answered, if the endpoint says.
    pub instance: Option<String>,
}

/// What is behind an endpoint, in the words of its operator: an endpoint does not tell.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// How many instances.
    pub instances: u16,
    /// KV blocks in each, of the trace's block size; none when not known.
    pub blocks: Option<u32>,
    /// What they run, on what.
    pub preset: String,
    /// The router's policy.
    pub policy: String,
    /// What the time between requests was multiplied by.
    pub time_scale: f64,
}

impl Endpoint {
    /// The study of what was `answered`, at least one; `failed` others were not.
    pub fn report(&self, workload: &Workload, slo: Slo, answered: &[Answered], failed: u64) -> StudyReport {
        let blocks = u64::from(self.blocks.unwrap_or(0)) * u64::from(self.instances);
        let pooled = |eviction| if blocks > 0 { workload.pooled_token_hit_ratio(blocks, eviction, None) } else { 0.0 };
        let scenario = Scenario {
            trace: workload.trace.file.clone(),
            prefix: workload.trace.prefix.to_string(),
            measured: true,
            requests: answered.len() as u64 + failed,
            instances: self.instances,
            blocks: self.blocks.unwrap_or(0),
            preset: self.preset.clone(),
            eviction: Eviction::Lru.name().to_owned(),
            load: None,
            time_scale: self.time_scale,
            requests_per_second: workload.requests_per_second() / self.time_scale,
            ideal_token_hit_ratio: workload.ideal.reachable_token_hit_ratio,
            pooled_token_hit_ratio: pooled(Eviction::Lru),
            clairvoyant_token_hit_ratio: pooled(Eviction::Clairvoyant),
            pooled_ttft_mean: None,
            pooled_ttft_p90: None,
            cells: vec![self.cell(slo, answered, failed)],
        };
        StudyReport { scenarios: vec![scenario], standings: Vec::new() }
    }

    fn cell(&self, slo: Slo, answered: &[Answered], failed: u64) -> Cell {
        let ttft = Summary::of(answered.iter().map(|answer| answer.first_token).collect());
        let end_to_end = Summary::of(answered.iter().map(|answer| answer.finished).collect());
        let tpot = Summary::of(answered.iter().filter_map(Answered::per_token).collect());
        let good = answered.iter().filter(|answer| answer.is_in_time(slo)).count() as f64;
        Cell {
            policy: self.policy.clone(),
            ttft_mean: Figure::once(ttft.mean),
            ttft_p50: Figure::once(ttft.p50),
            ttft_p90: Figure::once(ttft.p90),
            ttft_p99: Figure::once(ttft.p99),
            tpot_mean: Figure::once(tpot.mean),
            end_to_end_mean: Figure::once(end_to_end.mean),
            token_hit_ratio: Figure::once(hit_ratio(answered)),
            goodput: Figure::once(good / (answered.len() as f64 + failed as f64).max(1.0)),
            requests_max_over_mean: Figure::once(self.balance(answered).max_over_mean),
            busy_max_over_mean: Figure::once(0.0),
            balance_over_time: Vec::new(),
        }
    }

    fn balance(&self, answered: &[Answered]) -> Balance {
        let mut counts: BTreeMap<&str, f64> = BTreeMap::new();
        for instance in answered.iter().filter_map(|answer| answer.instance.as_deref()) {
            *counts.entry(instance).or_default() += 1.0;
        }
        let mut counts: Vec<f64> = counts.into_values().collect();
        // Those that answered nothing.
        counts.resize(counts.len().max(usize::from(self.instances)), 0.0);
        Balance::of(&counts)
    }
}

impl Answered {
    /// Mean time a token after the first; `None` without one.
    fn per_token(&self) -> Option<Duration> {
        self.finished.saturating_sub(self.first_token).checked_div(self.output_tokens.saturating_sub(1))
    }

    fn is_in_time(&self, slo: Slo) -> bool {
        let per_token = self.per_token().zip(slo.tpot);
        self.first_token <= slo.ttft && per_token.is_none_or(|(took, longest)| took <= longest)
    }

    /// A request that was served by a simulated fleet; its instance is its number.
    pub fn simulated(served: &Served) -> Self {
        Answered {
            due: served.arrived.since(Time::ZERO),
            late: Duration::ZERO,
            first_token: served.first_token.since(served.arrived),
            finished: served.finished.since(served.arrived),
            prompt_tokens: served.decision.prompt_tokens,
            output_tokens: served.output_tokens,
            cached_tokens: Some(served.cached_tokens),
            instance: Some(served.decision.instance.0.to_string()),
        }
    }

    /// The requests as rows under a heading, in the order in which they were due.
    pub fn to_csv(answered: &[Answered]) -> String {
        let mut order: Vec<&Answered> = answered.iter().collect();
        order.sort_by_key(|answer| answer.due);
        let rows = order.into_iter().map(|answer| answer.csv_row() + "\n");
        std::iter::once(format!("{}\n", Answered::CSV_HEADING)).chain(rows).collect()
    }

    /// The heading of [`csv_row`](Self::csv_row).
    const CSV_HEADING: &'static str =
        "due_s,late_s,ttft_s,end_to_end_s,prompt_tokens,cached_tokens,output_tokens,instance";

    /// The request as a row; what the endpoint did not say is empty.
    fn csv_row(&self) -> String {
        let [due, late, ttft, end] =
            [self.due, self.late, self.first_token, self.finished].map(|time| format!("{:.6}", time.as_secs_f64()));
        let cached = self.cached_tokens.map_or(String::new(), |tokens| tokens.to_string());
        let instance = self.instance.as_deref().unwrap_or("").replace([',', '"', '\n', '\r'], "_");
        format!("{due},{late},{ttft},{end},{},{cached},{},{instance}", self.prompt_tokens, self.output_tokens)
    }
}

/// Of the prompts whose answers say how much of them was cached.
fn hit_ratio(answered: &[Answered]) -> f64 {
    let said = answered.iter().filter_map(|answer| Some((answer.cached_tokens?, answer.prompt_tokens)));
    let (cached, all) =
        said.fold((0.0, 0.0), |(cached, all), (hit, prompt)| (cached + f64::from(hit), all + f64::from(prompt)));
    if all > 0.0 { cached / all } else { 0.0 }
}
