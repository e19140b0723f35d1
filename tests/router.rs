//! The router's laws: reservations come to nothing, policies are total and deterministic, a log replays.

use proptest::prelude::*;
use std::time::Duration;
use warmpath::routing::block::{BlockSize, ContentHash, EngineHash, Namespace};
use warmpath::routing::policy::PolicyKind;
use warmpath::routing::{
    Availability, Config, Content, Decision, Fact, InstanceId, Knowledge, LearnError, Load, Parent, Prompt, Request,
    RequestId, RouteError, Router, Tier, Time,
};

const MODEL: &str = "m";

fn router(policy: PolicyKind, instances: u16) -> Router {
    let router = Router::new(Config { policy, seed: 7, ..Config::default() });
    for instance in (0..instances).map(InstanceId) {
        router.learn(Fact::Joined { instance, model: MODEL, knowledge: Knowledge::Exact }, Time::ZERO).unwrap();
    }
    router
}

fn route(router: &Router, contents: &[ContentHash], tokens: u32, now: Time) -> Result<Decision, RouteError> {
    let prompt = Prompt::Blocks { contents, tokens };
    router.route(&Request { namespace: Namespace::of_model(MODEL), prompt, session: None }, now)
}

fn contents(ids: &[u64]) -> Vec<ContentHash> {
    ids.iter().copied().map(ContentHash).collect()
}

fn store(router: &Router, instance: u16, ids: &[u64]) {
    let names: Vec<EngineHash> = ids.iter().copied().map(EngineHash).collect();
    let parent = Parent::Root { lora: None, cache_salt: None };
    let contents = contents(ids);
    let content = Content::Hashes(&contents);
    let fact = Fact::Stored { instance: InstanceId(instance), tier: Tier::Gpu, parent, blocks: &names, content };
    router.learn(fact, Time::ZERO).unwrap();
}

/// What may happen to a router, by small numbers.
#[derive(Clone, Debug)]
enum Step {
    Route(Vec<u64>, u32),
    /// To the request placed this many requests ago.
    FirstToken(u64),
    Finished(u64),
    Abandoned(u64),
    Stored(u16, Vec<u64>),
    Cleared(u16),
    Changed(u16, bool),
    Left(u16),
    Joined(u16),
    Later(u64),
    TimePassed,
}

fn step() -> impl Strategy<Value = Step> {
    let ids = || prop::collection::vec(0..4_u64, 0..6);
    prop_oneof![
        8 => (ids(), 1..200_u32).prop_map(|(ids, tokens)| Step::Route(ids, tokens)),
        4 => (0..8_u64).prop_map(Step::FirstToken),
        4 => (0..8_u64).prop_map(Step::Finished),
        2 => (0..8_u64).prop_map(Step::Abandoned),
        4 => (0..5_u16, prop::collection::vec(0..4_u64, 1..6)).prop_map(|(i, ids)| Step::Stored(i, ids)),
        1 => (0..5_u16).prop_map(Step::Cleared),
        1 => (0..5_u16, any::<bool>()).prop_map(|(i, ready)| Step::Changed(i, ready)),
        1 => (0..5_u16).prop_map(Step::Left),
        2 => (0..5_u16).prop_map(Step::Joined),
        4 => (0..200_000_u64).prop_map(Step::Later),
        1 => Just(Step::TimePassed),
    ]
}

