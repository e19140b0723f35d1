//! Who wins: every policy on the Mooncake traces and on the presets of the Qwen-Bailian traces, 4, 8 and 16 instances, three
//! loads under saturation, three seeds.
//!
//! Each figure is a policy's over that of the best peer *of that scenario*, a bar that no one peer meets: geometric mean
//! over the scenarios, and the worst. Instances are Qwen3-32B on 2 × H100 with a cache of a million tokens; load is 0.5, 0.7
//! and 0.9 of the measured capacity of Mooncake's policy; seeds move arrivals within the traces' rounding of time. The Qwen
//! traces are synthetic, calibrated to what was published of the real ones.
//!
//! `cargo bench --bench policies`; `-- --quick` replays the first 1,500 requests of a Mooncake trace to 4 instances with one seed;
//! `-- --stale` tells ours what instances report a second late, then first tokens and ends, too, and loses a hundredth of the cache
//! events (`--delay`, `--events-lost`: other figures); `-- --policies prefix_cost,lmetric` compares these, `--trace qwen` these
//! traces, by how they begin, `--trace-seed 2` others of the synthetic ones, which no number was chosen with, `prefix_cost:hold=0` ours
//! where the router holds nothing; `--save FILE` keeps the report, `--against FILE` runs only `--policies` and takes all other figures
//! from there. All of it takes hours; a Mooncake trace, ten policies and three seeds take a minute.

use std::path::Path;
use std::time::Duration;
use warmpath::replay::{Cell, Loads, Scenario, Slo, Study, StudyReport, Workload};
use warmpath::routing::policy::{PolicyKind, PolicySpec};
use warmpath::sim::{Conditions, Eviction, Preset};
use warmpath::trace::{Synthetic, SyntheticPreset, Trace};

struct Arguments(Vec<String>);

impl Arguments {
    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|argument| argument == name)
    }

    fn after(&self, name: &str) -> Option<&String> {
        self.0.iter().position(|argument| argument == name).and_then(|at| self.0.get(at + 1))
    }

    fn numbers(&self, name: &str, default: &[f64]) -> Vec<f64> {
        let parse = |text: &String| text.split(',').map(|part| part.parse().expect("a number")).collect();
        self.after(name).map_or(default.to_vec(), parse)
    }
}

fn main() {
    let arguments = Arguments(std::env::args().collect());
    let quick = arguments.has("--quick");
    let against: Option<StudyReport> = arguments.after("--against").map(|file| {
        let text = std::fs::read_to_string(file).expect("the report can be read");
        serde_json::from_str(&text).expect("a report of this bench")
    });
    let policies: Vec<PolicySpec> = match arguments.after("--policies") {
        Some(list) => list.split(',').map(|policy| policy.parse().expect("a policy")).collect(),
        None => PolicyKind::ALL.map(PolicySpec::from).to_vec(),
    };
    let only = |name: &str| arguments.after("--trace").is_none_or(|only| name.starts_with(only.as_str()));
    let traces = TRACES.iter().filter(|(name, ..)| only(name) && !(quick && name.starts_with("qwen")));
    let instances = arguments.numbers("--instances", if quick { &[4.0] } else { &[4.0, 8.0, 16.0] });
    let seeds = arguments.numbers("--seeds", if quick { &[1.0] } else { &[1.0, 2.0, 3.0] });
    let made_with = arguments.numbers("--trace-seed", &[1.0])[0] as u64;
    let kv_tokens = arguments.numbers("--kv-tokens", &[1_024_000.0])[0];
    let study = Study {
        workloads: traces.map(|trace| workload(trace, quick.then_some(1500), made_with)).collect(),
        instances: instances.iter().map(|count| *count as u16).collect(),
        blocks: None,
        preset: arguments.after("--preset").map_or(Preset::default(), |name| name.parse().expect("a preset")),
        fitted: None,
        eviction: Eviction::default(),
        loads: Loads::OfCapacity(arguments.numbers("--loads", &[0.5, 0.7, 0.9])),
        policies,
        seeds: seeds.iter().map(|seed| *seed as u64).collect(),
        conditions: Conditions::default(),
        slo: Slo::default(),
    };
    let scenarios = match &against {
        Some(report) => merged(report, again(&study, &report.scenarios, kv_tokens)),
        None => study.workloads.iter().flat_map(|workload| of(&study, workload, kv_tokens)).collect(),
    };
    print(&scenarios);
    if let Some(file) = arguments.after("--save") {
        let report = StudyReport { scenarios: scenarios.clone(), standings: Vec::new() };
        std::fs::write(file, serde_json::to_string(&report).expect("a report is JSON")).expect("the report is written");
    }
    if arguments.has("--stale") {
        let late = Duration::from_secs_f64(arguments.numbers("--delay", &[1.0])[0]);
        let events_lost = arguments.numbers("--events-lost", &[0.01])[0];
        let ours = study.policies.iter().copied().filter(|policy| policy.kind == PolicyKind::PrefixCost);
        let study = Study { policies: ours.collect(), ..study.clone() };
        let report = StudyReport { scenarios: without_ours(&scenarios), standings: Vec::new() };
        for (what, answer_delay) in [("reports", Duration::ZERO), ("reports and answers", late)] {
            let conditions = Conditions { report_delay: late, answer_delay, events_lost, ..Conditions::default() };
            println!("\nours with {what} {late:?} late and {events_lost} of events lost, peers fully informed");
            let stale = Study { conditions, ..study.clone() };
            print(&merged(&report, again(&stale, &scenarios, kv_tokens)));
        }
    }
}

