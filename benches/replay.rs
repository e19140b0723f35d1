//! What a replay costs: the whole Mooncake conversation trace, 8 instances, CPU time of one thread a policy.
//!
//! The baseline is reading the trace and computing its ideal hit ratio, which every report does anyway.
//! `cargo bench --bench replay`; `-- --quick` replays the first tenth, once.

use std::path::Path;
use std::time::{Duration, Instant};
use warmpath::replay::{Experiment, Fleet};
use warmpath::routing::policy::PolicyKind;
use warmpath::sim::Preset;
use warmpath::trace::Trace;

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let (limit, rounds) = if quick { (Some(1203), 1) } else { (None, 5) };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/mooncake/conversation_trace.jsonl.gz");
    let trace = Trace::open(path).expect("the trace is in the repository");
    let fleet = Fleet { instances: 8, blocks: 20_000, preset: Preset::default() };
    let experiment = Experiment { trace, fleet, time_scale: 1.0, limit, seed: 0, spread_ties: true };

    let baseline = median(rounds, || time(&experiment, &[]));
    println!("{:<16} {:>9} {:>9}", "", "seconds", "ratio");
    println!("{:<16} {:>9.3} {:>9.2}", "reading, ideal", baseline.as_secs_f64(), 1.0);
    for policy in PolicyKind::ALL {
        let whole = median(rounds, || time(&experiment, &[policy]));
        let own = whole.saturating_sub(baseline);
        let ratio = own.as_secs_f64() / baseline.as_secs_f64();
        println!("{:<16} {:>9.3} {:>9.2}", policy.name(), own.as_secs_f64(), ratio);
    }
}

fn time(experiment: &Experiment, policies: &[PolicyKind]) -> Duration {
    let start = Instant::now();
    experiment.run(policies, &|_| {}).expect("the experiment is sound");
    start.elapsed()
}

fn median(rounds: usize, mut run: impl FnMut() -> Duration) -> Duration {
    let mut times: Vec<Duration> = (0..rounds).map(|_| run()).collect();
    times.sort_unstable();
    times[rounds / 2]
}
