//! The laws of admission: bounded, work conserving, fair within a bound, and nobody starves.

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use warmpath::routing::admission::{
    Ask, CallerKey, Full, LOOK_EVERY, Limits, PATIENCE, PoolKey, Priority, QUANTUM_TOKENS, Queue, Refusal, Saturation,
    Ticket, Waited,
};
use warmpath::routing::block::Namespace;
use warmpath::routing::policy::Tuning;
use warmpath::routing::{
    Availability, Config, Fact, InstanceId, Knowledge, Prompt, Reported, Request, RouteError, Router, Time,
};

const WIDE: Limits = Limits { requests_max: 1 << 20, bytes_max: 1 << 40 };

fn ask(priority: Priority, caller: u64, tokens: u32) -> Ask {
    Ask { priority, caller: CallerKey(caller), pool: PoolKey(0), tokens, bytes: 100 }
}

/// What who waits is told where nothing is held.
const SATURATED: Refusal = Refusal::Saturated { prefill: Duration::ZERO };

fn push(queue: &mut Queue, ask: Ask) -> Ticket {
    queue.push(Time::ZERO, ask, &SATURATED).expect("there is room to wait").0
}

fn held(prefill: f64, room_in: f64) -> Refusal {
    let [prefill, room_in] = [prefill, room_in].map(Duration::from_secs_f64);
    Refusal::Held { prefill, room_in }
}

/// Admits whoever is next.
fn admit(queue: &mut Queue) -> Option<Ticket> {
    let next = queue.next_turn()?;
    queue.admitted(Time::ZERO, next).expect("who has the turn waits");
    Some(next)
}

/// What may happen to a queue, by small numbers.
#[derive(Clone, Debug)]
enum Step {
    Push {
        priority: usize,
        caller: u64,
        pool: usize,
        tokens: u32,
        bytes: usize,
    },
    /// The one so many places from the front leaves.
    Remove(usize),
    /// A pool has room for so many.
    Room(usize, u32),
    Later(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3_usize, 0..4_u64, 0..3_usize, 1..20_000_u32, 0..50_usize)
            .prop_map(|(priority, caller, pool, tokens, bytes)| Step::Push { priority, caller, pool, tokens, bytes }),
        2 => (0..20_usize).prop_map(Step::Remove),
        2 => (0..3_usize, 0..4_u32).prop_map(|(pool, requests)| Step::Room(pool, requests)),
        1 => (0..5_000_u64).prop_map(Step::Later),
    ]
}

