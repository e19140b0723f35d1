//! One trace, one fleet, one policy, one seed.

use super::outcome::{Outcome, Tallied};
use super::report::{Ideal, Report, TraceSummary};
use crate::routing::policy::PolicyKind;
use crate::routing::{self, InstanceId, Time};
use crate::sim::{Arrival, Cluster, ClusterConfig, InstanceConfig, Preset, Refused};
use crate::trace::{InfiniteCache, Record, SpreadTies, Trace, TraceError};
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
    /// The trace has no requests.
    #[error("{trace} has no requests to replay")]
    NoRequests {
        /// Which trace.
        trace: String,
    },
}

impl Experiment {
    /// Replays the trace once for each policy, on as many threads as there are cores.
    ///
    /// `progress` is told of every request replayed, from any thread.
    pub fn run(&self, policies: &[PolicyKind], progress: &(dyn Fn(u64) + Sync)) -> Result<Report, ReplayError> {
        self.check()?;
        let (ideal, trace) = self.ideal()?;
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let mut outcomes = Vec::with_capacity(policies.len());
        for batch in policies.chunks(threads) {
            let run = |&policy| move || self.replay(policy, progress);
            let results: Vec<Result<Outcome, ReplayError>> = thread::scope(|scope| {
                let replays: Vec<_> = batch.iter().map(|policy| scope.spawn(run(policy))).collect();
                let join = |replay: thread::ScopedJoinHandle<'_, _>| match replay.join() {
                    Ok(result) => result,
                    Err(panic) => std::panic::resume_unwind(panic),
                };
                replays.into_iter().map(join).collect()
            });
            for result in results {
                outcomes.push(result?);
            }
        }
        Ok(Report::new(self, trace, ideal, outcomes))
    }

    fn check(&self) -> Result<(), ReplayError> {
        let out_of_range = |what, range: String, given: String| Err(ReplayError::OutOfRange { what, range, given });
        let Fleet { instances, blocks, .. } = self.fleet;
        if instances == 0 || usize::from(instances) > InstanceId::LIMIT {
            return out_of_range(
                "the number of instances",
                format!("1 to {}", InstanceId::LIMIT),
                instances.to_string(),
            );
        }
        if blocks == 0 || blocks > BLOCKS_MAX {
            return out_of_range("the number of blocks", format!("1 to {BLOCKS_MAX}"), blocks.to_string());
        }
        if !(self.time_scale.is_finite() && self.time_scale > 0.0) {
            return out_of_range("the time scale", "a number above 0".to_owned(), self.time_scale.to_string());
        }
        Ok(())
    }

    /// The records as they are to arrive.
    fn records(&self) -> Result<impl Iterator<Item = Result<Record, TraceError>>, TraceError> {
        let records = self.trace.records()?;
        let records: Box<dyn Iterator<Item = Result<Record, TraceError>>> =
            if self.spread_ties { Box::new(SpreadTies::new(records)) } else { Box::new(records) };
        Ok(records.take(self.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))))
    }

    fn ideal(&self) -> Result<(Ideal, TraceSummary), ReplayError> {
        let mut records = self.trace.records()?;
        let mut cache = InfiniteCache::new(self.trace.block_size());
        let mut requests = 0;
        let mut last = std::time::Duration::ZERO;
        while self.limit.is_none_or(|limit| requests < limit)
            && let Some(record) = records.next()
        {
            let record = record?;
            cache.visit(&record);
            requests += 1;
            last = record.at;
        }
        if requests == 0 {
            return Err(ReplayError::NoRequests { trace: self.trace.path().display().to_string() });
        }
        Ok((Ideal::new(&cache), TraceSummary::new(&self.trace, requests, last, records.tally())))
    }

    fn replay(&self, policy: PolicyKind, progress: &(dyn Fn(u64) + Sync)) -> Result<Outcome, ReplayError> {
        let mut cluster = Cluster::new(self.cluster(policy));
        let mut tallied = Tallied::default();
        let block_size = self.trace.block_size();
        for record in self.records()? {
            let record = record?;
            let arrival = Arrival {
                at: Time::from_secs_f64(record.at.as_secs_f64() * self.time_scale),
                prompt_tokens: record.prompt_tokens,
                output_tokens: record.output_tokens,
                contents: record.full_blocks(block_size).to_vec(),
            };
            match cluster.arrive(arrival) {
                Ok(_) => {}
                Err(Refused::TooLarge(_)) => tallied.too_large += 1,
                Err(Refused::Route(error)) => unreachable!("a fleet of ready instances takes any prompt: {error}"),
            }
            tallied.add(&cluster.take_served(), block_size);
            progress(1);
        }
        cluster.drain();
        tallied.add(&cluster.take_served(), block_size);
        Ok(tallied.outcome(policy, &cluster.instance_stats()))
    }

    fn cluster(&self, policy: PolicyKind) -> ClusterConfig {
        let block_size = self.trace.block_size();
        let Fleet { instances, blocks, preset } = self.fleet;
        let model = preset.step_model();
        let instance = InstanceConfig { block_size, blocks, sequences_max: preset.sequences_max(), model };
        let prefill = model.prefill;
        let router = routing::Config { block_size, policy, prefill, seed: self.seed, ..routing::Config::default() };
        ClusterConfig { instances, instance, router }
    }
}

/// A pool's links are 32-bit, and one of them is taken.
const BLOCKS_MAX: u32 = u32::MAX - 1;
