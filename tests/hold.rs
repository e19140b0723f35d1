//! Who is held though there is room, and until when.

use std::time::Duration;
use warmpath::routing::admission::Refusal;
use warmpath::routing::block::{BlockSize, Namespace};
use warmpath::routing::policy::{PolicySpec, Tuning};
use warmpath::routing::{
    Config, Decision, Fact, HOLD_MAX, InstanceId, Knowledge, Prompt, Request, RouteError, Router, Time,
};
use warmpath::sim::{Arrival, Category, Cluster, ClusterConfig, Conditions, Eviction, InstanceConfig, Preset};

/// A router of one instance.
fn holding(steps: f64) -> Router {
    let router = Router::new(Config { tuning: Tuning::default().with_hold(steps), ..Config::default() });
    let joined = Fact::Joined { instance: InstanceId(0), model: "m", knowledge: Knowledge::Exact };
    router.learn(joined, Time::ZERO).unwrap();
    router
}

fn request(tokens: u32) -> Request<'static> {
    Request { namespace: Namespace::of_model("m"), prompt: Prompt::Blocks { contents: &[], tokens }, session: None }
}

fn place(router: &Router, tokens: u32, waited: f64, now: f64) -> Result<Decision, RouteError> {
    router.route_with_room(&request(tokens), &|_| true, Duration::from_secs_f64(waited), Time::from_secs_f64(now))
}

#[test]
fn a_policy_that_holds_places_a_request_only_where_its_turn_comes_soon() {
    // Before any first token was told of at once, nobody is held.
    let router = holding(0.2);
    place(&router, 160_000, 0.0, 0.0).unwrap();
    let told = place(&router, 16, 0.0, 0.0).expect("whatever is before it").request;
    router.learn(Fact::FirstToken { request: told }, Time::ZERO).unwrap();
    assert!(matches!(place(&router, 16, 0.0, 0.0), Err(RouteError::Held { .. })));

    let router = holding(0.2);
    let soon = |tokens, waited, now| place(&router, tokens, waited, now);
    let told = soon(16, 0.0, 0.0).unwrap();
    let (request_id, at) = (told.request, Time::ZERO + told.expected_ttft);
    router.learn(Fact::FirstToken { request: request_id }, at).unwrap();
    router.learn(Fact::Finished { request: request_id, output_tokens: 1 }, at).unwrap();
    let first = soon(160_000, 0.0, 0.02).expect("an idle instance is given what comes");
    let Err(RouteError::Held { prefill, room_in }) = soon(1_600, 0.0, 0.1) else {
        panic!("seconds of prefill are before it")
    };
    assert!(prefill > Duration::from_millis(90) && prefill < Duration::from_millis(130), "{prefill:?}");
    assert!(room_in > Duration::from_secs(9) && room_in <= HOLD_MAX, "{room_in:?}");
    assert_eq!(router.in_flight(), 1, "what is held is not booked");
    let held = router.explain(&request(1_600), &|_| true, Time::from_secs_f64(0.1)).unwrap().refusal;
    assert_eq!(held, Some(Refusal::Held { prefill, room_in }));
    let second = soon(1_600, HOLD_MAX.as_secs_f64(), 0.1).expect("nobody is held for longer, whatever the estimates");
    for request in [first.request, second.request] {
        router.learn(Fact::FirstToken { request }, Time::from_secs_f64(1.0)).unwrap();
    }
    router.learn(Fact::TimePassed, Time::from_secs_f64(2.0)).unwrap();
    // The rules may change.
    let rules = Config { tuning: Tuning::default().with_hold(0.0), ..Config::default() }.rules();
    soon(160_000, 0.0, 3.0).unwrap();
    assert!(soon(1_600, 0.0, 3.0).is_err());
    router.learn(Fact::Ruled { rules }, Time::from_secs_f64(3.0)).unwrap();
    assert!(soon(1_600, 0.0, 3.0).is_ok() && !router.holds());
}

/// What is told late looks slow, and of what is slow a second would be nothing.
#[test]
fn nobody_is_held_by_news_that_was_late_from_the_start() {
    for (late, is_held) in [(1.0, false), (0.02, true)] {
        let router = holding(0.4);
        for id in 0..100 {
            let now = 3.0 * f64::from(id);
            let Decision { request, .. } = place(&router, 1_000, 0.0, now).expect("the instance is idle");
            let own = Config::default().prefill.prefill_seconds(1_000, 0);
            router.learn(Fact::FirstToken { request }, Time::from_secs_f64(now + own + late)).unwrap();
            router.learn(Fact::Finished { request, output_tokens: 1 }, Time::from_secs_f64(now + 2.9)).unwrap();
        }
        place(&router, 100_000, 0.0, 300.0).unwrap();
        assert_eq!(place(&router, 1_000, 0.0, 300.1).is_err(), is_held, "{late} s late");
    }
}

/// With a request in decode, whose last step ended at the fifth second.
fn decoding(steps: f64) -> Router {
    let router = holding(steps);
    let Decision { request, expected_ttft, .. } = place(&router, 16, 0.0, 0.0).unwrap();
    router.learn(Fact::FirstToken { request }, Time::ZERO + expected_ttft).unwrap();
    router.learn(Fact::Stepped { instance: InstanceId(0) }, Time::from_secs_f64(5.0)).unwrap();
    router
}

#[test]
fn who_would_delay_those_in_its_step_by_more_than_a_step_waits_for_one_of_its_own() {
    let router = decoding(0.4);
    place(&router, 6_000, 0.0, 5.001).expect("nobody is to begin with the next step");
    let room_in = |tokens, now| match place(&router, tokens, 0.0, now) {
        Err(RouteError::Held { room_in, .. }) => room_in.as_secs_f64(),
        other => panic!("{other:?}"),
    };
    let until = room_in(3_000, 5.002);
    assert!((0.4..0.45).contains(&until), "until its own step, at the latest: {until}");
    place(&router, 16, 0.0, 5.002).expect("it delays by less than a step of its own would");
    // Their step began. It is looked at again once two fifths of a full step are left of it.
    router.learn(Fact::Stepped { instance: InstanceId(0) }, Time::from_secs_f64(5.014)).unwrap();
    let until = room_in(3_000, 5.02);
    assert!((0.18..0.23).contains(&until), "{until}");
    place(&router, 3_000, 0.0, 5.021 + until).expect("it begins soon");
}

#[test]
fn the_busier_an_instance_is_the_more_go_together() {
    let joins = |given: u32| {
        let router = decoding(0.4);
        for second in 0..given {
            let now = 5.0 + f64::from(second);
            let Decision { request, expected_ttft, .. } = place(&router, 12_000, 0.0, now).unwrap();
            let done = Time::from_secs_f64(now) + expected_ttft;
            router.learn(Fact::FirstToken { request }, done).unwrap();
            router.learn(Fact::Finished { request, output_tokens: 1 }, done).unwrap();
        }
        let now = 5.0 + f64::from(given);
        router.learn(Fact::Stepped { instance: InstanceId(0) }, Time::from_secs_f64(now)).unwrap();
        place(&router, 2_000, 0.0, now + 0.001).unwrap();
        place(&router, 1_000, 0.0, now + 0.002).is_ok()
    };
    assert_eq!([0, 60].map(joins), [false, true]);
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