proptest! {
    #[test]
    fn it_is_bounded_and_nobody_waits_where_there_is_room(steps in prop::collection::vec(step(), 1..200)) {
        let limits = Limits { requests_max: 6, bytes_max: 200 };
        let mut queue = Queue::new(limits);
        let mut now = Time::ZERO;
        let mut waiting: BTreeMap<Ticket, Ask> = BTreeMap::new();
        let mut room = [0_u32; 3];
        for step in steps {
            match step {
                Step::Push { priority, caller, pool, tokens, bytes } => {
                    let priority = Priority::ALL[priority];
                    let asked = Ask { priority, caller: CallerKey(caller), pool: PoolKey(pool as u64), tokens, bytes };
                    let of = |waiting: &BTreeMap<Ticket, Ask>, caller| {
                        let own: Vec<&Ask> =
                            waiting.values().filter(|one| one.priority == priority && one.caller == caller).collect();
                        (own.len(), own.iter().map(|one| one.bytes).sum::<usize>())
                    };
                    let own = of(&waiting, asked.caller);
                    match queue.push(now, asked, &SATURATED) {
                        Ok((ticket, displaced)) => {
                            for gone in displaced {
                                let caller = waiting[&gone].caller;
                                let (requests, held) = of(&waiting, caller);
                                prop_assert!(caller != asked.caller);
                                prop_assert!(requests > own.0 + 1 || held > own.1 + bytes, "displaced by one with more");
                                waiting.remove(&gone).expect("who leaves waited");
                            }
                            prop_assert!(waiting.insert(ticket, asked).is_none());
                        }
                        Err(Full) => {
                            let class = waiting.values().filter(|one| one.priority == priority);
                            let (requests, held) = class.fold((1, bytes), |sum, one| (sum.0 + 1, sum.1 + one.bytes));
                            prop_assert!(requests > limits.requests_max || held > limits.bytes_max, "it was not full");
                        }
                    }
                }
                Step::Remove(at) => {
                    if let Some(&ticket) = waiting.keys().nth(at) {
                        prop_assert!(queue.remove(ticket));
                        prop_assert!(!queue.remove(ticket), "gone twice");
                        waiting.remove(&ticket);
                    }
                }
                Step::Room(pool, requests) => {
                    room[pool] += requests;
                    queue.room();
                }
                Step::Later(milliseconds) => now = now + Duration::from_millis(milliseconds),
            }
            while let Some(ticket) = queue.next_turn() {
                let pool = waiting[&ticket].pool.0 as usize;
                if room[pool] > 0 {
                    room[pool] -= 1;
                    prop_assert!(queue.admitted(now, ticket).is_some());
                    waiting.remove(&ticket);
                } else {
                    queue.held_back(now, ticket, &SATURATED);
                }
            }
            for (pool, &room) in room.iter().enumerate() {
                let waits = waiting.values().any(|one| one.pool.0 as usize == pool);
                prop_assert_eq!(queue.waits(PoolKey(pool as u64)), waits);
                prop_assert!(room == 0 || !waits, "pool {} has room, and someone waits", pool);
            }
            prop_assert_eq!(queue.len(), waiting.len());
            for priority in Priority::ALL {
                let queued = queue.queued(priority);
                let class = || waiting.values().filter(|one| one.priority == priority);
                prop_assert!(queued.requests <= limits.requests_max && queued.bytes <= limits.bytes_max);
                prop_assert_eq!(queued.requests, class().count());
                prop_assert_eq!(queued.tokens, class().map(|one| u64::from(one.tokens)).sum::<u64>());
                prop_assert_eq!(queued.bytes, class().map(|one| one.bytes).sum::<usize>());
            }
        }
    }

    /// Of callers that always wait, none is ahead of another by more than deficit round robin allows, however long their
    /// prompts are and however many they have.
    #[test]
    fn callers_share_tokens(prompts in prop::collection::vec((0..4_u64, 1..60_000_u32), 40..300)) {
        let mut queue = Queue::new(WIDE);
        let mut waiting = BTreeMap::new();
        let mut left = [0_usize; 4];
        for &(caller, tokens) in &prompts {
            waiting.insert(push(&mut queue, ask(Priority::Normal, caller, tokens)), (caller, tokens));
            left[caller as usize] += 1;
        }
        let longest = prompts.iter().map(|&(_, tokens)| u64::from(tokens)).max().unwrap();
        let mut served = [0_u64; 4];
        // As long as all of them wait.
        while left.iter().all(|&left| left > 0) {
            let (caller, tokens) = waiting[&admit(&mut queue).unwrap()];
            served[caller as usize] += u64::from(tokens);
            left[caller as usize] -= 1;
            let ahead = served.iter().max().unwrap() - served.iter().min().unwrap();
            prop_assert!(ahead <= QUANTUM_TOKENS + 2 * longest, "{:?} with prompts of up to {}", served, longest);
        }
        // And of one caller first come, first served.
        let mut last = BTreeMap::new();
        while let Some(ticket) = admit(&mut queue) {
            let before = last.insert(waiting[&ticket].0, ticket);
            prop_assert!(before < Some(ticket));
        }
    }

    /// Whatever comes after it in whichever class, one that waits is admitted before its class was passed over for long.
    #[test]
    fn nobody_starves(
        crowd in prop::collection::vec((0..3_usize, 1..4_u64, 1..8_000_u32), 1..50), at in 0..3_usize, tokens in 1..8_000_u32
    ) {
        let mut queue = Queue::new(WIDE);
        let mut sizes = BTreeMap::new();
        let mut more = crowd.iter().cycle();
        let mut arrive = |queue: &mut Queue, sizes: &mut BTreeMap<Ticket, u32>| {
            let &(priority, caller, tokens) = more.next().unwrap();
            sizes.insert(push(queue, ask(Priority::ALL[priority], caller, tokens)), tokens);
        };
        (0..100).for_each(|_| arrive(&mut queue, &mut sizes));
        let ours = push(&mut queue, ask(Priority::ALL[at], 0, tokens));
        let mut others = 0_u64;
        loop {
            let next = admit(&mut queue).expect("ours waits");
            if next == ours {
                break;
            }
            others += u64::from(sizes[&next]);
            arrive(&mut queue, &mut sizes);
            // Of its class at most what three others get until it has saved up enough, and that by its weight of all.
            let of_class = 3 * (u64::from(tokens) + QUANTUM_TOKENS + 2 * 8_000);
            prop_assert!(others <= 21 * of_class + 16 * 8_000, "{} tokens of others went first", others);
        }
    }

    /// Two pools may want the same instances: neither waits for the other to be empty.
    #[test]
    fn pools_share_tokens(first in prop::collection::vec(1..9_000_u32, 30), second in prop::collection::vec(1..9_000_u32, 30)) {
        let mut queue = Queue::new(WIDE);
        let mut waiting = BTreeMap::new();
        for (pool, prompts) in [&first, &second].into_iter().enumerate() {
            for &tokens in prompts {
                let one = Ask { pool: PoolKey(pool as u64), ..ask(Priority::Normal, 1, tokens) };
                waiting.insert(push(&mut queue, one), (pool, tokens));
            }
        }
        let (mut served, mut left) = ([0_i64; 2], [30; 2]);
        while left[0] > 0 && left[1] > 0 {
            let (pool, tokens) = waiting[&admit(&mut queue).unwrap()];
            served[pool] += i64::from(tokens);
            left[pool] -= 1;
            prop_assert!((served[0] - served[1]).abs() <= 2 * 9_000, "{:?}", served);
        }
    }
}

