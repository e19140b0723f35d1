//! Studies of a workload: what every scenario serves and says, under every condition; bounds, goodput and advice add up.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use warmpath::replay::{Alone, Experiment, Fleet, Ledger, Loads, Setup, Slo, Study, Workload, advise};
use warmpath::routing::policy::{PolicyKind, PolicySpec};
use warmpath::sim::{Conditions, Eviction, Preset};
use warmpath::trace::{Synthetic, SyntheticPreset, Trace};

fn workload(limit: u64) -> Workload {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/mooncake/conversation_trace.jsonl.gz");
    Workload::load(&Trace::open(file).unwrap(), Some(limit), true).unwrap()
}

fn setup(policy: PolicyKind, conditions: Conditions) -> Setup {
    let fleet =
        Fleet { instances: 4, blocks: 500, preset: Preset::default(), fitted: None, eviction: Eviction::default() };
    Setup { fleet, policy: policy.into(), time_scale: 0.7, seed: 3, conditions, slo: Slo::default() }
}

#[test]
fn every_policy_serves_every_request_however_badly_it_is_told() {
    let workload = workload(400);
    let bad = Conditions {
        index_delay: Duration::from_millis(700),
        events_lost: 0.2,
        report_delay: Duration::from_secs(1),
        answer_delay: Duration::from_secs(1),
        routers: 3,
    };
    for policy in PolicyKind::ALL {
        for conditions in [Conditions::default(), bad] {
            let outcome = setup(policy, conditions).replay(&workload, &|_| {});
            assert_eq!(outcome.requests + outcome.refused_too_large, 400, "{policy}");
            assert!(outcome.energy.watt_hours > 0.0 && outcome.goodput <= 1.0);
        }
    }
}

#[test]
fn each_condition_shows() {
    let workload = workload(1500);
    let told = |conditions| {
        let usual = setup(PolicyKind::PrefixCost, conditions);
        Setup { fleet: Fleet { blocks: 5000, ..usual.fleet }, time_scale: 3.0, ..usual }.replay(&workload, &|_| {})
    };
    let usual = told(Conditions::default());
    assert_eq!(usual, told(Conditions::default()));
    let lost = told(Conditions { events_lost: 1.0, ..Conditions::default() });
    assert!(lost.token_hit_ratio < 0.9 * usual.token_hit_ratio, "{} {}", lost.token_hit_ratio, usual.token_hit_ratio);
    let apart = told(Conditions { routers: 8, ..Conditions::default() });
    assert!(apart.ttft_seconds.mean > usual.ttft_seconds.mean);
    let late = Duration::from_secs(30);
    assert_ne!(told(Conditions { index_delay: late, ..Conditions::default() }), usual);
    assert_ne!(told(Conditions { answer_delay: late, ..Conditions::default() }), usual);
    // Who prices KV blocks in use sees them where they run out.
    let scarce = |report_delay| {
        let conditions = Conditions { report_delay, ..Conditions::default() };
        setup(PolicyKind::PrefixCost, conditions).replay(&workload, &|_| {})
    };
    assert_ne!(scarce(late), scarce(Duration::ZERO));
}

#[test]
fn first_tokens_that_are_told_late_do_not_pass_for_slow_instances() {
    // Some instance always has a request that is answered and not told of: no queue ever seems to be empty.
    let synthetic = Synthetic::generate(SyntheticPreset::QwenB, 1, 1050.0);
    let workload = Workload::synthetic("qwen-b", &synthetic, Some(15_000)).unwrap();
    let seconds = |answer_delay| {
        let conditions = Conditions { answer_delay, ..Conditions::default() };
        let usual = setup(PolicyKind::PrefixCost, conditions);
        let blocks = 1_024_000 / workload.block_size().tokens();
        let outcome =
            Setup { fleet: Fleet { blocks, ..usual.fleet }, time_scale: 0.33, ..usual }.replay(&workload, &|_| {});
        outcome.ttft_seconds.mean
    };
    let (late, soon) = (seconds(Duration::from_secs(1)), seconds(Duration::ZERO));
    assert!(late < 1.5 * soon, "{late} for {soon}");
}

