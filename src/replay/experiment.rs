//! One trace, one fleet, one policy, one seed.

use super::outcome::{Outcome, Slo, Tallied};
use super::report::Report;
use super::study::LedgerError;
use super::workload::Workload;
use crate::routing::policy::PolicySpec;
use crate::routing::{self, InstanceId};
use crate::sim::{Cluster, ClusterConfig, Conditions, Eviction, InstanceConfig, Preset, Refused, Served, StepModel};
use crate::trace::{Trace, TraceError};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// The simulated fleet that a trace is replayed to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fleet {
    /// How many instances, all alike: 1 to [`InstanceId::LIMIT`].
    pub instances: u16,
    /// KV blocks in each, of the trace's block size.
    pub blocks: u32,
    /// What they run, on what.
    pub preset: Preset,
    /// Step times instead of the preset's.
    pub fitted: Option<StepModel>,
    /// How they evict.
    pub eviction: Eviction,
}

impl Fleet {
    pub(super) fn step_model(&self) -> StepModel {
        self.fitted.unwrap_or_else(|| self.preset.step_model())
    }

    /// The preset's name, and whether its step times are another's.
    pub(super) fn preset_name(&self) -> String {
        let fitted = if self.fitted.is_some() { " (fitted)" } else { "" };
        format!("{}{fitted}", self.preset.name())
    }
}

/// What is to be replayed, and how.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// The requests.
    pub trace: Trace,
    /// The instances.
    pub fleet: Fleet,
    /// Multiplies the time between requests: below 1 they come faster, above 1 slower.
    pub time_scale: f64,
    /// Replay only this many requests, from the start.
    pub limit: Option<u64>,
    /// Seeds chance.
    pub seed: u64,
    /// Requests that share a timestamp arrive spread out up to the next one, instead of all at once.
    pub spread_ties: bool,
    /// No later prompt repeats an output; else it does where the trace has the next turn.
    pub unknown_outputs: bool,
}

/// Why an experiment cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The trace cannot be read.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// A number is out of range.
    #[error("{what} must be {range}, not {given}")]
    OutOfRange {
        /// Which number.
        what: &'static str,
        /// What it may be.
        range: String,
        /// What it was.
        given: String,
    },
    /// What is finished cannot be read or kept.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The trace has no requests.
    #[error("{trace} has no requests to replay")]
    NoRequests {
        /// Which trace.
        trace: String,
    },
}

/// One replay of a workload.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// The instances.
    pub fleet: Fleet,
    /// How to choose.
    pub policy: PolicySpec,
    /// Multiplies the time between requests.
    pub time_scale: f64,
    /// Seeds chance, and when within their timestamp requests come.
    pub seed: u64,
    /// How well the routers are told.
    pub conditions: Conditions,
    /// What counts as answered in time.
    pub slo: Slo,
}

impl Experiment {
    /// Replays the trace once for each policy, on as many threads as there are cores.
    ///
    /// `progress` is told of every request replayed, from any thread.
    pub fn run<P: Copy + Sync + Into<PolicySpec>>(
        &self,
        policies: &[P],
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Report, ReplayError> {
        check(&self.fleet, self.time_scale)?;
        let mut workload = Workload::load(&self.trace, self.limit, self.spread_ties)?;
        if self.unknown_outputs {
            workload = workload.with_unknown_outputs();
        }
        let outcomes = in_parallel(policies, |&policy| self.setup(policy.into()).replay(&workload, progress));
        Ok(Report::new(self, workload.trace, workload.ideal, outcomes))
    }

    fn setup(&self, policy: PolicySpec) -> Setup {
        let Experiment { fleet, time_scale, seed, .. } = *self;
        Setup { fleet, policy, time_scale, seed, conditions: Conditions::default(), slo: Slo::default() }
    }
}

impl Setup {
    /// Refuses numbers that no fleet can have.
    pub fn check(&self) -> Result<(), ReplayError> {
        check(&self.fleet, self.time_scale)
    }