#[test]
fn classes_share_by_weight_and_the_most_urgent_is_first() {
    let mut queue = Queue::new(WIDE);
    let mut class = BTreeMap::new();
    for priority in Priority::ALL {
        for _ in 0..3_000 {
            class.insert(push(&mut queue, ask(priority, 1, 1_000)), priority);
        }
    }
    let mut served = [0_u64; 3];
    for at in 0..2_100 {
        let priority = class[&admit(&mut queue).unwrap()];
        assert!(at > 0 || priority == Priority::High);
        served[priority.position()] += 1;
    }
    assert_eq!(served, [1_600, 400, 100]);
}

#[test]
fn who_comes_urgently_goes_before_those_who_waited() {
    let mut queue = Queue::new(WIDE);
    for _ in 0..10 {
        push(&mut queue, ask(Priority::Low, 1, 500));
        push(&mut queue, ask(Priority::Normal, 1, 500));
    }
    (0..5).for_each(|_| {
        admit(&mut queue);
    });
    let urgent = push(&mut queue, ask(Priority::High, 2, 90_000));
    assert_eq!(admit(&mut queue), Some(urgent));
}

#[test]
fn one_caller_cannot_fill_the_queue_for_the_others() {
    let mut queue = Queue::new(Limits { requests_max: 100, bytes_max: 1 << 20 });
    let mut hog = BTreeSet::new();
    while let Ok((ticket, displaced)) = queue.push(Time::ZERO, ask(Priority::Normal, 1, 10), &SATURATED) {
        assert!(displaced.is_empty());
        hog.insert(ticket);
    }
    assert_eq!(hog.len(), 100);
    for arrived in 0..50 {
        let (_, displaced) = queue.push(Time::ZERO, ask(Priority::Normal, 2, 10), &SATURATED).expect("it holds less");
        assert_eq!(displaced, [hog.pop_last().unwrap()], "the latest of the hog's, for number {arrived}");
    }
    let full = queue.push(Time::ZERO, ask(Priority::Normal, 2, 10), &SATURATED);
    assert_eq!(full, Err(Full), "now both hold half");
    assert!(queue.push(Time::ZERO, ask(Priority::Low, 1, 10), &SATURATED).is_ok(), "another class is another queue");
}

#[test]
fn one_at_a_time_tries_and_who_found_no_room_waits_for_the_next_fact() {
    let mut queue = Queue::new(WIDE);
    let (first, second) =
        (push(&mut queue, ask(Priority::Normal, 1, 10)), push(&mut queue, ask(Priority::Normal, 1, 10)));
    assert_eq!((queue.next_turn(), queue.next_turn()), (Some(first), None));
    queue.held_back(Time::ZERO, first, &SATURATED);
    assert_eq!(queue.next_turn(), None);
    queue.room();
    assert_eq!(queue.next_turn(), Some(first));
    // A fact that comes while it tries may be what it needs.
    queue.room();
    queue.held_back(Time::ZERO, first, &SATURATED);
    assert_eq!(queue.next_turn(), Some(first));
    // Who leaves with the turn does not take it along.
    assert!(queue.remove(first));
    assert_eq!(queue.next_turn(), Some(second));
    let waited = Waited { time: Duration::from_secs(3), was_held: false };
    assert_eq!(queue.admitted(Time::ZERO + waited.time, second), Some(waited));
    assert!(queue.is_empty() && !queue.waits(PoolKey(0)));
}

