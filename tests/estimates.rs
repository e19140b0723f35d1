//! What the router believes that an instance has to do, and how long that takes: steps, decodes, and what is reported of it.

use std::time::Duration;
use warmpath::routing::block::{ContentHash, Namespace};
use warmpath::routing::policy::PolicyKind;
use warmpath::routing::{
    Config, Decision, Fact, InstanceId, Knowledge, PrefillModel, Prompt, Reported, Request, RequestId, Router, Time,
};

const MODEL: &str = "m";

fn router(policy: PolicyKind, instances: u16) -> Router {
    router_of(Config { policy, seed: 7, ..Config::default() }, instances)
}

fn router_of(config: Config, instances: u16) -> Router {
    let router = Router::new(config);
    for instance in (0..instances).map(InstanceId) {
        router.learn(Fact::Joined { instance, model: MODEL, knowledge: Knowledge::Exact }, Time::ZERO).unwrap();
    }
    router
}

/// Places a prompt that is cached nowhere, unless one with the same id came before.
fn route(router: &Router, id: u64, tokens: u32, now: Time) -> Decision {
    let prompt = Prompt::Blocks { contents: &[ContentHash(id)], tokens };
    router.route(&Request { namespace: Namespace::of_model(MODEL), prompt, session: None }, now).unwrap()
}

fn reported(router: &Router, running: u32, waiting: u32, seconds: u64) {
    let load = Reported { running, waiting, cache_usage: 0.5 };
    let now = Time::ZERO + Duration::from_secs(seconds);
    router.learn(Fact::Reported { instance: InstanceId(0), load }, now).unwrap();
}

#[test]
fn a_report_tells_of_the_requests_of_others_and_never_of_our_own() {
    let router = router(PolicyKind::LeastLoaded, 2);
    let load = |seconds: u64| router.instances(Time::ZERO + Duration::from_secs(seconds))[0].load;
    let own: Vec<RequestId> = (0..4_u64)
        .map(|id| route(&router, id, 100, Time::ZERO))
        .filter(|placed| placed.instance == InstanceId(0))
        .map(|placed| placed.request)
        .collect();
    assert_eq!(own.len(), 2);
    reported(&router, 1, 1, 1);
    assert_eq!((load(1).foreign_requests, load(1).requests()), (0, 2));

    let wait = load(1).prefill_wait_seconds;
    reported(&router, 3, 2, 1);
    assert_eq!((load(1).foreign_requests, load(1).requests(), load(1).prefill_requests), (3, 5, 2));
    assert!(load(1).prefill_wait_seconds > wait);

    // Ours end, and what is reported then may be of a moment before.
    own.iter().for_each(|&request| router.learn(Fact::Abandoned { request }, Time::ZERO).unwrap());
    reported(&router, 2, 0, 2);
    assert_eq!(load(2).foreign_requests, 0);
    reported(&router, 0, 0, 4);
    reported(&router, 2, 0, 5);
    assert_eq!((load(5).foreign_requests, load(5).requests()), (2, 2));
    // Others are not believed to be there for ever.
    assert_eq!((load(34).foreign_requests, load(35).foreign_requests), (2, 0));
    assert_eq!(load(35).reported.unwrap().running, 2);
}

