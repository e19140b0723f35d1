//! Each policy does what its source says, on small fleets; parameters read back; studies add up.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use warmpath::replay::{Alone, Experiment, Fleet, Ledger, Loads, Setup, Slo, Study, Workload, advise};
use warmpath::routing::block::{BlockSize, ContentHash, EngineHash, Namespace};
use warmpath::routing::policy::{PolicyKind, PolicySpec};
use warmpath::routing::{
    Config, Content, Decision, Fact, InstanceId, Knowledge, Parent, Prompt, Reported, Request, Router, SessionKey,
    Tier, Time,
};
use warmpath::sim::{Arrival, Category, Cluster, ClusterConfig, Conditions, Eviction, InstanceConfig, Preset};
use warmpath::trace::{Synthetic, SyntheticPreset, Trace};

const MODEL: &str = "m";

fn router(policy: &str, instances: u16) -> Router {
    let PolicySpec { kind, tuning } = policy.parse().unwrap();
    let router = Router::new(Config { policy: kind, tuning, ..Config::default() });
    for instance in (0..instances).map(InstanceId) {
        router.learn(Fact::Joined { instance, model: MODEL, knowledge: Knowledge::Exact }, Time::ZERO).unwrap();
    }
    router
}

fn ask(router: &Router, ids: std::ops::Range<u64>, tokens: u32, session: Option<u64>) -> Decision {
    let contents: Vec<ContentHash> = ids.map(ContentHash).collect();
    let prompt = Prompt::Blocks { contents: &contents, tokens };
    let session = session.map(SessionKey);
    router.route(&Request { namespace: Namespace::of_model(MODEL), prompt, session }, Time::ZERO).unwrap()
}

fn chosen(router: &Router, ids: std::ops::Range<u64>, tokens: u32) -> u16 {
    ask(router, ids, tokens, None).instance.0
}

fn store(router: &Router, instance: u16, ids: std::ops::Range<u64>) {
    store_in(router, instance, Tier::Gpu, ids);
}

fn store_in(router: &Router, instance: u16, tier: Tier, ids: std::ops::Range<u64>) {
    let names: Vec<EngineHash> = ids.clone().map(EngineHash).collect();
    let contents: Vec<ContentHash> = ids.map(ContentHash).collect();
    let parent = Parent::Root { lora: None, cache_salt: None };
    let content = Content::Hashes(&contents);
    router
        .learn(Fact::Stored { instance: InstanceId(instance), tier, parent, blocks: &names, content }, Time::ZERO)
        .unwrap();
}

/// The policies that are meant to follow a long cached prefix on an idle fleet.
const FOLLOWERS: [&str; 14] = [
    "longest_prefix",
    "sglang",
    "smg",
    "dynamo",
    "llmd",
    "llmd_affinity",
    "aibrix",
    "mooncake",
    "preble",
    "lmetric",
    "gorgo",
    "smetric",
    "least_tokens",
    "prefix_cost",
];

#[test]
fn who_knows_prefixes_follows_them_on_an_idle_fleet() {
    for policy in FOLLOWERS {
        // SMetric multiplies by requests in flight, so that an idle fleet is all the same to it.
        if policy == "smetric" {
            continue;
        }
        let router = router(policy, 4);
        store(&router, 2, 0..100);
        assert_eq!(chosen(&router, 0..100, 1601), 2, "{policy}");
    }
}

#[test]
fn a_hot_prefix_is_copied_once_one_instance_is_not_enough() {
    let router = router("prefix_cost", 4);
    store(&router, 2, 0..1000);
    let asked: Vec<u16> = (0..40).map(|_| chosen(&router, 0..1000, 24_000)).collect();
    assert_eq!(asked[..2], [2, 2], "where it is, while that is cheaper");
    let holders: BTreeSet<u16> = asked.iter().copied().collect();
    assert_eq!(holders.len(), 4, "and then everywhere: {asked:?}");
}

#[test]
fn what_is_not_known_exactly_counts_in_part() {
    let router = router("prefix_cost", 2);
    store(&router, 0, 0..1000);
    store(&router, 1, 0..1000);
    let doubt = |instance, knowledge| {
        router.learn(Fact::Known { instance: InstanceId(instance), knowledge }, Time::ZERO).unwrap();
        let first = ask(&router, 0..1000, 16_001, None);
        router.learn(Fact::Abandoned { request: first.request }, Time::ZERO).unwrap();
        first.instance.0
    };
    assert_eq!(doubt(0, Knowledge::Degraded), 1);
    assert_eq!((doubt(0, Knowledge::Exact), doubt(1, Knowledge::Degraded)), (0, 0));
}

