//! Who wins: every policy on the Mooncake traces, 4, 8 and 16 instances, three loads under saturation, three seeds.
//!
//! Each figure is a policy's over that of the best peer *of that scenario*, a bar that no one peer meets: geometric mean
//! over the scenarios, and the worst. Instances are Qwen3-32B on 2 × H100 with a cache of a million tokens; load is 0.5, 0.7
//! and 0.9 of the measured capacity of Mooncake's policy; seeds move arrivals within the traces' rounding of time.
//!
//! `cargo bench --bench policies`; `-- --quick` replays the first 1,500 requests to 4 instances with one seed;
//! `-- --stale` tells load a second late and loses a hundredth of the cache events, for ours only;
//! `-- --policies prefix_cost,lmetric` compares these.

use std::path::Path;
use std::time::Duration;
use warmpath::replay::{Loads, Slo, Study, StudyReport, Workload};
use warmpath::routing::policy::{PolicyKind, PolicySpec};
use warmpath::sim::{Conditions, Eviction, Preset};
use warmpath::trace::Trace;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let after =
        |name: &str| arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1));
    let numbers = |name: &str, default: &[f64]| -> Vec<f64> {
        let parse = |text: &String| text.split(',').map(|part| part.parse().expect("a number")).collect();
        after(name).map_or(default.to_vec(), parse)
    };
    let quick = has("--quick");
    let policies: Vec<PolicySpec> = match after("--policies") {
        Some(list) => list.split(',').map(|policy| policy.parse().expect("a policy")).collect(),
        None => PolicyKind::ALL.map(PolicySpec::from).to_vec(),
    };
    let all = ["conversation", "synthetic"];
    let traces = all.iter().filter(|trace| after("--trace").is_none_or(|only| only == *trace));
    let instances = numbers("--instances", if quick { &[4.0] } else { &[4.0, 8.0, 16.0] });
    let seeds = numbers("--seeds", if quick { &[1.0] } else { &[1.0, 2.0, 3.0] });
    let study = Study {
        workloads: traces.map(|name| workload(name, quick.then_some(1500))).collect(),
        instances: instances.iter().map(|count| *count as u16).collect(),
        blocks: Some(numbers("--blocks", &[2000.0])[0] as u32),
        preset: Preset::default(),
        fitted: None,
        eviction: Eviction::default(),
        loads: match after("--scales") {
            Some(_) => Loads::TimeScales(numbers("--scales", &[])),
            None => Loads::OfCapacity(numbers("--loads", &[0.5, 0.7, 0.9])),
        },
        policies,
        seeds: seeds.iter().map(|seed| *seed as u64).collect(),
        conditions: Conditions::default(),
        slo: Slo::default(),
    };
    let report = study.run(&|_, _| {}).expect("the study is sound");
    print(&report);
    if has("--stale") {
        print_stale(&study, &report);
    }
}

fn workload(name: &str, limit: Option<u64>) -> Workload {
    let file = format!("tests/data/mooncake/{name}_trace.jsonl.gz");
    let trace = Trace::open(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("the trace is in the repository");
    Workload::load(&trace, limit, true).expect("the trace is sound")
}

fn print(report: &StudyReport) {
    for scenario in &report.scenarios {
        let load = scenario.load.unwrap_or(1.0);
        let pace = 1.0 / scenario.time_scale;
        let (trace, instances) = (&scenario.trace, scenario.instances);
        println!(
            "{trace} · {instances} instances · load {load} ({pace:.3} × recorded) · pooled {:.4}",
            scenario.pooled_token_hit_ratio
        );
        let mut cells: Vec<_> = scenario.cells.iter().collect();
        cells.sort_by(|a, b| a.ttft_mean.mean.total_cmp(&b.ttft_mean.mean));
        for cell in cells.iter().take(6) {
            println!(
                "    {:<40} mean {:.3} ± {:.3}  p90 {:.3} ± {:.3}  p99 {:.2}  e2e {:.2}  hit {:.4}  max/mean {:.2}",
                cell.policy,
                cell.ttft_mean.mean,
                cell.ttft_mean.deviation,
                cell.ttft_p90.mean,
                cell.ttft_p90.deviation,
                cell.ttft_p99.mean,
                cell.end_to_end_mean.mean,
                cell.token_hit_ratio.mean,
                cell.requests_max_over_mean.mean
            );
        }
    }
    println!(
        "\n{:<44} {:>6} {:>7}  {:>6} {:>7}  {:>6} {:>7}  {:>6}",
        "over the best peer", "mean", "worst", "p90", "worst", "e2e", "worst", "pooled"
    );
    let mut standings: Vec<_> = report.standings.iter().collect();
    standings.sort_by(|a, b| a.ttft_mean.geometric_mean.total_cmp(&b.ttft_mean.geometric_mean));
    for standing in standings {
        let [mean, p90, e2e] = [standing.ttft_mean, standing.ttft_p90, standing.end_to_end_mean];
        println!(
            "{:<44} {:>6.3} {:>7.3}  {:>6.3} {:>7.3}  {:>6.3} {:>7.3}  {:>6.3}",
            standing.policy,
            mean.geometric_mean,
            mean.worst,
            p90.geometric_mean,
            p90.worst,
            e2e.geometric_mean,
            e2e.worst,
            standing.pooled_share_min.unwrap_or(1.0)
        );
    }
}

/// Ours, badly informed, against every peer with perfect information.
fn print_stale(study: &Study, informed: &StudyReport) {
    let conditions = Conditions { load_delay: Duration::from_secs(1), events_lost: 0.01, ..Conditions::default() };
    let ours = PolicySpec::from(PolicyKind::PrefixCost);
    let scales: Vec<f64> = informed.scenarios.iter().map(|scenario| scenario.time_scale).collect();
    let (mut product, mut worst, mut scenarios) = (0.0, 0.0_f64, informed.scenarios.iter());
    let per_place = scales.len() / (study.workloads.len() * study.instances.len());
    for workload in &study.workloads {
        for &instances in &study.instances {
            for _ in 0..per_place {
                let scenario = scenarios.next().expect("as many scenarios as there were");
                let stale = Study {
                    workloads: vec![workload.clone()],
                    instances: vec![instances],
                    loads: Loads::TimeScales(vec![scenario.time_scale]),
                    policies: vec![ours],
                    conditions,
                    ..study.clone()
                };
                let stale = stale.run(&|_, _| {}).expect("the study is sound");
                let peers =
                    scenario.cells.iter().filter(|cell| !cell.policy.starts_with(PolicyKind::PrefixCost.name()));
                let best = peers.map(|cell| cell.ttft_mean.mean).fold(f64::INFINITY, f64::min);
                let ratio = stale.scenarios[0].cells[0].ttft_mean.mean / best;
                product += ratio.ln();
                worst = worst.max(ratio);
            }
        }
    }
    let mean = (product / scales.len() as f64).exp();
    println!(
        "\nours with load 1 s late and 1 % of events lost, over the best peer fully informed: mean {mean:.3}, worst {worst:.3}"
    );
}
