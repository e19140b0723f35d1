//! What a replay costs: the whole Mooncake conversation trace, 8 instances, CPU time of one thread a policy.
//!
//! The baseline is reading the trace and computing its ideal hit ratio, which every report does anyway.
//! `cargo bench --bench replay`; `-- --quick` replays the first tenth, once; `-- --large` instead replays 84 copies of the
//! trace, eight at a time, a million requests in all, to 64 instances under our policy, or the one that is named after it, once, and
//! tells the time.

use std::path::Path;
use std::time::{Duration, Instant};
use warmpath::replay::{Experiment, Fleet, Workload};
use warmpath::routing::block::ContentHash;
use warmpath::routing::policy::{PolicyKind, PolicySpec};
use warmpath::routing::{Config, SessionKey, Time};
use warmpath::sim::{Arrival, Cluster, ClusterConfig, Conditions, Eviction, InstanceConfig, Preset};
use warmpath::trace::Trace;

fn main() {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--large");
    if arguments.next().is_some() {
        let policy = arguments.find(|argument| !argument.starts_with('-'));
        return large(policy.map_or(PolicySpec::default(), |policy| policy.parse().expect("a policy")));
    }
    let quick = std::env::args().any(|argument| argument == "--quick");
    let (limit, rounds) = if quick { (Some(1203), 1) } else { (None, 5) };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/mooncake/conversation_trace.jsonl.gz");
    let trace = Trace::open(path).expect("the trace is in the repository");
    let fleet =
        Fleet { instances: 8, blocks: 20_000, preset: Preset::default(), fitted: None, eviction: Eviction::default() };
    let experiment =
        Experiment { trace, fleet, time_scale: 1.0, limit, seed: 0, spread_ties: true, unknown_outputs: false };

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

/// A million requests to 64 instances.
fn large(PolicySpec { kind: policy, tuning }: PolicySpec) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/mooncake/conversation_trace.jsonl.gz");
    let trace = Trace::open(path).expect("the trace is in the repository");
    let one = Workload::load(&trace, None, true).expect("the trace is sound");
    let mut arrivals: Vec<(Time, u64, Arrival)> = Vec::new();
    for copy in 0..84_u64 {
        let start = Duration::from_secs(3540 * (copy / 8) + 440 * (copy % 8));
        arrivals.extend(one.arrivals(1.0, copy).map(|mut arrival| {
            arrival.at = arrival.at + start;
            // All copies share the first block, as all requests of the trace do.
            let own = |content: &mut ContentHash| content.0 = content.0.wrapping_mul(1000).wrapping_add(copy);
            arrival.contents.iter_mut().skip(1).for_each(own);
            arrival.session = arrival.session.map(|session| SessionKey(session.0 * 1000 + copy));
            (arrival.at, copy, arrival)
        }));
    }
    arrivals.sort_by_key(|(at, copy, _)| (*at, *copy));
    let block_size = one.block_size();
    let model = Preset::default().step_model();
    let sequences_max = Preset::default().sequences_max();
    let instance = InstanceConfig { block_size, blocks: 2000, sequences_max, eviction: Eviction::Lru, model };
    let router = Config { block_size, prefill: model.prefill, policy, tuning, ..Config::default() };
    let mut cluster =
        Cluster::new(ClusterConfig { instances: 64, instance, router, conditions: Conditions::default() });
    let requests = arrivals.len();
    let start = Instant::now();
    for (_, _, arrival) in arrivals {
        cluster.arrive(arrival).expect("the fleet takes every request");
    }
    cluster.drain();
    let served = cluster.take_served();
    let steps: u64 = cluster.instance_stats().iter().map(|stats| stats.steps).sum();
    let seconds = start.elapsed().as_secs_f64();
    println!("{policy}: {} of {requests} requests, {steps} steps in {seconds:.1} s", served.len());
}
