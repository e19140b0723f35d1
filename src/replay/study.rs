//! Many replays: traces × fleet sizes × loads × policies × seeds, and who wins.
//!
//! Load is given as a multiple of the recorded pace or as a share of measured capacity: the pace at which
//! [`CAPACITY_POLICY`] still answers nine requests in ten within the service level, found by bisection.

mod html;
mod text;

use super::experiment::{Fleet, ReplayError, Setup, check, in_parallel};
use super::outcome::{Outcome, Slo};
use super::workload::Workload;
use crate::routing::policy::{PolicyKind, PolicySpec};
use crate::sim::{Conditions, Eviction, Preset};
use serde::{Deserialize, Serialize};

/// What is to be replayed.
#[derive(Clone, Debug)]
pub struct Study {
    /// The traces.
    pub workloads: Vec<Workload>,
    /// Fleet sizes.
    pub instances: Vec<u16>,
    /// KV blocks in each instance; by default what fits beside the preset's weights.
    pub blocks: Option<u32>,
    /// What the instances run, on what.
    pub preset: Preset,
    /// How they evict.
    pub eviction: Eviction,
    /// How fast requests come.
    pub loads: Loads,
    /// The policies.
    pub policies: Vec<PolicySpec>,
    /// The seeds; each figure is a mean over them.
    pub seeds: Vec<u64>,
    /// How well the routers are told.
    pub conditions: Conditions,
    /// What counts as answered in time.
    pub slo: Slo,
}

/// How fast requests come.
#[derive(Clone, Debug, PartialEq)]
pub enum Loads {
    /// The time between requests, multiplied by each of these.
    TimeScales(Vec<f64>),
    /// These shares of measured capacity.
    OfCapacity(Vec<f64>),
}

/// Whose capacity loads are shares of: a peer that needs no numbers to be set, and never ours.
pub const CAPACITY_POLICY: PolicyKind = PolicyKind::Mooncake;
/// The share of requests that must be answered in time, at capacity and by a fleet that is large enough.
pub(super) const GOODPUT: f64 = 0.9;
/// Halvings of the bracket, in logarithm, around capacity: to within 2 %.
const HALVINGS: u32 = 5;
/// Doublings to find a bracket: far beyond any fleet.
const DOUBLINGS_MAX: u32 = 14;

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
    /// Token hit ratio of an infinite cache shared by all.
    pub ideal_token_hit_ratio: f64,
    /// Token hit ratio of one LRU cache as large as all instances' together.
    pub pooled_token_hit_ratio: f64,
    /// The same when it evicts what will be used last: no placement and no eviction in the fleet could do better.
    #[serde(default)]
    pub clairvoyant_token_hit_ratio: f64,
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
    /// Most time in steps an instance had, over the mean.
    pub busy_max_over_mean: Figure,
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

/// One scenario to be run.
struct Plan<'a> {
    workload: &'a Workload,
    fleet: Fleet,
    load: Option<f64>,
    time_scale: f64,
}