/// Whoever is held wants another instance than the next one may: all of them try, the one that takes least first.
#[test]
fn of_those_held_each_tries_once_a_round_the_shortest_first() {
    let mut queue = Queue::new(WIDE);
    let mut hold = |at: f64, prefill| {
        queue.push(Time::from_secs_f64(at), ask(Priority::Normal, 1, 10), &held(prefill, 5.0)).unwrap().0
    };
    // Due at 3, at 1.5, at 2.3 and at 1.
    let tickets = [hold(0.0, 1.0), hold(0.0, 0.5), hold(2.0, 0.1), hold(1.0, 0.0)];
    let by_due = [tickets[3], tickets[1], tickets[2], tickets[0]];
    for _round in 0..2 {
        let mut tried = Vec::new();
        while let Some(ticket) = queue.next_turn() {
            tried.push(ticket);
            queue.held_back(Time::from_secs_f64(2.0), ticket, &held(1.0, 5.0));
        }
        assert_eq!(tried, by_due);
        queue.room();
    }
    assert_eq!((queue.queued(Priority::Normal).requests, queue.queued(Priority::Normal).held), (4, 4));
    // One may now be saturated, and with it all of its pool.
    let first = queue.next_turn().unwrap();
    queue.held_back(Time::from_secs_f64(2.0), first, &SATURATED);
    assert_eq!((queue.next_turn(), queue.queued(Priority::Normal).held), (None, 3));
    queue.room();
    let waited = |was_held| Some(Waited { time: Duration::from_secs(2), was_held });
    for (ticket, expected) in [(tickets[3], waited(false)), (tickets[1], waited(true))] {
        let since = if ticket == tickets[3] { 3.0 } else { 2.0 };
        assert_eq!(queue.next_turn(), Some(ticket));
        assert_eq!(queue.admitted(Time::from_secs_f64(since), ticket), expected);
    }
    assert_eq!(queue.queued(Priority::Normal).held, 2);
}

#[test]
fn those_held_are_looked_at_when_there_should_be_room_and_not_sooner() {
    let mut queue = Queue::new(WIDE);
    assert_eq!(queue.next_look(), None);
    let at = |seconds| Time::from_secs_f64(seconds);
    let (late, _) = queue.push(at(1.0), ask(Priority::Normal, 1, 10), &held(0.2, 4.0)).unwrap();
    assert_eq!(queue.next_look(), Some(at(5.0) + LOOK_EVERY));
    let (soon, _) = queue.push(at(1.0), ask(Priority::Normal, 1, 10), &held(0.1, 1.0)).unwrap();
    assert_eq!(queue.next_look(), Some(at(2.0) + LOOK_EVERY));
    while let Some(ticket) = queue.next_turn() {
        queue.held_back(at(1.0), ticket, &held(0.1, 1.0));
    }
    assert!(!queue.look(at(1.9)), "it is too early");
    assert_eq!(queue.next_turn(), None);
    assert!(queue.look(at(2.0) + LOOK_EVERY));
    assert_eq!((queue.next_turn(), queue.next_look()), (Some(soon), None));
    queue.held_back(at(2.1), soon, &held(0.1, 0.5));
    assert_eq!(queue.next_look(), Some(at(2.6) + LOOK_EVERY));
    assert!(queue.remove(soon) && queue.remove(late));
    assert_eq!(queue.next_look(), None, "nobody is held");
}

proptest! {
    /// However short those are that come after it, who is held is overtaken only by those that come within its patience.
    #[test]
    fn a_long_prefill_is_not_overtaken_for_ever(prefills in prop::collection::vec(0.01..4.0_f64, 2..60), gap in 0.01..1.0_f64) {
        let mut queue = Queue::new(WIDE);
        let mut came = BTreeMap::new();
        for (at, &prefill) in prefills.iter().enumerate() {
            let at = at as f64 * gap;
            let pushed = queue.push(Time::from_secs_f64(at), ask(Priority::Normal, 1, 10), &held(prefill, 1.0));
            came.insert(pushed.unwrap().0, (at, prefill));
        }
        let mut placed: Vec<(f64, f64)> = Vec::new();
        while let Some(ticket) = queue.next_turn() {
            queue.admitted(Time::from_secs_f64(100.0), ticket);
            placed.push(came[&ticket]);
        }
        prop_assert_eq!(placed.len(), prefills.len());
        for (place, (at, prefill)) in placed.iter().enumerate() {
            for (before, _) in &placed[..place] {
                prop_assert!(*before <= at + PATIENCE * prefill + 1e-6, "{} overtakes {} with {}", before, at, prefill);
            }
        }
    }
}