/// Plays a log; gives every answer.
fn play(policy: PolicyKind, steps: &[Step]) -> (Router, Time, Vec<Option<Decision>>) {
    let router = router(policy, 4);
    let mut now = Time::ZERO;
    let mut placed = 0;
    let mut answers = Vec::new();
    for step in steps {
        let ago = |ago: u64| RequestId(u64::saturating_sub(placed, ago + 1));
        // Errors are part of the game: unknown instances, ended requests, orphans.
        let _ = match step {
            Step::Route(ids, tokens) => {
                let answer = route(&router, &contents(ids), *tokens, now).ok();
                placed += u64::from(answer.is_some());
                answers.push(answer);
                Ok(())
            }
            Step::FirstToken(n) => router.learn(Fact::FirstToken { request: ago(*n) }, now),
            Step::Finished(n) => router.learn(Fact::Finished { request: ago(*n), output_tokens: 9 }, now),
            Step::Abandoned(n) => router.learn(Fact::Abandoned { request: ago(*n) }, now),
            Step::Stored(instance, ids) => {
                let names: Vec<EngineHash> = ids.iter().copied().map(EngineHash).collect();
                let parent = Parent::Root { lora: None, cache_salt: None };
                let contents = contents(ids);
                let content = Content::Hashes(&contents);
                router.learn(
                    Fact::Stored { instance: InstanceId(*instance), tier: Tier::Gpu, parent, blocks: &names, content },
                    now,
                )
            }
            Step::Cleared(instance) => router.learn(Fact::Cleared { instance: InstanceId(*instance) }, now),
            Step::Changed(instance, ready) => {
                let availability = if *ready { Availability::Ready } else { Availability::Draining };
                router.learn(Fact::Changed { instance: InstanceId(*instance), availability }, now)
            }
            Step::Left(instance) => router.learn(Fact::Left { instance: InstanceId(*instance) }, now),
            Step::Joined(instance) => {
                let (instance, knowledge) = (InstanceId(*instance), Knowledge::Exact);
                router.learn(Fact::Joined { instance, model: MODEL, knowledge }, now)
            }
            Step::Later(millis) => {
                now = now + Duration::from_millis(*millis);
                Ok(())
            }
            Step::TimePassed => router.learn(Fact::TimePassed, now),
        };
    }
    (router, now, answers)
}

fn policies() -> impl Strategy<Value = PolicyKind> {
    prop::sample::select(PolicyKind::ALL.to_vec())
}

proptest! {
    #[test]
    fn what_is_explained_is_what_is_then_decided(
        policy in policies(),
        steps in prop::collection::vec(step(), 1..60),
        ids in prop::collection::vec(0..4_u64, 0..6),
        tokens in 0..200_u32,
        allowed in prop::collection::vec(any::<bool>(), 5),
    ) {
        let (router, now, _) = play(policy, &steps);
        let contents = contents(&ids);
        let prompt = Prompt::Blocks { contents: &contents, tokens };
        let request = Request { namespace: Namespace::of_model(MODEL), prompt, session: None };
        let may = |instance: InstanceId| allowed[instance.index()];
        let (before, in_flight) = (router.instances(now), router.in_flight());
        let explained = router.explain(&request, &may, now);
        // Asked twice it says the same, and nothing is booked.
        prop_assert_eq!(explained.as_ref().ok().map(|e| e.chosen), router.explain(&request, &may, now).ok().map(|e| e.chosen));
        prop_assert_eq!((&router.instances(now), router.in_flight()), (&before, in_flight));
        match (explained, router.route_among(&request, &may, now)) {
            (Ok(explained), Ok(decision)) => {
                let all: Vec<InstanceId> = before.iter().map(|state| state.instance).collect();
                let mut told: Vec<InstanceId> = explained.candidates.iter().map(|candidate| candidate.instance).collect();
                prop_assert!(told.iter().all(|&instance| may(instance)), "{:?}", told);
                told.extend(explained.others.iter().map(|other| other.instance));
                told.sort_unstable();
                prop_assert_eq!(told, all);
                let at = explained.candidates.iter().position(|candidate| candidate.instance == explained.chosen).unwrap();
                let chosen = explained.candidates[at];
                let best = explained.candidates.iter().map(|candidate| candidate.overlap_tokens).max();
                prop_assert_eq!(
                    (decision.instance, decision.prompt_tokens, decision.overlap_tokens, Some(decision.best_overlap_tokens)),
                    (chosen.instance, explained.prompt_tokens, chosen.overlap_tokens, best)
                );
                let ttft = Duration::from_secs_f64(chosen.ttft_seconds());
                prop_assert!(decision.expected_ttft.abs_diff(ttft) <= Duration::from_nanos(1));
                if let Some(costs) = explained.costs {
                    prop_assert_eq!(costs.len(), explained.candidates.len());
                }
            }
            (explained, decision) => prop_assert_eq!(explained.err(), decision.err()),
        }
    }

    #[test]
    fn a_log_reproduces_every_decision(policy in policies(), steps in prop::collection::vec(step(), 1..80)) {
        let (_, _, first) = play(policy, &steps);
        let (_, _, second) = play(policy, &steps);
        prop_assert_eq!(first, second);
    }

    #[test]
    fn reservations_are_the_requests_in_flight_and_come_to_nothing(
        policy in policies(),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let (router, now, answers) = play(policy, &steps);
        let loads = router.instances(now);
        let in_flight: u32 = loads.iter().map(|state| state.load.requests()).sum();
        prop_assert_eq!(in_flight as usize, router.in_flight());
        for request in answers.iter().flatten().map(|decision| decision.request) {
            let _ = router.learn(Fact::Abandoned { request }, now);
        }
        prop_assert_eq!(router.in_flight(), 0);
        for state in router.instances(now) {
            // What it was given before stays known; what it has to do is nothing.
            let Load { busy_share, assigned, assigned_tokens, .. } = state.load;
            prop_assert_eq!(state.load, Load { busy_share, assigned, assigned_tokens, ..Load::default() });
        }
    }

    #[test]
    fn every_policy_chooses_a_ready_instance_of_any_fleet(
        policy in policies(),
        ready in prop::collection::vec(any::<bool>(), 1..70),
        prompts in prop::collection::vec((prop::collection::vec(0..4_u64, 0..6), 1..100_000_u32), 1..12),
    ) {
        let router = router(policy, ready.len() as u16);
        for (position, _) in ready.iter().enumerate().filter(|(_, ready)| !**ready) {
            let changed = Fact::Changed { instance: InstanceId(position as u16), availability: Availability::Down };
            router.learn(changed, Time::ZERO).unwrap();
        }
        for (ids, tokens) in &prompts {
            match route(&router, &contents(ids), *tokens, Time::ZERO) {
                Ok(decision) => prop_assert!(ready[decision.instance.index()]),
                Err(error) => {
                    prop_assert!(!ready.contains(&true));
                    prop_assert_eq!(error, RouteError::NoneReady { model: MODEL.to_owned(), instances: ready.len() });
                }
            }
        }
    }
}