    /// Replays the workload; `progress` is told of every request.
    pub fn replay(&self, workload: &Workload, progress: &dyn Fn(u64)) -> Outcome {
        self.replay_each(workload, progress, &mut |_| {})
    }

    /// The same, telling of every request that was served, in order of their ends.
    pub fn replay_each(&self, workload: &Workload, progress: &dyn Fn(u64), each: &mut dyn FnMut(&Served)) -> Outcome {
        let mut cluster = Cluster::new(self.cluster(workload));
        if self.fleet.eviction == Eviction::Clairvoyant {
            cluster.foresee(workload.arrivals(self.time_scale, self.seed));
        }
        let mut tallied = Tallied::new(self.slo);
        let block_size = workload.block_size();
        for arrival in workload.arrivals(self.time_scale, self.seed) {
            match cluster.arrive(arrival) {
                Ok(_) => {}
                Err(Refused::TooLarge(_)) => tallied.too_large += 1,
                Err(Refused::Route(error)) => unreachable!("a fleet of ready instances takes any prompt: {error}"),
            }
            let served = cluster.take_served();
            served.iter().for_each(&mut *each);
            tallied.add(&served, block_size);
            progress(1);
        }
        cluster.drain();
        let served = cluster.take_served();
        served.iter().for_each(each);
        tallied.add(&served, block_size);
        tallied.outcome(&self.policy, &self.fleet.preset.gpus(), &cluster.instance_stats())
    }

    fn cluster(&self, workload: &Workload) -> ClusterConfig {
        let block_size = workload.block_size();
        let Fleet { instances, blocks, preset, eviction, .. } = self.fleet;
        let model = self.fleet.step_model();
        let sequences_max = preset.sequences_max();
        let instance = InstanceConfig { block_size, blocks, sequences_max, eviction, model };
        let PolicySpec { kind: policy, tuning } = self.policy;
        // As when it serves, it is not told the instances' step times: it learns how far they are from its own model.
        let router = routing::Config { block_size, policy, tuning, seed: self.seed, ..routing::Config::default() };
        ClusterConfig { instances, instance, router, conditions: self.conditions }
    }
}

/// Refuses numbers that no fleet can have.
pub(super) fn check(fleet: &Fleet, time_scale: f64) -> Result<(), ReplayError> {
    let out_of_range = |what, range: String, given: String| Err(ReplayError::OutOfRange { what, range, given });
    let Fleet { instances, blocks, .. } = *fleet;
    if instances == 0 || usize::from(instances) > InstanceId::LIMIT {
        return out_of_range("the number of instances", format!("1 to {}", InstanceId::LIMIT), instances.to_string());
    }
    if blocks == 0 || blocks > BLOCKS_MAX {
        return out_of_range("the number of blocks", format!("1 to {BLOCKS_MAX}"), blocks.to_string());
    }
    if !(time_scale.is_finite() && time_scale > 0.0) {
        return out_of_range("the time scale", "a number above 0".to_owned(), time_scale.to_string());
    }
    Ok(())
}

/// Does all jobs on as many threads as there are cores; results in the order of the jobs.
pub(super) fn in_parallel<J: Sync, R: Send>(jobs: &[J], work: impl Fn(&J) -> R + Sync) -> Vec<R> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(jobs.len());
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<R>>> = Mutex::new(jobs.iter().map(|_| None).collect());
    let take_jobs = || {
        while let Some((at, job)) = {
            let at = next.fetch_add(1, Ordering::Relaxed);
            jobs.get(at).map(|job| (at, job))
        } {
            let result = work(job);
            results.lock().expect("no job panics while it holds the results")[at] = Some(result);
        }
    };
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(take_jobs);
        }
    });
    let results = results.into_inner().expect("a job that panicked took the whole scope with it");
    results.into_iter().map(|result| result.expect("every job was taken")).collect()
}

/// A pool's links are 32-bit, and one of them is taken.
const BLOCKS_MAX: u32 = u32::MAX - 1;
