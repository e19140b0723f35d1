//! Each policy does what its source says, on small fleets, and parameters read back.

use std::collections::BTreeSet;
use std::time::Duration;
use warmpath::routing::block::{ContentHash, EngineHash, Namespace};
use warmpath::routing::policy::{PolicyKind, PolicySpec};
use warmpath::routing::{
    Config, Content, Decision, Fact, InstanceId, Knowledge, Parent, Prompt, Reported, Request, Router, SessionKey,
    Tier, Time,
};

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

/// Computing again what another instance has costs by the time that the fleet has left; not where requests in flight are using it.
#[test]
fn a_second_copy_costs_what_time_is_worth() {
    let costs = |policy: &str, seconds_given: f64, in_use: bool| {
        let router = router(policy, 2);
        store(&router, 1, 0..100);
        let second = Time::ZERO + Duration::from_secs(600);
        // Both instances are given so many seconds of work every second.
        let tokens = (15_928.0 * seconds_given) as u32;
        for at in (0..600).map(|at| Time::ZERO + Duration::from_secs(at)) {
            for id in 0..2 {
                let contents = [ContentHash(1_000_000 + id)];
                let prompt = Prompt::Blocks { contents: &contents, tokens: tokens.max(17) };
                let request = Request { namespace: Namespace::of_model(MODEL), prompt, session: None };
                let Decision { request, expected_ttft, .. } = router.route(&request, at).unwrap();
                router.learn(Fact::FirstToken { request }, at + expected_ttft).unwrap();
                router.learn(Fact::Finished { request, output_tokens: 1 }, at + expected_ttft).unwrap();
            }
        }
        let contents: Vec<ContentHash> = (0..100).map(ContentHash).collect();
        let prompt = Prompt::Blocks { contents: &contents, tokens: 1601 };
        let request = Request { namespace: Namespace::of_model(MODEL), prompt, session: None };
        if in_use {
            let placed = router.route(&request, second).unwrap();
            assert_eq!(placed.instance, InstanceId(1));
            router.learn(Fact::FirstToken { request: placed.request }, second).unwrap();
        }
        router.explain(&request, &|_| true, second).unwrap().costs.unwrap()
    };
    let copy = |seconds_given, in_use| {
        let (with, without) =
            (costs("prefix_cost", seconds_given, in_use), costs("prefix_cost:copy=0", seconds_given, in_use));
        assert_eq!(with[1], without[1], "who has it copies nothing");
        with[0] - without[0]
    };
    let (idle, half, full) = (copy(0.0, false), copy(0.3, false), copy(0.7, false));
    assert!(idle < half / 5.0 && half < full / 2.0 && full > 0.05, "{idle} {half} {full}");
    assert_eq!(copy(0.7, true), 0.0);
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
    assert_eq!("prefix_cost".parse::<PolicySpec>().unwrap().hold(), Some(0.4));
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