#[test]
fn a_burst_of_equal_requests_does_not_herd() {
    for policy in [PolicyKind::LeastLoaded, PolicyKind::PrefixCost] {
        let router = router(policy, 4);
        let mut counts = [0; 4];
        for _ in 0..40 {
            counts[route(&router, &[], 4000, Time::ZERO).unwrap().instance.index()] += 1;
        }
        assert_eq!(counts, [10; 4], "{policy}");
    }
}

#[test]
fn a_cached_prefix_attracts_until_the_queue_costs_more_than_it_saves() {
    let ids: Vec<u64> = (0..250).collect();
    let router = router(PolicyKind::PrefixCost, 2);
    store(&router, 1, &ids);
    let prompt = contents(&ids);
    let first = route(&router, &prompt, 4001, Time::ZERO).unwrap();
    assert_eq!((first.instance, first.overlap_tokens, first.best_overlap_tokens), (InstanceId(1), 4000, 4000));
    // Of full hits one token each is computed, all in one step.
    assert!((0..200).all(|_| route(&router, &prompt, 4001, Time::ZERO).unwrap().instance == InstanceId(1)));

    let router = self::router(PolicyKind::PrefixCost, 2);
    store(&router, 1, &ids);
    let moved = (0..200).map(|_| route(&router, &prompt, 5001, Time::ZERO).unwrap()).position(|d| d.instance.0 == 0);
    let moved = moved.expect("one instance cannot be worth any queue");
    assert!(moved > 1, "left after {moved}: four fifths of a prompt are worth waiting for another");
}

#[test]
fn the_longest_prefix_wins_whatever_the_load_and_ties_go_to_the_least_loaded() {
    let router = router(PolicyKind::LongestPrefix, 3);
    store(&router, 2, &[1, 2]);
    for _ in 0..20 {
        assert_eq!(route(&router, &contents(&[1, 2, 3]), 48, Time::ZERO).unwrap().instance, InstanceId(2));
    }
    let cold: Vec<u16> = (0..4).map(|_| route(&router, &[], 48, Time::ZERO).unwrap().instance.0).collect();
    assert_eq!(cold, [0, 1, 0, 1]);
}