fn study(loads: Loads) -> Study {
    Study {
        workloads: vec![workload(300)],
        instances: vec![2, 4],
        blocks: Some(400),
        preset: Preset::default(),
        fitted: None,
        eviction: Eviction::default(),
        loads,
        policies: vec![PolicyKind::PrefixCost.into(), PolicyKind::LMetric.into(), PolicyKind::RoundRobin.into()],
        seeds: vec![1, 2],
        conditions: Conditions::default(),
        slo: Slo::default(),
    }
}

#[test]
fn a_study_has_a_scenario_for_each_place_and_load_and_says_the_same_twice() {
    let study = study(Loads::OfCapacity(vec![0.4, 0.8]));
    let report = study.run(&|_, _| {}).unwrap();
    let places: Vec<(u16, Option<f64>)> = report.scenarios.iter().map(|s| (s.instances, s.load)).collect();
    assert_eq!(places, [(2, Some(0.4)), (2, Some(0.8)), (4, Some(0.4)), (4, Some(0.8))]);
    for pair in report.scenarios.chunks(2) {
        assert!((pair[1].requests_per_second / pair[0].requests_per_second - 2.0).abs() < 1e-9);
        assert!(pair[0].pooled_token_hit_ratio <= pair[0].ideal_token_hit_ratio);
    }
    let best = report.standings[1].ttft_mean.geometric_mean.min(report.standings[2].ttft_mean.geometric_mean);
    assert!(best >= 1.0 && report.standings.iter().all(|s| s.ttft_mean.worst >= s.ttft_mean.geometric_mean));

    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::to_string(&study.run(&|_, _| {}).unwrap()).unwrap(), json);
    let again: warmpath::replay::StudyReport = serde_json::from_str(&json).unwrap();
    assert_eq!(again, report);
    let comparison = report.compare(&again);
    assert_eq!(comparison.matches("(+0.0 %)").count(), 3 * 3 * 4, "{comparison}");
    let markdown = report.to_markdown();
    assert_eq!(markdown.matches("| prefix_cost |").count(), 5);
    assert!(markdown.contains("**") && markdown.contains(" ± "));
    let html = report.to_html();
    // Four plots for each of two fleets, and one of balance over time for each of four scenarios.
    assert_eq!((html.matches("<svg").count(), html.matches("</svg>").count()), (12, 12));
    let balance = |policy: usize| &report.scenarios[3].cells[policy].balance_over_time;
    assert!(balance(0).len() >= 48 && balance(0).iter().all(|most| (1.0..=4.0).contains(most)), "{:?}", balance(0));
    assert!(!html.contains("NaN") && !html.contains("http"), "a page that needs nothing else");
}

#[test]
fn goodput_is_the_share_of_requests_answered_in_time() {
    let workload = workload(1000);
    let hour = Duration::from_secs(3600);
    let goodput = |ttft, tpot| {
        let slo = Slo { ttft, tpot: Some(tpot) };
        let setup = Setup { slo, ..setup(PolicyKind::PrefixCost, Conditions::default()) };
        let (mut good, mut all) = (0, 0);
        let outcome = setup.replay_each(&workload, &|_| {}, &mut |served| {
            let decode = served.finished.since(served.first_token);
            let in_time = decode <= slo.tpot.unwrap() * (served.output_tokens - 1);
            good += u32::from(served.first_token.since(served.arrived) <= slo.ttft && in_time);
            all += 1;
        });
        assert_eq!(outcome.goodput, f64::from(good) / f64::from(all), "what is held counts from when it came");
        outcome
    };
    let all = goodput(hour, hour);
    let a_little_more = |seconds| Duration::from_secs_f64(seconds) + Duration::from_micros(1);
    let [ttft, tpot] = [all.ttft_seconds.p50, all.tpot_seconds.p50].map(a_little_more);
    let shares = [(Duration::ZERO, hour), (ttft, tpot), (ttft, hour), (hour, hour)].map(|(a, b)| goodput(a, b).goodput);
    assert_eq!((shares[0], shares[3]), (0.0, 1.0));
    assert!(shares[1] < shares[2] && (0.5..0.51).contains(&shares[2]), "{shares:?}");
}