impl Study {
    /// Runs everything, on as many threads as there are cores. `progress` is told of every request replayed and of how
    /// many there are to be in all, as far as is known.
    pub fn run(&self, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<StudyReport, ReplayError> {
        let plans = self.plans(progress)?;
        let jobs: Vec<(usize, PolicySpec, u64)> = (0..plans.len())
            .flat_map(|plan| self.policies.iter().map(move |policy| (plan, *policy)))
            .flat_map(|(plan, policy)| self.seeds.iter().map(move |seed| (plan, policy, *seed)))
            .collect();
        let total = jobs.iter().map(|(plan, ..)| plans[*plan].workload.requests()).sum();
        let outcomes = in_parallel(&jobs, |&(plan, policy, seed)| {
            let Plan { workload, fleet, time_scale, .. } = plans[plan];
            self.setup(fleet, policy, time_scale, seed).replay(workload, &|requests| progress(requests, total))
        });
        let mut of_scenarios = outcomes.chunks((self.policies.len() * self.seeds.len()).max(1));
        let scenarios: Vec<Scenario> =
            plans.iter().map(|plan| self.scenario(plan, of_scenarios.next().unwrap_or(&[]))).collect();
        let standings = self.standings(&scenarios);
        Ok(StudyReport { scenarios, standings })
    }

    fn plans(&self, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<Vec<Plan<'_>>, ReplayError> {
        let mut places = Vec::new();
        for workload in &self.workloads {
            let fits = self.preset.kv_tokens() / workload.block_size().tokens();
            for &instances in &self.instances {
                let fleet = Fleet {
                    instances,
                    blocks: self.blocks.unwrap_or(fits),
                    preset: self.preset,
                    eviction: self.eviction,
                };
                check(&fleet, 1.0)?;
                places.push((workload, fleet));
            }
        }
        let paces = match &self.loads {
            Loads::TimeScales(scales) => {
                vec![scales.iter().map(|scale| (None, *scale)).collect::<Vec<_>>(); places.len()]
            }
            Loads::OfCapacity(shares) => in_parallel(&places, |(workload, fleet)| {
                let capacity = self.capacity(workload, *fleet, progress);
                shares.iter().map(|share| (Some(*share), 1.0 / (capacity * share))).collect()
            }),
        };
        let mut plans = Vec::new();
        for ((workload, fleet), paces) in places.into_iter().zip(paces) {
            for (load, time_scale) in paces {
                check(&fleet, time_scale)?;
                plans.push(Plan { workload, fleet, load, time_scale });
            }
        }
        Ok(plans)
    }

    /// The multiple of the recorded pace at which goodput falls to nine tenths.
    fn capacity(&self, workload: &Workload, fleet: Fleet, progress: &(dyn Fn(u64, u64) + Sync)) -> f64 {
        let holds = |pace: f64| {
            let setup = Setup {
                conditions: Conditions::default(),
                ..self.setup(fleet, PolicySpec::from(CAPACITY_POLICY), 1.0 / pace, 0)
            };
            setup.replay(workload, &|_| progress(0, 0)).goodput >= GOODPUT
        };
        let mut low = f64::from(fleet.instances) / 8.0;
        let mut doublings = 0;
        while !holds(low) && doublings < DOUBLINGS_MAX {
            low /= 2.0;
            doublings += 1;
        }
        let mut high = 2.0 * low;
        while doublings == 0 && holds(high) && high < low * f64::from(1 << DOUBLINGS_MAX) {
            (low, high) = (high, 2.0 * high);
        }
        for _ in 0..HALVINGS {
            let middle = (low * high).sqrt();
            if holds(middle) { low = middle } else { high = middle }
        }
        low
    }

    fn setup(&self, fleet: Fleet, policy: PolicySpec, time_scale: f64, seed: u64) -> Setup {
        Setup { fleet, policy, time_scale, seed, conditions: self.conditions, slo: self.slo }
    }

    fn scenario(&self, plan: &Plan<'_>, outcomes: &[Outcome]) -> Scenario {
        let Plan { workload, fleet, load, time_scale } = *plan;
        let blocks = u64::from(fleet.blocks) * u64::from(fleet.instances);
        let pooled = |eviction| workload.pooled_token_hit_ratio(blocks, eviction);
        Scenario {
            trace: workload.trace.file.clone(),
            requests: workload.requests(),
            instances: fleet.instances,
            blocks: fleet.blocks,
            preset: fleet.preset.name().to_owned(),
            eviction: fleet.eviction.name().to_owned(),
            load,
            time_scale,
            requests_per_second: workload.requests_per_second() / time_scale,
            ideal_token_hit_ratio: workload.ideal.token_hit_ratio,
            pooled_token_hit_ratio: pooled(Eviction::Lru),
            clairvoyant_token_hit_ratio: pooled(Eviction::Clairvoyant),
            cells: outcomes.chunks(self.seeds.len().max(1)).map(Cell::of).collect(),
        }
    }

    fn standings(&self, scenarios: &[Scenario]) -> Vec<Standing> {
        let ours = |position: usize| self.policies[position].kind == PolicyKind::PrefixCost;
        let only_ours = (0..self.policies.len()).all(ours);
        let standing = |position: usize| {
            let versus = |of: fn(&Cell) -> f64| {
                let ratios = scenarios.iter().map(|scenario| {
                    let peers = scenario.cells.iter().enumerate().filter(|(peer, _)| only_ours || !ours(*peer));
                    let best = peers.map(|(_, cell)| of(cell)).fold(f64::INFINITY, f64::min);
                    of(&scenario.cells[position]) / best
                });
                Versus::of(ratios)
            };
            let pooled = scenarios.iter().filter(|scenario| scenario.pooled_token_hit_ratio > 0.0);
            let shares =
                pooled.map(|scenario| scenario.cells[position].token_hit_ratio.mean / scenario.pooled_token_hit_ratio);
            Standing {
                policy: self.policies[position].to_string(),
                ttft_mean: versus(|cell| cell.ttft_mean.mean),
                ttft_p90: versus(|cell| cell.ttft_p90.mean),
                end_to_end_mean: versus(|cell| cell.end_to_end_mean.mean),
                pooled_share_min: shares.reduce(f64::min),
            }
        };
        if scenarios.is_empty() { Vec::new() } else { (0..self.policies.len()).map(standing).collect() }
    }
}

impl Versus {
    fn of(ratios: impl Iterator<Item = f64>) -> Self {
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
    fn of(outcomes: &[Outcome]) -> Self {
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
        }
    }
}

impl Figure {
    fn of(values: &[f64]) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Figure { mean, deviation: (squares / (count - 1.0).max(1.0)).sqrt() }
    }
}
