//! What to run for a trace: which policy, how many instances, how much cache, and what speaks for it.
//!
//! Three questions, one after another: the fewest instances with which some policy answers nine requests in ten in time; of the policies
//! there, the one that answers soonest; with that one, the smallest of some cache sizes that loses less than a twentieth
//! of what the largest answers in.

use super::experiment::ReplayError;
use super::study::{GOODPUT, Loads, Scenario, Study};
use serde::Serialize;

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Advice {
    /// The fewest instances that meet the service level; `None` when the largest fleet tried does not.
    pub instances: Option<u16>,
    /// The policy.
    pub policy: String,
    /// KV blocks an instance, the smallest that is nearly as good as the largest tried.
    pub blocks: u32,
    /// What was tried, in order, and what came of it.
    pub evidence: Vec<String>,
}

/// What a smaller cache may cost in time to first token.
const CACHE_LOSS: f64 = 1.05;
/// Cache sizes tried, as multiples of what fits on the GPUs: with and without a second tier in host memory.
const CACHE_SIZES: [u32; 4] = [1, 2, 4, 8];

/// Asks a study's first trace, under its conditions, policies and seeds, with up to the largest of its fleet sizes.
/// The pace is as recorded.
pub fn advise(study: &Study, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<Advice, ReplayError> {
    let largest = study.instances.iter().copied().max().unwrap_or(1);
    let ask = |instances: u16, blocks: Option<u32>, policies: Option<&str>| {
        let named = |policy: &&_| policies.is_none_or(|name| ToString::to_string(policy) == name);
        let asked = Study {
            workloads: study.workloads.iter().take(1).cloned().collect(),
            instances: vec![instances],
            blocks,
            loads: Loads::TimeScales(vec![1.0]),
            policies: study.policies.iter().filter(named).copied().collect(),
            ..study.clone()
        };
        asked.run(progress).map(|mut report| report.scenarios.remove(0))
    };
    let mut evidence = Vec::new();
    let (mut low, mut high) = (1, largest);
    let mut scenario = ask(largest, study.blocks, None)?;
    evidence.push(tell(&scenario));
    let meets = |scenario: &Scenario| scenario.cells.iter().any(|cell| cell.goodput.mean >= GOODPUT);
    let enough = meets(&scenario);
    while enough && low < high {
        let middle = u16::midpoint(low, high);
        let tried = ask(middle, study.blocks, None)?;
        evidence.push(tell(&tried));
        if meets(&tried) {
            (high, scenario) = (middle, tried);
        } else {
            low = middle + 1;
        }
    }
    let policy = best(&scenario).0.to_owned();
    let fits = scenario.blocks;
    let mut sizes = Vec::new();
    for multiple in CACHE_SIZES {
        let sized = ask(high, Some(fits.saturating_mul(multiple)), Some(&policy))?;
        if multiple > 1 {
            evidence.push(tell(&sized));
        }
        sizes.push((sized.blocks, best(&sized).1));
    }
    let (_, with_most) = sizes[sizes.len() - 1];
    let enough_cache = sizes.iter().find(|(_, ttft)| *ttft <= CACHE_LOSS * with_most);
    let blocks = enough_cache.map_or(fits, |(blocks, _)| *blocks);
    Ok(Advice { instances: enough.then_some(high), policy, blocks, evidence })
}

/// The policy that answers soonest, and how soon.
fn best(scenario: &Scenario) -> (&str, f64) {
    let soonest = scenario.cells.iter().min_by(|a, b| a.ttft_mean.mean.total_cmp(&b.ttft_mean.mean));
    let cell = soonest.expect("a scenario has a policy");
    (&cell.policy, cell.ttft_mean.mean)
}

fn tell(scenario: &Scenario) -> String {
    let (policy, ttft) = best(scenario);
    let goodput = scenario.cells.iter().map(|cell| cell.goodput.mean).fold(0.0, f64::max);
    let hit = scenario.cells.iter().find(|cell| cell.policy == policy).map_or(0.0, |cell| cell.token_hit_ratio.mean);
    format!(
        "{} instances, {} blocks each: {policy} answers soonest, in {ttft:.3} s, hits {hit:.4} of tokens (pooled cache {:.4}); \
         {:.1} % in time at best",
        scenario.instances,
        scenario.blocks,
        scenario.pooled_token_hit_ratio,
        goodput * 100.0
    )
}

impl Advice {
    /// For people.
    pub fn to_text(&self) -> String {
        let instances =
            self.instances.map_or("more instances than were tried".to_owned(), |n| format!("{n} instances"));
        let mut text =
            format!("{instances}, policy {}, {} KV blocks an instance\n\nbecause\n", self.policy, self.blocks);
        for line in &self.evidence {
            text += &format!("  {line}\n");
        }
        text
    }
}