/// A study that was cut off in the middle of a line does the rest, and only that, and finds the same.
#[test]
fn a_study_goes_on_where_it_was_cut_off() {
    let study = study(Loads::OfCapacity(vec![0.4, 0.8]));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.jsonl");
    let whole = study.resume(&Ledger::open(&path).unwrap(), &|_, _| {}).unwrap();
    assert_eq!(whole, study.run(&|_, _| {}).unwrap());
    let text = std::fs::read_to_string(&path).unwrap();
    // Two capacities; two fleets, two loads, three policies and two seeds.
    assert_eq!(text.lines().count(), 2 + 24);
    let cut: usize = text.lines().take(12).map(|line| line.len() + 1).sum();
    std::fs::write(&path, &text[..cut + 40]).unwrap();
    let (steps, replayed) = (AtomicU64::new(0), AtomicU64::new(0));
    let progress = |requests, total| {
        steps.fetch_add(u64::from(requests == 1 && total > 0), Ordering::Relaxed);
        replayed.fetch_add(requests, Ordering::Relaxed);
    };
    assert_eq!(study.resume(&Ledger::open(&path).unwrap(), &progress).unwrap(), whole);
    let each = study.workloads[0].requests();
    assert_eq!((steps.into_inner(), replayed.into_inner()), (14 * each, 24 * each), "ten were there already");
    let again = std::fs::read_to_string(&path).unwrap();
    let sorted = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<String>>();
    assert_eq!(sorted(&again), sorted(&text));
    // Another study finds only what is the same.
    let other = Study { seeds: vec![2, 3], ..study.clone() };
    assert_eq!(other.resume(&Ledger::open(&path).unwrap(), &|_, _| {}).unwrap(), other.run(&|_, _| {}).unwrap());
    std::fs::write(&path, "{\"key\":\"a\"}\n").unwrap();
    assert!(Ledger::open(&path).unwrap_err().to_string().starts_with("line 1 of "));
    std::fs::write(&path, "something else").unwrap();
    assert!(Ledger::open(&path).is_err(), "nobody's file is overwritten");
}

#[test]
fn advice_is_the_smallest_fleet_that_answers_in_time() {
    let asked = Study { instances: vec![6], seeds: vec![0], ..study(Loads::TimeScales(vec![1.0])) };
    let advice = advise(&asked, &|_, _| {}).unwrap();
    let slow = Slo { ttft: Duration::from_secs(3600), tpot: None };
    let patient = advise(&Study { slo: slow, ..asked.clone() }, &|_, _| {}).unwrap();
    assert_eq!(patient.instances, Some(1), "whoever waits an hour needs one");
    let hasty = Slo { ttft: Duration::from_micros(1), tpot: None };
    let hasty = advise(&Study { slo: hasty, ..asked }, &|_, _| {}).unwrap();
    assert_eq!(hasty.instances, None);
    assert!(hasty.to_text().starts_with("more instances than were tried, policy "));
    assert!(advice.evidence.len() >= 4 && advice.blocks >= 400);
}

#[test]
fn eviction_policies_differ_and_hindsight_is_best() {
    let workload = workload(3000);
    let pooled = |eviction| workload.pooled_token_hit_ratio(2000, eviction, None);
    let hits = Eviction::ALL.map(pooled);
    assert!(pooled(Eviction::Lru) > pooled(Eviction::Fifo), "{hits:?}");
    assert!(hits.iter().all(|hits| *hits <= pooled(Eviction::Clairvoyant)), "{hits:?}");
    let replayed = |eviction| {
        let usual = setup(PolicyKind::PrefixCost, Conditions::default());
        let setup = Setup { fleet: Fleet { eviction, ..usual.fleet }, ..usual };
        setup.replay(&workload, &|_| {}).token_hit_ratio
    };
    let replayed = [Eviction::Lru, Eviction::Lfu, Eviction::S3Fifo, Eviction::Clairvoyant].map(replayed);
    assert!(replayed.iter().all(|hits| replayed.iter().filter(|other| *other == hits).count() == 1), "{replayed:?}");
}

