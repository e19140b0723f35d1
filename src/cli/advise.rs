//! `warmpath advise`: what to run for a trace.

use crate::replay::{Loads, Slo, Study, Workload, advise};
use crate::routing::policy::{PolicyKind, PolicySpec};
use crate::sim::{Conditions, Eviction, Preset};
use crate::trace::Trace;
use anyhow::Context;
use indicatif::ProgressBar;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// Say which policy, how many instances and how much cache a recorded trace needs, with the evidence.
///
/// The trace is replayed at its recorded pace to simulated fleets: the fewest instances with which some policy answers nine
/// requests in ten within the service level, the policy that answers soonest there, and the smallest cache that costs less than
/// a twentieth of that.
#[derive(Debug, clap::Args)]
pub(super) struct Advise {
    /// A trace file, as for `replay`.
    #[arg(value_name = "TRACE")]
    trace: PathBuf,

    /// Instances, at most.
    #[arg(long, value_name = "N", default_value_t = 32)]
    instances_max: u16,

    /// Policies to choose from, separated by commas.
    #[arg(
        long,
        value_name = "POLICY,…",
        value_delimiter = ',',
        default_value = "prefix_cost,lmetric,mooncake,least_loaded"
    )]
    policy: Vec<PolicySpec>,

    /// Model and GPU to simulate.
    #[arg(long, value_name = "PRESET", default_value_t)]
    preset: Preset,

    /// Replay only the first N requests.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,

    /// Service level: time to first token, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 5000)]
    slo_ttft: u64,

    /// Write the advice as JSON instead.
    #[arg(long)]
    json: bool,
}

impl Advise {
    pub fn run(self) -> anyhow::Result<()> {
        let workload = Workload::load(&Trace::open(&self.trace)?, self.limit, true)?;
        let policies = if self.policy.is_empty() { vec![PolicyKind::default().into()] } else { self.policy.clone() };
        let study = Study {
            workloads: vec![workload],
            instances: vec![self.instances_max],
            blocks: None,
            preset: self.preset,
            fitted: None,
            eviction: Eviction::default(),
            loads: Loads::TimeScales(vec![1.0]),
            policies,
            seeds: vec![0],
            conditions: Conditions::default(),
            slo: Slo { ttft: Duration::from_millis(self.slo_ttft), tpot: None },
        };
        let bar = ProgressBar::new_spinner();
        let advice = advise(&study, &|requests, _| bar.inc(requests));
        bar.finish_and_clear();
        let advice = advice?;
        let text = if self.json {
            serde_json::to_string_pretty(&advice).context("cannot write the advice as JSON")? + "\n"
        } else {
            advice.to_text()
        };
        write!(std::io::stdout().lock(), "{text}").context("cannot write to standard output")
    }
}