/// A trace that is made up: how many seconds of it, and how many requests at most.
struct MadeUp(SyntheticPreset, f64, u64);

/// By name. Of those that are made up, so many requests that at the highest load they come over several times as long as an answer
/// takes: fewer are a burst into an empty fleet.
const TRACES: [(&str, Option<MadeUp>); 6] = [
    ("conversation", None),
    ("synthetic", None),
    ("qwen-a", Some(MadeUp(SyntheticPreset::QwenA, 2100.0, 12_000))),
    ("qwen-b", Some(MadeUp(SyntheticPreset::QwenB, 1050.0, 24_000))),
    ("qwen-coder", Some(MadeUp(SyntheticPreset::QwenCoder, 2150.0, 12_000))),
    ("qwen-thinking", Some(MadeUp(SyntheticPreset::QwenThinking, 4000.0, 6_000))),
];

fn workload((name, made_up): &(&str, Option<MadeUp>), limit: Option<u64>, seed: u64) -> Workload {
    if let Some(MadeUp(preset, seconds, requests)) = made_up {
        let synthetic = Synthetic::generate(*preset, seed, *seconds);
        return Workload::synthetic(name, &synthetic, Some(*requests)).expect("the preset has requests");
    }
    let file = format!("tests/data/mooncake/{name}_trace.jsonl.gz");
    let trace = Trace::open(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("the trace is in the repository");
    Workload::load(&trace, limit, true).expect("the trace is sound")
}

/// The study of one workload, in caches of so many tokens.
fn of(study: &Study, workload: &Workload, kv_tokens: f64) -> Vec<Scenario> {
    let blocks = Some((kv_tokens / f64::from(workload.block_size().tokens())) as u32);
    let study = Study { workloads: vec![workload.clone()], blocks, ..study.clone() };
    let report = study.run(&|_, _| {}).expect("the study is sound");
    report.scenarios
}

/// The same scenarios at the same pace.
fn again(study: &Study, scenarios: &[Scenario], kv_tokens: f64) -> Vec<Scenario> {
    let mut all = Vec::new();
    for workload in &study.workloads {
        for &instances in &study.instances {
            let here = |scenario: &&Scenario| scenario.trace == workload.trace.file && scenario.instances == instances;
            let scales = scenarios.iter().filter(here).map(|scenario| scenario.time_scale).collect();
            let here = Study { instances: vec![instances], loads: Loads::TimeScales(scales), ..study.clone() };
            all.extend(of(&here, workload, kv_tokens));
        }
    }
    all
}

fn without_ours(scenarios: &[Scenario]) -> Vec<Scenario> {
    let mut scenarios = scenarios.to_vec();
    scenarios.iter_mut().for_each(|scenario| scenario.cells.retain(|cell| !is_ours(cell)));
    scenarios
}

/// New figures beside those of a report, in place of any of the same policy.
fn merged(report: &StudyReport, new: Vec<Scenario>) -> Vec<Scenario> {
    let place = |scenario: &Scenario| {
        let same = |old: &&Scenario| {
            (&old.trace, old.instances, old.time_scale) == (&scenario.trace, scenario.instances, scenario.time_scale)
        };
        report.scenarios.iter().find(same).cloned().expect("the report has the scenario")
    };
    let merge = |scenario: Scenario| {
        let Scenario { load, mut cells, .. } = place(&scenario);
        cells.retain(|cell| scenario.cells.iter().all(|new| new.policy != cell.policy));
        cells.extend(scenario.cells);
        Scenario { load, cells, ..scenario }
    };
    new.into_iter().map(merge).collect()
}

fn is_ours(cell: &Cell) -> bool {
    cell.policy.starts_with(PolicyKind::PrefixCost.name())
}

/// The best peer: its name, and its figure.
fn best(scenario: &Scenario, of: impl Fn(&Cell) -> f64) -> (&str, f64) {
    let peers = scenario.cells.iter().filter(|cell| !is_ours(cell) && !cell.policy.contains("hold="));
    let figures = peers.map(|cell| (cell.policy.as_str(), of(cell)));
    figures.min_by(|a, b| a.1.total_cmp(&b.1)).expect("there is a peer")
}

fn print(scenarios: &[Scenario]) {
    for scenario in scenarios {
        let (load, pace) = (scenario.load.unwrap_or(1.0), 1.0 / scenario.time_scale);
        let (trace, instances, pooled) = (&scenario.trace, scenario.instances, scenario.pooled_token_hit_ratio);
        println!("{trace} · {instances} instances · load {load} ({pace:.3} × recorded) · pooled {pooled:.4}");
        let [(mean_by, mean), (p90_by, p90)] =
            [best(scenario, |cell| cell.ttft_mean.mean), best(scenario, |cell| cell.ttft_p90.mean)];
        println!("    best peers: mean {mean:.3} {mean_by}, p90 {p90:.3} {p90_by}");
        if let (Some(alone), Some(alone_p90)) = (scenario.pooled_ttft_mean, scenario.pooled_ttft_p90) {
            let (over, over_p90) = (alone / mean, alone_p90 / p90);
            println!(
                "    alone, with the pooled cache: mean {alone:.3} ({over:.3}), p90 {alone_p90:.3} ({over_p90:.3})"
            );
        }
        let mut cells: Vec<_> = scenario.cells.iter().collect();
        cells.sort_by(|a, b| a.ttft_mean.mean.total_cmp(&b.ttft_mean.mean));
        for (place, cell) in cells.iter().enumerate().filter(|(place, cell)| *place < 5 || is_ours(cell)) {
            println!(
                "  {:>2} {:<40} mean {:.3} ± {:.3} ({:.3})  p90 {:.3} ± {:.3} ({:.3})  p99 {:.2}  e2e {:.2}  hit {:.4}  max/mean {:.2}",
                place + 1,
                cell.policy,
                cell.ttft_mean.mean,
                cell.ttft_mean.deviation,
                cell.ttft_mean.mean / mean,
                cell.ttft_p90.mean,
                cell.ttft_p90.deviation,
                cell.ttft_p90.mean / p90,
                cell.ttft_p99.mean,
                cell.end_to_end_mean.mean,
                cell.token_hit_ratio.mean,
                cell.requests_max_over_mean.mean
            );
        }
    }
    let qwen = |scenario: &&Scenario| scenario.trace.starts_with("qwen");
    let groups: [(&str, Vec<&Scenario>); 3] = [
        ("over the best peer", scenarios.iter().collect()),
        ("Mooncake only", scenarios.iter().filter(|scenario| !qwen(scenario)).collect()),
        ("Qwen only", scenarios.iter().filter(qwen).collect()),
    ];
    for (name, group) in groups {
        print_standings(name, &group);
    }
}

fn print_standings(name: &str, scenarios: &[&Scenario]) {
    let Some(first) = scenarios.first() else { return };
    let name = format!("{name}, {} scenarios", scenarios.len());
    println!(
        "\n{name:<44} {:>6} {:>7}  {:>6} {:>7}  {:>6} {:>7}  {:>6} {:>6}",
        "mean", "worst", "p90", "worst", "e2e", "worst", "pooled", "least"
    );
    let row = |position: usize| {
        let versus = |of: fn(&Cell) -> f64| {
            let ratio = |scenario: &&Scenario| of(&scenario.cells[position]) / best(scenario, of).1;
            let product: f64 = scenarios.iter().map(|scenario| ratio(scenario).ln()).sum();
            let worst = scenarios.iter().map(ratio).fold(0.0, f64::max);
            ((product / scenarios.len() as f64).exp(), worst)
        };
        let share =
            |scenario: &&&Scenario| scenario.cells[position].token_hit_ratio.mean / scenario.pooled_token_hit_ratio;
        let shares: Vec<f64> =
            scenarios.iter().filter(|of| of.pooled_token_hit_ratio > 0.0).map(|of| share(&of)).collect();
        let mean_share = shares.iter().sum::<f64>() / shares.len() as f64;
        let least_share = shares.into_iter().fold(f64::INFINITY, f64::min);
        let figures = [
            versus(|cell| cell.ttft_mean.mean),
            versus(|cell| cell.ttft_p90.mean),
            versus(|cell| cell.end_to_end_mean.mean),
        ];
        (figures, mean_share, least_share, &first.cells[position].policy)
    };
    let mut rows: Vec<_> = (0..first.cells.len()).map(row).collect();
    rows.sort_by(|a, b| a.0[0].0.total_cmp(&b.0[0].0));
    for ([mean, p90, e2e], pooled, least, policy) in rows {
        println!(
            "{policy:<44} {:>6.3} {:>7.3}  {:>6.3} {:>7.3}  {:>6.3} {:>7.3}  {pooled:>6.3} {least:>6.3}",
            mean.0, mean.1, p90.0, p90.1, e2e.0, e2e.1
        );
    }
}