/// Whoever was asked first is known first to be faster than the model says. The others must not be shunned for being unknown.
#[test]
fn prompts_that_nobody_has_go_to_all_instances_though_the_model_is_too_pessimistic() {
    for policy in [PolicyKind::PrefixCost, PolicyKind::RoundRobin] {
        let router = router(policy, 4);
        let (mut now, mut counts) = (Time::ZERO, [0_u32; 4]);
        for prompt in 0..400_u64 {
            let ids: Vec<u64> = (0..40).map(|block| prompt * 100 + block).collect();
            let decision = route(&router, &contents(&ids), 640, now).unwrap();
            counts[decision.instance.index()] += 1;
            router.learn(Fact::FirstToken { request: decision.request }, now + Duration::from_millis(1)).unwrap();
            router
                .learn(Fact::Finished { request: decision.request, output_tokens: 4 }, now + Duration::from_millis(2))
                .unwrap();
            now = now + Duration::from_millis(5);
        }
        assert!(counts.iter().all(|&count| (80..=120).contains(&count)), "{policy:?}: {counts:?}");
    }
}

#[test]
fn a_lease_that_runs_out_gives_the_load_back() {
    let router = router(PolicyKind::LeastLoaded, 1);
    let lost = route(&router, &[], 100, Time::ZERO).unwrap();
    let minutes = |minutes: u64| Time::ZERO + Duration::from_secs(60 * minutes);
    let kept = route(&router, &[], 100, minutes(6)).unwrap();
    router.learn(Fact::TimePassed, minutes(10)).unwrap();
    assert_eq!(router.in_flight(), 1);
    let ended = router.learn(Fact::Finished { request: lost.request, output_tokens: 1 }, minutes(10));
    assert_eq!(ended, Err(LearnError::UnknownRequest { request: lost.request }));
    router.learn(Fact::Finished { request: kept.request, output_tokens: 1 }, minutes(10)).unwrap();
    assert_eq!(router.in_flight(), 0);
}

#[test]
fn a_model_is_served_only_by_its_own_instances_and_cached_only_in_its_own_namespace() {
    let router = router(PolicyKind::LongestPrefix, 2);
    let joined = Fact::Joined { instance: InstanceId(2), model: "other", knowledge: Knowledge::Exact };
    router.learn(joined, Time::ZERO).unwrap();
    store(&router, 2, &[1]);
    let ask = |namespace| {
        let contents = contents(&[1]);
        let prompt = Prompt::Blocks { contents: &contents, tokens: 17 };
        router.route(&Request { namespace, prompt, session: None }, Time::ZERO)
    };
    let other = ask(Namespace::of_model("other")).unwrap();
    assert_eq!((other.instance, other.overlap_tokens), (InstanceId(2), 16));
    let ours = ask(Namespace::of_model(MODEL)).unwrap();
    assert_eq!((ours.instance.0 < 2, ours.best_overlap_tokens), (true, 0));
    let salted = ask(Namespace { cache_salt: Some("tenant"), ..Namespace::of_model("other") }).unwrap();
    assert_eq!(salted.best_overlap_tokens, 0);
    let unknown = ask(Namespace::of_model("nobody's")).unwrap_err();
    assert_eq!(unknown.to_string(), "no instance serves model \"nobody's\"");
}

#[test]
fn limits_and_impossible_facts_are_errors() {
    let router = Router::new(Config { requests_max: 2, block_size: BlockSize::DEFAULT, ..Config::default() });
    let join = |id: u16| {
        router.learn(Fact::Joined { instance: InstanceId(id), model: MODEL, knowledge: Knowledge::Exact }, Time::ZERO)
    };
    join(0).unwrap();
    assert_eq!(join(0), Err(LearnError::AlreadyJoined { instance: InstanceId(0) }));
    assert_eq!(join(4096), Err(LearnError::OutOfRange { instance: InstanceId(4096) }));
    assert_eq!(route(&router, &[], 0, Time::ZERO), Err(RouteError::EmptyPrompt));
    let held = [(); 2].map(|()| route(&router, &[], 5, Time::ZERO).unwrap());
    assert_eq!(route(&router, &[], 5, Time::ZERO), Err(RouteError::TooManyInFlight { limit: 2 }));
    router.learn(Fact::Left { instance: InstanceId(0) }, Time::ZERO).unwrap();
    assert_eq!(router.in_flight(), 0, "an instance that leaves takes its requests along");
    for request in held.map(|decision| decision.request) {
        let late = router.learn(Fact::FirstToken { request }, Time::ZERO);
        assert_eq!(late, Err(LearnError::UnknownRequest { request }));
    }
    let orphan = Fact::Stored {
        instance: InstanceId(0),
        tier: Tier::Gpu,
        parent: Parent::Root { lora: None, cache_salt: None },
        blocks: &[EngineHash(1)],
        content: Content::Hashes(&[ContentHash(1)]),
    };
    assert_eq!(router.learn(orphan, Time::ZERO), Err(LearnError::UnknownInstance { instance: InstanceId(0) }));
}