#[test]
fn the_pooled_cache_is_between_nothing_and_everything() {
    let workload = workload(3000);
    let ratios =
        [0, 100, 1000, 10_000, 1 << 40].map(|blocks| workload.pooled_token_hit_ratio(blocks, Eviction::Lru, None));
    assert!(ratios[0] == 0.0 && ratios.is_sorted(), "{ratios:?}");
    assert_eq!(ratios[4], workload.ideal.reachable_token_hit_ratio);
    // An engine computes the last token itself and caches full blocks only; but it caches outputs.
    let workload = workload.with_unknown_outputs();
    let reachable = workload.pooled_token_hit_ratio(1 << 40, Eviction::Lru, None);
    assert_eq!(reachable, workload.ideal.reachable_token_hit_ratio);
    assert!(reachable <= workload.ideal.token_hit_ratio && reachable > 0.99 * workload.ideal.token_hit_ratio);
    assert!(ratios[4] > reachable);
}

#[test]
fn what_is_not_answered_yet_is_not_hit_and_nobody_answers_sooner_than_alone() {
    let workload = workload(3000);
    let usual = setup(PolicyKind::PrefixCost, Conditions::default());
    let setup = Setup { fleet: Fleet { blocks: 100_000, ..usual.fleet }, ..usual };
    let blocks = u64::from(setup.fleet.blocks) * u64::from(setup.fleet.instances);
    let alone = |time_scale| Alone { model: setup.fleet.preset.step_model(), time_scale };
    let hits = |alone: Option<Alone>| workload.pooled_token_hit_ratio(blocks, Eviction::Lru, alone.as_ref());
    let [slow, fast] = [100.0, 0.01].map(|scale| hits(Some(alone(scale))));
    assert!(fast < slow && slow <= hits(None), "{fast} {slow} {}", hits(None));
    let best = workload.pooled_ttft(blocks, &alone(setup.time_scale));
    let outcome = setup.replay(&workload, &|_| {});
    assert!(outcome.token_hit_ratio <= hits(Some(alone(setup.time_scale))));
    assert!(
        outcome.ttft_seconds.mean > best.mean && outcome.ttft_seconds.p90 > best.p90,
        "{:?} {best:?}",
        outcome.ttft_seconds
    );
}

#[test]
fn seeds_move_arrivals_within_their_timestamps_only() {
    let workload = workload(200);
    let times = |seed| workload.arrivals(1.0, seed).map(|arrival| arrival.at).collect::<Vec<_>>();
    let (even, moved) = (times(0), times(1));
    assert!(even.is_sorted() && moved.is_sorted() && even != moved);
    // Mooncake rounds to three seconds.
    assert!(even.iter().zip(&moved).all(|(a, b)| a.since(*b).max(b.since(*a)) < Duration::from_secs(4)));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/mooncake/conversation_trace.jsonl.gz");
    let fleet =
        Fleet { instances: 2, blocks: 1000, preset: Preset::default(), fitted: None, eviction: Eviction::default() };
    let trace = Trace::open(path).unwrap();
    let experiment = Experiment {
        trace,
        fleet,
        time_scale: 1.0,
        limit: Some(50),
        seed: 0,
        spread_ties: true,
        unknown_outputs: false,
    };
    let spec: PolicySpec = "dynamo:overlap_weight=20".parse().unwrap();
    assert_eq!(experiment.run(&[spec], &|_| {}).unwrap().outcomes[0].policy, "dynamo:overlap_weight=20");
}
