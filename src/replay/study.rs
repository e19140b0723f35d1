//! Many replays: traces × fleet sizes × loads × policies × seeds, and who wins.
//!
//! Load is given as a multiple of the recorded pace or as a share of measured capacity: the pace at which
//! [`CAPACITY_POLICY`] still answers nine requests in ten within the service level, found by bisection.

mod finding;
mod html;
mod ledger;
mod text;

pub use finding::{Cell, Figure, Scenario, Standing, StudyReport, Versus};
pub use ledger::{Ledger, LedgerError};

use super::experiment::{Fleet, ReplayError, Setup, check, in_parallel};
use super::outcome::{Outcome, Slo};
use super::workload::{Alone, Workload};
use crate::routing::policy::{PolicyKind, PolicySpec};
use crate::sim::{Conditions, Eviction, Preset, StepModel};
use ledger::{Finding, key};

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
    /// Step times instead of the preset's.
    pub fitted: Option<StepModel>,
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
        self.run_with(None, progress)
    }

    /// The same, but for what the ledger has already; what is finished is kept there. `progress` is told of that, too.
    pub fn resume(&self, ledger: &Ledger, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<StudyReport, ReplayError> {
        self.run_with(Some(ledger), progress)
    }

    fn run_with(
        &self,
        ledger: Option<&Ledger>,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<StudyReport, ReplayError> {
        let plans = self.plans(ledger, progress)?;
        let jobs: Vec<(usize, PolicySpec, u64)> = (0..plans.len())
            .flat_map(|plan| self.policies.iter().map(move |policy| (plan, *policy)))
            .flat_map(|(plan, policy)| self.seeds.iter().map(move |seed| (plan, policy, *seed)))
            .collect();
        let total = jobs.iter().map(|(plan, ..)| plans[*plan].workload.requests()).sum();
        let outcomes = in_parallel(&jobs, |&(plan, policy, seed)| {
            let Plan { workload, fleet, time_scale, .. } = plans[plan];
            let setup = self.setup(fleet, policy, time_scale, seed);
            let key = key("replay", &setup, workload);
            if let Some(Finding::Outcome(outcome)) = ledger.and_then(|ledger| ledger.find(&key)) {
                progress(workload.requests(), total);
                return Ok(*outcome);
            }
            let outcome = setup.replay(workload, &|requests| progress(requests, total));
            ledger.map_or(Ok(()), |ledger| ledger.keep(&key, Finding::Outcome(Box::new(outcome.clone()))))?;
            Ok(outcome)
        });
        let outcomes = outcomes.into_iter().collect::<Result<Vec<Outcome>, LedgerError>>()?;
        let mut of_scenarios = outcomes.chunks((self.policies.len() * self.seeds.len()).max(1));
        let scenarios: Vec<Scenario> =
            plans.iter().map(|plan| self.scenario(plan, of_scenarios.next().unwrap_or(&[]))).collect();
        let standings = self.standings(&scenarios);
        Ok(StudyReport { scenarios, standings })
    }

    fn plans(
        &self,
        ledger: Option<&Ledger>,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<Vec<Plan<'_>>, ReplayError> {
        let mut places = Vec::new();
        for workload in &self.workloads {
            let fits = self.preset.kv_tokens() / workload.block_size().tokens();
            for &instances in &self.instances {
                let fleet = Fleet {
                    instances,
                    blocks: self.blocks.unwrap_or(fits),
                    preset: self.preset,
                    fitted: self.fitted,
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
            Loads::OfCapacity(shares) => {
                let paces = in_parallel(&places, |(workload, fleet)| {
                    let capacity = self.kept_capacity(workload, *fleet, ledger, progress)?;
                    Ok(shares.iter().map(|share| (Some(*share), 1.0 / (capacity * share))).collect())
                });
                paces.into_iter().collect::<Result<_, LedgerError>>()?
            }
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

    fn kept_capacity(
        &self,
        workload: &Workload,
        fleet: Fleet,
        ledger: Option<&Ledger>,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<f64, LedgerError> {
        let key = key("capacity", &self.capacity_setup(fleet, 1.0), workload);
        if let Some(Finding::Capacity(capacity)) = ledger.and_then(|ledger| ledger.find(&key)) {
            return Ok(capacity);
        }
        let capacity = self.capacity(workload, fleet, progress);
        ledger.map_or(Ok(()), |ledger| ledger.keep(&key, Finding::Capacity(capacity)))?;
        Ok(capacity)
    }

    /// The multiple of the recorded pace at which goodput falls to nine tenths.
    fn capacity(&self, workload: &Workload, fleet: Fleet, progress: &(dyn Fn(u64, u64) + Sync)) -> f64 {
        let holds = |pace: f64| {
            let setup = self.capacity_setup(fleet, pace);
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

    fn capacity_setup(&self, fleet: Fleet, pace: f64) -> Setup {
        let setup = self.setup(fleet, PolicySpec::from(CAPACITY_POLICY), 1.0 / pace, 0);
        Setup { conditions: Conditions::default(), ..setup }
    }

    fn setup(&self, fleet: Fleet, policy: PolicySpec, time_scale: f64, seed: u64) -> Setup {
        Setup { fleet, policy, time_scale, seed, conditions: self.conditions, slo: self.slo }
    }

    fn scenario(&self, plan: &Plan<'_>, outcomes: &[Outcome]) -> Scenario {
        let Plan { workload, fleet, load, time_scale } = *plan;
        let blocks = u64::from(fleet.blocks) * u64::from(fleet.instances);
        let alone = Alone { model: fleet.step_model(), time_scale };
        let pooled = |eviction| workload.pooled_token_hit_ratio(blocks, eviction, Some(&alone));
        let pooled_ttft = workload.pooled_ttft(blocks, &alone);
        Scenario {
            trace: workload.trace.file.clone(),
            prefix: workload.trace.prefix.to_string(),
            measured: false,
            requests: workload.requests(),
            instances: fleet.instances,
            blocks: fleet.blocks,
            preset: fleet.preset_name(),
            eviction: fleet.eviction.name().to_owned(),
            load,
            time_scale,
            requests_per_second: workload.requests_per_second() / time_scale,
            ideal_token_hit_ratio: workload.ideal.reachable_token_hit_ratio,
            pooled_token_hit_ratio: pooled(Eviction::Lru),
            clairvoyant_token_hit_ratio: pooled(Eviction::Clairvoyant),
            pooled_ttft_mean: Some(pooled_ttft.mean),
            pooled_ttft_p90: Some(pooled_ttft.p90),
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