/// What is cached in a slower tier spares less, and so much less is waited for it.
#[test]
fn ours_weighs_a_cached_prefix_by_its_tier() {
    let router = router("prefix_cost", 4);
    store_in(&router, 1, Tier::Storage, 0..1000);
    assert_eq!(chosen(&router, 0..1000, 16_001), 1, "a disk is better than nothing");
    let router = self::router("prefix_cost", 4);
    store_in(&router, 1, Tier::Storage, 0..1000);
    store_in(&router, 2, Tier::Cpu, 0..1000);
    assert_eq!(chosen(&router, 0..1000, 16_001), 2, "the host's memory is better than a disk");
    let router = self::router("prefix_cost", 4);
    store_in(&router, 2, Tier::Cpu, 0..1000);
    store(&router, 3, 0..1000);
    assert_eq!(chosen(&router, 0..1000, 16_001), 3, "and the GPU's is best");
    // Some prefill is before it where most is cached: it waits for the GPU's memory and not for the disk.
    for (tier, goes) in [(Tier::Gpu, true), (Tier::Storage, false)] {
        let router = self::router("prefix_cost", 2);
        store(&router, 0, 5000..5400);
        store_in(&router, 0, tier, 0..1000);
        assert_eq!(chosen(&router, 5000..5400, 20_000), 0, "thirteen thousand uncached tokens are before it");
        assert_eq!(chosen(&router, 0..1000, 16_001) == 0, goes, "{tier:?}");
    }
}

#[test]
fn a_cold_burst_with_one_prefix_goes_together_while_that_is_cheaper() {
    let router = router("prefix_cost", 8);
    let first = ask(&router, 0..1000, 16_001, None);
    let second = ask(&router, 0..1000, 16_001, None);
    assert_eq!((first.overlap_tokens, second.instance, second.overlap_tokens), (0, first.instance, 16_000));
    router.learn(Fact::Finished { request: second.request, output_tokens: 1 }, Time::ZERO).unwrap();
    router.learn(Fact::Abandoned { request: first.request }, Time::ZERO).unwrap();
    assert_eq!(ask(&router, 0..1000, 16_001, None).overlap_tokens, 0, "who ended holds nothing");
}

#[test]
fn sessions_stay_where_they_are_until_their_instance_leaves() {
    for policy in ["session", "bounded_hash_session", "dualmap:deadline_seconds=1000"] {
        let router = router(policy, 4);
        let homes: Vec<u16> = (0..20).map(|session| ask(&router, 0..0, 50, Some(session)).instance.0).collect();
        assert!((0..4).any(|instance| homes.iter().filter(|home| **home == instance).count() < 20), "{policy}");
        if policy == "session" {
            let again: Vec<u16> = (0..20).map(|session| ask(&router, 0..0, 50, Some(session)).instance.0).collect();
            assert_eq!(again, homes);
            router.learn(Fact::Left { instance: InstanceId(homes[0]) }, Time::ZERO).unwrap();
            assert_ne!(ask(&router, 0..0, 50, Some(0)).instance.0, homes[0]);
        }
    }
}

#[test]
fn bounded_hashing_keeps_a_prefix_together_up_to_its_bound() {
    let router = router("bounded_hash_prefix:load_factor=2", 4);
    let mut counts = [0; 4];
    for _ in 0..40 {
        counts[chosen(&router, 0..20, 321) as usize] += 1;
    }
    let most = *counts.iter().max().unwrap();
    assert!((19..=21).contains(&most), "twice the even share of 10: {counts:?}");
}

#[test]
fn sglang_gives_up_its_match_when_the_fleet_is_out_of_balance() {
    let router = router("sglang:imbalance_requests=3", 2);
    store(&router, 1, 0..100);
    let taken: Vec<u16> = (0..5).map(|_| chosen(&router, 0..100, 1601)).collect();
    assert_eq!(taken, [1, 1, 1, 1, 0]);
}

#[test]
fn llmd_reads_reports_and_weighs_them() {
    let report = |router: &Router, instance: u16, waiting: u32, cache_usage: f64| {
        let load = Reported { waiting, running: 1, cache_usage };
        router.learn(Fact::Reported { instance: InstanceId(instance), load }, Time::ZERO).unwrap();
    };
    let router = router("llmd:prefix=0:kv=0", 2);
    report(&router, 0, 5, 0.0);
    report(&router, 1, 1, 1.0);
    assert_eq!([(); 3].map(|()| chosen(&router, 0..0, 50)), [1; 3]);
    let router = self::router("llmd:prefix=0:queue=0", 2);
    report(&router, 0, 5, 0.2);
    report(&router, 1, 1, 0.9);
    assert_eq!([(); 3].map(|()| chosen(&router, 0..0, 50)), [0; 3]);
}

#[test]
fn llmds_affinity_breaks_when_it_costs_too_much() {
    let router = router("llmd_affinity:penalty_seconds_max=1:tokens_per_second=1000", 2);
    store(&router, 0, 0..10);
    // Each request leaves one uncached token at the holder: 1,001 of them are more than a second behind.
    let moved = (0..1100).position(|_| chosen(&router, 0..10, 161) == 1);
    assert_eq!(moved, Some(1001));
}