#[test]
fn who_is_refused_is_told_when_to_come_back() {
    let mut queue = Queue::new(WIDE);
    let mut now = Time::ZERO;
    for _ in 0..400 {
        push(&mut queue, ask(Priority::Normal, 1, 1_000));
    }
    assert_eq!(queue.retry_after(now, PoolKey(0), 1_000), Duration::from_secs(60), "nothing was admitted yet");
    for _ in 0..200 {
        now = now + Duration::from_millis(100);
        let next = queue.next_turn().unwrap();
        queue.admitted(now, next);
    }
    // 200 wait and one more, ten a second.
    let seconds = queue.retry_after(now, PoolKey(0), 1_000).as_secs_f64();
    assert!((19.0..21.5).contains(&seconds), "{seconds}");
}

const BOUNDS: Saturation = Saturation { prefill_tokens_max: Some(1_000), kv_usage_max: Some(0.9) };

fn fleet(instances: u16) -> Router {
    let router =
        Router::new(Config { saturation: Some(BOUNDS), tuning: Tuning::default().with_hold(0.0), ..Config::default() });
    for instance in (0..instances).map(InstanceId) {
        router.learn(Fact::Joined { instance, model: "m", knowledge: Knowledge::Exact }, Time::ZERO).unwrap();
    }
    router
}

fn request(tokens: u32) -> Request<'static> {
    Request { namespace: Namespace::of_model("m"), prompt: Prompt::Blocks { contents: &[], tokens }, session: None }
}

#[test]
fn saturation_is_a_matter_of_tokens_and_ends_with_the_first_token() {
    let (router, now) = (fleet(2), Time::ZERO);
    let place = || router.route_with_room(&request(600), &|_| true, Duration::ZERO, now);
    let saturated = Err(RouteError::Saturated { prefill: Duration::ZERO });
    // Two each: the second one goes beyond the bound, and the bound is what stands in the way of the third.
    let placed: Vec<_> = (0..4).map(|_| place().unwrap()).collect();
    assert_eq!(place(), saturated);
    assert_eq!(router.in_flight(), 4, "who is refused is not booked");
    router.learn(Fact::FirstToken { request: placed[0].request }, now).unwrap();
    assert!(place().is_ok());
    assert_eq!(place(), saturated);
    assert!(router.route(&request(600), now).is_ok(), "the door without a bound has none");
    // Whoever may not be asked does not count.
    let down = Fact::Changed { instance: InstanceId(0), availability: Availability::Down };
    router.learn(down, now).unwrap();
    assert_eq!(place(), saturated);
}

#[test]
fn many_small_requests_are_not_many_tokens() {
    let router = fleet(1);
    for _ in 0..100 {
        router
            .route_with_room(&request(9), &|_| true, Duration::ZERO, Time::ZERO)
            .expect("900 tokens are less than 1000");
    }
    let long = router.route_with_room(&request(1 << 20), &|_| true, Duration::ZERO, Time::ZERO);
    assert!(long.is_ok(), "a prompt longer than the bound is not refused for ever");
}

#[test]
fn blocks_in_use_saturate_only_while_someone_waits_for_some() {
    let (router, instance) = (fleet(1), InstanceId(0));
    let said = |waiting, cache_usage| {
        let load = Reported { waiting, running: 3, cache_usage };
        router.learn(Fact::Reported { instance, load }, Time::ZERO).unwrap();
        router.route_with_room(&request(1), &|_| true, Duration::ZERO, Time::ZERO).is_ok()
    };
    assert!(said(0, 0.99) && said(5, 0.5));
    assert!(!said(1, 0.9));
    let later = Time::ZERO + Duration::from_secs(60);
    let placed = router.route_with_room(&request(1), &|_| true, Duration::ZERO, later);
    assert!(placed.is_ok(), "an old report says nothing");
}