fn group_stored(router: &Router, group: u32, needs_blocks: u32, ids: &[u64]) -> Result<(), LearnError> {
    let blocks: Vec<EngineHash> = ids.iter().copied().map(EngineHash).collect();
    router.learn(Fact::GroupStored { instance: InstanceId(0), group, needs_blocks, blocks: &blocks }, Time::ZERO)
}

fn group_removed(router: &Router, group: u32, ids: &[u64]) -> Result<(), LearnError> {
    let blocks: Vec<EngineHash> = ids.iter().copied().map(EngineHash).collect();
    router.learn(Fact::GroupRemoved { instance: InstanceId(0), group, blocks: &blocks }, Time::ZERO)
}

#[test]
fn a_hit_counts_only_where_every_group_has_what_it_needs() {
    const PROMPT: [u64; 6] = [1, 2, 3, 4, 5, 6];
    let router = router(PolicyKind::LongestPrefix, 1);
    let found = || {
        let placed = route(&router, &contents(&PROMPT), 6 * 16 + 1, Time::ZERO).unwrap();
        router.learn(Fact::Abandoned { request: placed.request }, Time::ZERO).unwrap();
        placed.overlap_tokens / 16
    };
    store(&router, 0, &PROMPT);
    assert_eq!(found(), 6);
    // A window of two blocks, of which the first prompt's beginning was never kept.
    group_stored(&router, 1, 2, &[3, 4, 5, 6]).unwrap();
    assert_eq!(found(), 6);
    group_removed(&router, 1, &[6]).unwrap();
    assert_eq!(found(), 5);
    group_removed(&router, 1, &[4]).unwrap();
    assert_eq!(found(), 0, "no two in a row are left");
    // The window's beginning is the prompt's own: one block is all there is of it.
    group_stored(&router, 1, 2, &[1]).unwrap();
    assert_eq!(found(), 1);
    group_stored(&router, 1, 2, &[2, 4, 4]).unwrap();
    assert_eq!(found(), 5);

    // A recurrent state is there after some blocks only, and attention over the whole prompt needs them all.
    group_stored(&router, 2, 1, &[2, 4]).unwrap();
    assert_eq!(found(), 4);
    group_stored(&router, 3, u32::MAX, &[1, 2, 3]).unwrap();
    assert_eq!(found(), 2);

    // Copies count, and what is not known is an error.
    group_removed(&router, 1, &[4]).unwrap();
    group_stored(&router, 3, u32::MAX, &[4]).unwrap();
    assert_eq!(found(), 4);
    assert!(group_stored(&router, 1, 2, &[99]).is_err() && group_removed(&router, 7, &[1]).is_err());
    router.learn(Fact::Cleared { instance: InstanceId(0) }, Time::ZERO).unwrap();
    store(&router, 0, &PROMPT);
    assert_eq!(found(), 0);
}

#[test]
fn copies_in_lower_tiers_are_worth_less_and_outlive_the_first() {
    let router = router(PolicyKind::LongestPrefix, 1);
    let found = || {
        let placed = route(&router, &contents(&[1, 2]), 33, Time::ZERO).unwrap();
        router.learn(Fact::Abandoned { request: placed.request }, Time::ZERO).unwrap();
        placed.overlap_tokens
    };
    store(&router, 0, &[1, 2]);
    let (instance, blocks) = (InstanceId(0), &[EngineHash(1), EngineHash(2)]);
    router.learn(Fact::Copied { instance, tier: Tier::Cpu, blocks }, Time::ZERO).unwrap();
    assert_eq!(found(), 32);
    router.learn(Fact::Removed { instance, tier: Tier::Gpu, blocks }, Time::ZERO).unwrap();
    // 0.8 of each block, by default.
    assert_eq!(found(), 25);
    router.learn(Fact::Copied { instance, tier: Tier::Storage, blocks: &blocks[..1] }, Time::ZERO).unwrap();
    router.learn(Fact::Removed { instance, tier: Tier::Cpu, blocks }, Time::ZERO).unwrap();
    assert_eq!(found(), 4);
    assert!(router.learn(Fact::Copied { instance, tier: Tier::Cpu, blocks }, Time::ZERO).is_err(), "one is gone");
}
