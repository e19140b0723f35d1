//! `warmpath demo`.

mod fleet;
mod pass;

use crate::replay::ruled_table;
use crate::routing::PrefillModel;
use crate::routing::policy::PolicyKind;
use crate::sim::Preset;
use crate::trace::{InfiniteCache, Record, SpreadTies, Trace};
use anyhow::{Context, Result, ensure};
use comfy_table::CellAlignment;
use pass::{Pace, Pass};
use std::io::Write;

/// Watch a cache-aware router at work, on this machine, in under a minute.
///
/// Starts stand-ins for vLLM and a router, all on free loopback ports, and replays a bundled slice of a real trace (the
/// first requests of Mooncake's conversation trace) through the router's gRPC service: once with a baseline policy, once
/// with Warmpath's own. The stand-ins simulate a 32-billion-parameter model on two H100s each, faster than real time, and
/// publish what they cache as vLLM does; the router learns of it over ZeroMQ and in no other way. Times are in the
/// model's seconds, not the wall's.
#[derive(Debug, clap::Args)]
pub(super) struct Demo {
    /// Requests to replay, from the start of the bundled slice.
    #[arg(long, value_name = "N", default_value_t = REQUESTS, value_parser = clap::value_parser!(u64).range(1..=REQUESTS))]
    requests: u64,

    /// Stand-ins for vLLM.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    instances: u16,

    /// How many times faster than real time everything runs.
    #[arg(long, value_name = "FACTOR", default_value_t = 25.0)]
    speed: f64,

    /// Multiply the time between requests: 1 is the recorded pace, below 1 is faster.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.5)]
    time_scale: f64,

    /// The policy to compare with.
    #[arg(long, value_name = "POLICY", default_value_t = PolicyKind::RoundRobin)]
    baseline: PolicyKind,

    /// The policy to show.
    #[arg(long, value_name = "POLICY", default_value_t)]
    policy: PolicyKind,
}

/// The first 1,000 requests (of 12,031) of the Mooncake conversation trace: Apache-2.0, from FAST25-release/traces in
/// github.com/kvcache-ai/Mooncake.
const SLICE: &[u8] = include_bytes!("demo/conversation_first_1000.jsonl.gz");
const REQUESTS: u64 = 1000;
const PRESET: Preset = Preset::Qwen3_32bH100Tp2;

impl Demo {
    pub fn run(self) -> Result<()> {
        for (name, value) in [("--speed", self.speed), ("--time-scale", self.time_scale)] {
            ensure!(value.is_finite() && value > 0.0, "{name} must be a number above 0, not {value}");
        }
        let trace = Trace::bundled("the bundled trace slice", SLICE)?;
        let block_size = trace.block_size();
        let records: Vec<Record> =
            SpreadTies::new(trace.records()?).take(self.requests as usize).collect::<Result<_, _>>()?;
        let mut ideal = InfiniteCache::new(block_size);
        records.iter().for_each(|record| ideal.visit(record));

        println!(
            "{} requests of a real conversation trace to {} stand-ins for vLLM ({PRESET}), {} times as fast as real time",
            records.len(),
            self.instances,
            self.speed
        );
        let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
        let pace = Pace { time_scale: self.time_scale, speed: self.speed };
        let pass = |policy| runtime.block_on(self.pass(policy, &records, block_size.tokens(), pace));
        let baseline = pass(self.baseline)?;
        let shown = pass(self.policy)?;

        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", table(&[&baseline, &shown], ideal.reuse().token_hit_ratio()))?;
        writeln!(out, "{}", sentence(&baseline, &shown, ideal.reuse().token_hit_ratio()))?;
        Ok(())
    }

    /// A fleet and a router of their own, so that nothing is left over from another pass.
    async fn pass(&self, policy: PolicyKind, records: &[Record], block_tokens: u32, pace: Pace) -> Result<Pass> {
        let prefill: PrefillModel = PRESET.step_model().prefill.faster(self.speed);
        let fleet = fleet::Fleet::start(self.instances, policy, PRESET, prefill, self.speed).await?;
        let passed = pass::run(&fleet, policy, records, block_tokens, pace).await;
        fleet.stop().await?;
        passed
    }
}

fn table(passes: &[&Pass], ideal: f64) -> comfy_table::Table {
    let mut table = ruled_table();
    table.set_header([
        "",
        "from\ncache",
        "of\npossible",
        "TTFT s\nmean",
        "\np50",
        "\np90",
        "max/mean\nrequests",
        "max/mean\nwork",
    ]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for pass in passes {
        let hit = pass.token_hit_ratio();
        let mut row = vec![pass.policy.name().to_owned(), format!("{:.1} %", hit * 100.0)];
        row.push(if ideal > 0.0 { format!("{:.0} %", hit / ideal * 100.0) } else { "–".to_owned() });
        row.extend([pass.ttft.mean, pass.ttft.p50, pass.ttft.p90].map(|seconds| format!("{seconds:.2}")));
        row.extend([&pass.requests, &pass.work].map(|balance| format!("{:.2}", balance.max_over_mean)));
        table.add_row(row);
    }
    table
}

fn sentence(baseline: &Pass, shown: &Pass, ideal: f64) -> String {
    let percent = |ratio: f64| format!("{:.1} %", ratio * 100.0);
    let (slow, fast) = (baseline.ttft.mean, shown.ttft.mean);
    let times = |factor: f64, than: &str| format!("{factor:.1} times {than}");
    let change = if fast < slow { times(slow / fast, "sooner") } else { times(fast / slow, "later") };
    format!(
        "{} took {} of all prompt tokens from a cache where {} took {} (no cache could give more than {}), and the first \
         token came after {fast:.2} s instead of {slow:.2} s on average: {change}.",
        shown.policy,
        percent(shown.token_hit_ratio()),
        baseline.policy,
        percent(baseline.token_hit_ratio()),
        percent(ideal),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slice_is_the_head_of_the_trace() {
        let read = |trace: Trace, count| trace.records().unwrap().take(count).map(Result::unwrap).collect::<Vec<_>>();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/mooncake/conversation_trace.jsonl.gz");
        let slice = read(Trace::bundled("slice", SLICE).unwrap(), usize::MAX);
        assert_eq!(slice, read(Trace::open(path).unwrap(), REQUESTS as usize));
    }
}