#[test]
fn an_instance_that_proves_slow_is_given_less() {
    let router = router("prefix_cost", 2);
    let mut now = Time::ZERO;
    let mut counts = [0; 2];
    for _ in 0..100 {
        let prompt = Prompt::Blocks { contents: &[], tokens: 8000 };
        let request = Request { namespace: Namespace::of_model(MODEL), prompt, session: None };
        let decision = router.route(&request, now).unwrap();
        counts[decision.instance.index()] += 1;
        now = now + Duration::from_millis(if decision.instance.0 == 0 { 2000 } else { 500 });
        router.learn(Fact::FirstToken { request: decision.request }, now).unwrap();
        router.learn(Fact::Finished { request: decision.request, output_tokens: 1 }, now).unwrap();
    }
    assert!(4 * counts[0] < counts[1], "{counts:?}");
}

#[test]
fn policies_with_parameters_read_back_as_they_were_written() {
    for kind in PolicyKind::ALL {
        assert_eq!(kind.name().parse::<PolicySpec>().unwrap(), PolicySpec::from(kind));
        for parameter in kind.parameters() {
            let text = format!("{kind}:{}=0.75", parameter.name);
            assert_eq!(text.parse::<PolicySpec>().unwrap().to_string(), text);
        }
    }
    let held: PolicySpec = "lmetric:hold=0.25".parse().unwrap();
    assert_eq!((held.to_string().as_str(), held.hold()), ("lmetric:hold=0.25", Some(0.25)));
    assert_eq!("lmetric".parse::<PolicySpec>().unwrap().hold(), None, "peers hold nothing");
    assert_eq!("prefix_cost".parse::<PolicySpec>().unwrap().hold(), Some(1.0));
    assert_eq!("prefix_cost:hold=0".parse::<PolicySpec>().unwrap().hold(), None);
    let error = |text: &str| text.parse::<PolicySpec>().unwrap_err().to_string();
    assert_eq!(error("random:hold=-1"), "parameter hold of policy random must be a number of at least 0, not \"-1\"");
    assert!(error("nope").starts_with("unknown policy \"nope\"; there are random, "));
    assert_eq!(error("dynamo:fast"), "\"fast\" after policy dynamo is not name=value");
    assert_eq!(
        error("dynamo:weight=1"),
        "policy dynamo has no parameter \"weight\"; it has overlap_weight, temperature"
    );
    assert_eq!(error("random:a=1"), "policy random has no parameter \"a\"; it has none");
    for bad in ["x", "-1", "inf", "NaN", ""] {
        let text = format!("dynamo:temperature={bad}");
        let expected = format!("parameter temperature of policy dynamo must be a number of at least 0, not {bad:?}");
        assert_eq!(error(&text), expected);
    }
}

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

/// Of two that come while a long prefill runs, the shorter is placed first; all are served, with what they waited counted.
#[test]
fn a_router_that_holds_places_the_shorter_prefill_first() {
    let served = |policy: &str| {
        let PolicySpec { kind, tuning } = policy.parse().unwrap();
        let model = Preset::default().step_model();
        let block_size = BlockSize::DEFAULT;
        let instance = InstanceConfig { block_size, blocks: 20_000, sequences_max: 64, eviction: Eviction::Lru, model };
        let router = Config { policy: kind, tuning, prefill: model.prefill, ..Config::default() };
        let mut cluster =
            Cluster::new(ClusterConfig { instances: 1, instance, router, conditions: Conditions::default() });
        // The first is soon known to be served: only then is anyone held.
        for (at, prompt_tokens) in [(0.0, 100), (5.0, 32_000), (5.1, 64_000), (5.2, 500)] {
            let (at, category) = (Time::from_secs_f64(at), Category::default());
            let arrival =
                Arrival { at, prompt_tokens, output_tokens: 2, contents: Vec::new(), session: None, category };
            cluster.arrive(arrival).unwrap();
        }
        cluster.drain();
        let mut served = cluster.take_served();
        served.sort_by_key(|request| request.first_token);
        let lengths: Vec<u32> = served.iter().map(|request| request.decision.prompt_tokens).collect();
        let waits: Vec<Duration> = served.iter().map(|request| request.first_token.since(request.arrived)).collect();
        (lengths, waits)
    };
    let (at_once, _) = served("prefix_cost:hold=0");
    assert_eq!(at_once, [100, 32_000, 64_000, 500]);
    let (held, waits) = served("prefix_cost:hold=0.2");
    assert_eq!(held, [100, 32_000, 500, 64_000]);
    assert!(waits[2] > Duration::from_secs(1), "the wait at the router counts: {waits:?}");
}