#[test]
fn reports_that_are_a_second_late_do_not_take_our_own_requests_for_others() {
    let router = router(PolicyKind::LeastLoaded, 1);
    let at = |millis: u64| Time::ZERO + Duration::from_millis(millis);
    let report = |running, millis| {
        let load = Reported { running, waiting: 0, cache_usage: 0.5 };
        router.learn(Fact::Reported { instance: InstanceId(0), load }, at(millis)).unwrap();
        router.instances(at(millis))[0].load.foreign_requests
    };
    let own: Vec<RequestId> = (0..5_u64).map(|id| route(&router, id, 100, at(10_000)).request).collect();
    assert_eq!(report(0, 10_001), 0);
    own.iter().for_each(|&request| router.learn(Fact::Abandoned { request }, at(10_500)).unwrap());
    // Told every tenth of a second, and each about a moment a second before.
    for tick in 0..10 {
        assert_eq!(report(5, 10_510 + 100 * tick), 0, "{tick}");
    }
    assert_eq!((0..50).map(|tick| report(5, 12_000 + 100 * tick)).max(), Some(5), "and in the end they are someone's");
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// A router with requests in decode at each of its instances, and how long a step of theirs takes.
fn decoding(instances: u16) -> (Router, Duration, Vec<RequestId>) {
    let router = router(PolicyKind::PrefixCost, instances);
    let model = Config::default().prefill;
    let first = Time::ZERO + seconds(model.prefill_seconds(100, 0));
    let placed: Vec<_> = (0..u64::from(instances)).map(|id| route(&router, id, 100, Time::ZERO)).collect();
    let requests: Vec<RequestId> = placed.iter().map(|placed| placed.request).collect();
    requests.iter().for_each(|&request| router.learn(Fact::FirstToken { request }, first).unwrap());
    assert!((0..instances).all(|at| placed.iter().any(|placed| placed.instance == InstanceId(at))));
    (router, seconds(model.idle_step_seconds() + model.decode_seconds(100)), requests)
}

#[test]
fn who_comes_waits_for_the_step_under_way_and_goes_where_it_ends_first() {
    let (router, step, _) = decoding(2);
    let millis = Duration::from_millis;
    let at = Time::ZERO + Duration::from_secs(2);
    let wait = |instance: usize, now| seconds(router.instances(now)[instance].load.step_wait_seconds);
    let is_near = |a: Duration, b: Duration| a.abs_diff(b) < Duration::from_micros(1);
    assert!(is_near(wait(0, at), step / 2), "when it ends is not known any more: {:?}", wait(0, at));
    router.learn(Fact::Stepped { instance: InstanceId(0) }, at).unwrap();
    router.learn(Fact::Stepped { instance: InstanceId(1) }, at + millis(6)).unwrap();
    let now = at + millis(8);
    assert!(is_near(wait(0, now), step - millis(8)) && is_near(wait(1, now), step - millis(2)));
    let later = at + 3 * step + millis(1);
    assert!(is_near(wait(0, later), step - millis(1)), "steps that nothing is told of end, too: {:?}", wait(0, later));
    let placed = route(&router, 9, 100, now);
    assert_eq!(placed.instance, InstanceId(0));
    let model = Config::default().prefill;
    let alone = seconds(model.prefill_seconds(100, 0) + model.decode_seconds(100));
    assert!(is_near(placed.expected_ttft, step - millis(8) + alone), "{:?}", placed.expected_ttft);
}

#[test]
fn what_comes_within_a_step_shares_the_next_one() {
    let (router, step, _) = decoding(1);
    let at = Time::ZERO + Duration::from_secs(2);
    let load = |now| router.instances(now)[0].load;
    router.learn(Fact::Stepped { instance: InstanceId(0) }, at).unwrap();
    let first = route(&router, 8, 100, at + step / 4);
    let second = route(&router, 9, 100, at + step / 2);
    assert_eq!(load(at + step / 2).unbegun_requests, 2);
    // The step between them is told to be over: both have begun.
    router.learn(Fact::Stepped { instance: InstanceId(0) }, at + step).unwrap();
    assert_eq!((load(at + step).unbegun_requests, load(at + step).prefill_requests), (0, 2));
    assert!(second.expected_ttft < first.expected_ttft + seconds(Config::default().prefill.prefill_seconds(100, 0)));
}

#[test]
fn what_is_generated_is_attended_to_as_well() {
    let (router, _, requests) = decoding(2);
    let context = |instance: usize, seconds: u64| {
        router.instances(Time::ZERO + Duration::from_secs(seconds))[instance].load.context_tokens
    };
    assert_eq!((context(0, 10), context(1, 10)), (100, 100), "nobody knows yet how fast tokens come");
    let request = requests[0];
    let now = Time::ZERO + Duration::from_secs(10);
    router.learn(Fact::Finished { request, output_tokens: 1001 }, now).unwrap();
    let contexts = [context(0, 10), context(1, 10)];
    // A hundred a second.
    assert!(contexts.contains(&0) && contexts.iter().any(|tokens| tokens.abs_diff(1100) <= 2), "{contexts:?}");
    let contexts = [context(0, 20), context(1, 20)];
    assert!(contexts.contains(&0) && contexts.iter().any(|tokens| tokens.abs_diff(2100) <= 4), "{contexts:?}");
}

/// Twice as many tokens in decode, twice as much more to a step: once for what waits together.
#[test]
fn decodes_under_way_are_expected_to_delay_first_tokens() {
    let config = Config::default();
    let alone = seconds(config.prefill.prefill_seconds(100, 0));
    let beside = |decodes: u64| {
        let router = router(PolicyKind::PrefixCost, 1);
        let mut now = Time::ZERO;
        for id in 0..decodes {
            let Decision { request, expected_ttft, .. } = route(&router, id, 100_000, now);
            // As expected, so that the pace stays what it is.
            now = now + expected_ttft;
            router.learn(Fact::FirstToken { request }, now).unwrap();
        }
        [0, 1, 2].map(|id| route(&router, 1000 + id, 100, now).expected_ttft)
    };
    let [none, two, four] = [0, 2, 4].map(beside);
    let a_step = seconds(config.prefill.decode_seconds(200_000));
    let near = |a: Duration, b: Duration| assert!(a.abs_diff(b) < Duration::from_micros(10), "{a:?}, not {b:?}");
    near(none[0], alone);
    // A step with nothing but decodes has just begun.
    let idle = seconds(config.prefill.idle_step_seconds());
    near(two[0], idle + a_step + alone + a_step);
    near(four[0], idle + 2 * a_step + alone + 2 * a_step);
    near(two[1] - two[0], alone + a_step);
    let shared = seconds(config.prefill.shared_prefill_seconds(100, 0));
    near(two[2] - two[1], shared + a_step.mul_f64(config.prefill.steps(100)));
}

/// A model by which nothing takes any time is one that somebody may write down.
#[test]
fn steps_of_no_time_leave_nothing_to_wait_for() {
    let model = Config::default().prefill;
    let none = PrefillModel { step: 0.0, weights: 0.0, token: 0.0, attention: 0.0, decode_context: 0.0, ..model };
    let router = router_of(Config { prefill: none, ..Config::default() }, 2);
    for id in 0..4 {
        let placed = route(&router, id, 100, Time::ZERO);
        assert_eq!(placed.expected_ttft, Duration::ZERO);
        router.learn(Fact::FirstToken { request: placed.request }, Time::ZERO).unwrap();
    }
}

/// Who lost its blocks waits at the head of the line, and nobody passes it, however free the rest of the cache looks.
#[test]
fn nobody_is_placed_behind_who_was_preempted() {
    let (router, ..) = decoding(2);
    let at = Time::ZERO + seconds(1.0);
    let report = |instance: u16, running, waiting, cache_usage| {
        let load = Reported { running, waiting, cache_usage };
        router.learn(Fact::Reported { instance: InstanceId(instance), load }, at).unwrap();
    };
    let blocked = || [0, 1].map(|instance| router.instances(at)[instance].load.blocked_requests);
    report(0, 0, 1, 0.95);
    report(1, 1, 0, 0.99);
    assert_eq!(blocked(), [1, 0]);
    assert!((10..14).all(|id| route(&router, id, 100, at).instance == InstanceId(1)));
    // It is in again, and there is more room than at the other one.
    report(0, 1, 0, 0.95);
    assert_eq!(blocked(), [0, 0]);
    let placed = route(&router, 14, 100, at);
    assert_eq!(placed.instance, InstanceId(0));
    // That one waits for its first token; the other one goes on.
    report(0, 1, 1, 0.95);
    assert_eq!(blocked(), [0, 0]);
    // Somebody else's requests, of which nothing is known, are not taken for any of ours.
    report(0, 2, 5, 0.95);
    assert_eq!(blocked(), [0, 0]);
}

/// So it is where the cache is full of what runs and the next prompt does not fit; a queue that is late for another reason is not.
#[test]
fn nobody_is_placed_behind_who_waits_for_blocks() {
    let placed = |cache_usage: f64, waiting: u32| {
        let router = router(PolicyKind::PrefixCost, 2);
        let late = route(&router, 0, 8000, Time::ZERO);
        let at = Time::ZERO + late.expected_ttft + seconds(1.0);
        let report = |instance: InstanceId, waiting, cache_usage| {
            let load = Reported { waiting, running: 0, cache_usage };
            router.learn(Fact::Reported { instance, load }, at).unwrap();
        };
        report(late.instance, waiting, cache_usage);
        report(InstanceId(1 - late.instance.0), 0, 0.99);
        let blocked = router.instances(at)[late.instance.index()].load.blocked_requests;
        (blocked, [0, 1, 2, 3].map(|id| route(&router, 10 + id, 100, at).instance == late.instance))
    };
    assert_eq!(placed(0.95, 1), (1, [false; 4]));
    assert_eq!(placed(0.95, 0), (0, [true; 4]), "nobody waits there");
    assert_eq!(placed(0.5, 1), (0, [true; 4]), "there are blocks enough");
}
