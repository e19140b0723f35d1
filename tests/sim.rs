//! The simulated engine keeps vLLM's rules, and every request ends.

use proptest::prelude::*;
use std::time::Duration;
use warmpath::routing::Time;
use warmpath::routing::block::{BlockHash, BlockSize};
use warmpath::sim::{CacheEvent, Eviction, Instance, InstanceConfig, InstanceStats, Preset, Progress, TooLarge, Work};

fn instance(block_tokens: u32, blocks: u32) -> Instance {
    evicting(block_tokens, blocks, Eviction::Lru)
}

fn evicting(block_tokens: u32, blocks: u32, eviction: Eviction) -> Instance {
    let block_size = BlockSize::new(block_tokens).unwrap();
    let model = Preset::default().step_model();
    Instance::new(InstanceConfig { block_size, blocks, sequences_max: 8, eviction, model })
}

fn work(id: u64, prompt_tokens: u32, output_tokens: u32, chain: impl IntoIterator<Item = u64>) -> Work {
    Work { id, prompt_tokens, output_tokens, chain: chain.into_iter().map(BlockHash).collect(), ..Work::default() }
}

/// Steps until there is nothing to do.
fn run(instance: &mut Instance) -> (Vec<Progress>, Vec<CacheEvent>) {
    let (mut progress, mut events) = (Vec::new(), Vec::new());
    let mut now = Time::ZERO;
    while let Some(end) = instance.begin_step(now) {
        assert!(end > now, "a step takes time");
        now = end;
        instance.end_step(&mut progress, &mut events);
    }
    (progress, events)
}

fn stored(id: u64, first: u32, count: u32) -> CacheEvent {
    CacheEvent::Stored { id, first, count }
}

/// As vLLM 0.32 did with `--block-size 32` when a prompt of 64 tokens was sent three times.
#[test]
fn an_exact_repeat_recomputes_and_stores_its_last_block_again() {
    let mut engine = instance(32, 128);
    let mut sent = |id| {
        engine.submit(work(id, 64, 1, [1, 2])).unwrap();
        let (progress, events) = run(&mut engine);
        (progress[0].cached_tokens, events)
    };
    assert_eq!(sent(0), (0, vec![stored(0, 0, 2)]));
    assert_eq!(sent(1), (32, vec![stored(1, 1, 1)]));
    assert_eq!(sent(2), (32, vec![stored(2, 1, 1)]));
}

#[test]
fn partial_blocks_are_not_cached_and_blocks_filled_while_decoding_are() {
    let mut engine = instance(16, 128);
    // 20 prompt tokens and 14 outputs of which 13 are computed: 33 tokens, two full blocks.
    engine.submit(work(0, 20, 14, [1, 2])).unwrap();
    let (progress, events) = run(&mut engine);
    assert_eq!(progress.len(), 14);
    assert_eq!(events, [stored(0, 0, 1), stored(0, 1, 1)]);
    engine.submit(work(1, 40, 1, [1, 2, 3])).unwrap();
    assert_eq!(run(&mut engine).0[0].cached_tokens, 32);
}

#[test]
fn a_long_prompt_is_computed_in_chunks_beside_those_who_decode() {
    let mut engine = instance(16, 4096);
    engine.submit(work(0, 16, 50, [])).unwrap();
    engine.submit(work(1, 20_000, 1, [])).unwrap();
    let (progress, _) = run(&mut engine);
    let long = progress.iter().position(|token| token.id == 1).unwrap();
    assert_eq!(long, 3, "20,000 tokens take three steps of 8,192, in each of which the other gets a token");
}

#[test]
fn what_does_not_fit_waits_and_what_never_fits_is_refused() {
    let mut engine = instance(16, 4);
    assert_eq!(engine.submit(work(0, 60, 6, [])), Err(TooLarge { needed: 5, blocks: 4 }));
    engine.submit(work(1, 60, 5, [])).unwrap();
    engine.submit(work(2, 60, 1, [])).unwrap();
    engine.begin_step(Time::ZERO).unwrap();
    assert_eq!((engine.running(), engine.waiting(), engine.cache_usage()), (1, 1, 1.0));
    engine.end_step(&mut Vec::new(), &mut Vec::new());
    let (progress, _) = run(&mut engine);
    let ends: Vec<u64> = progress.iter().filter(|token| token.finished).map(|token| token.id).collect();
    assert_eq!((ends, engine.cache_usage()), (vec![1, 2], 0.0));
}

#[test]
fn the_newest_is_preempted_when_blocks_run_out_and_ends_all_the_same() {
    let mut engine = instance(16, 6);
    engine.submit(work(0, 32, 40, [])).unwrap();
    engine.submit(work(1, 32, 40, [])).unwrap();
    let (progress, _) = run(&mut engine);
    assert!(engine.stats().preemptions > 0);
    let ends: Vec<u64> = progress.iter().filter(|token| token.finished).map(|token| token.id).collect();
    assert_eq!(ends, [0, 1]);
    let of_each = |id| progress.iter().filter(|token| token.id == id).count();
    assert_eq!((of_each(0), of_each(1)), (40, 40), "no token is produced twice");
}

#[test]
fn an_aborted_request_gives_its_blocks_back() {
    let mut engine = instance(16, 64);
    engine.submit(work(0, 320, 5, 0..20)).unwrap();
    engine.submit(work(1, 320, 5, 0..20)).unwrap();
    engine.begin_step(Time::ZERO).unwrap();
    assert!(engine.abort(0) && engine.abort(1) && !engine.abort(1));
    let (mut progress, mut events) = (Vec::new(), Vec::new());
    engine.end_step(&mut progress, &mut events);
    assert_eq!((progress.as_slice(), engine.cache_usage()), (&[][..], 0.0));
    assert!(!events.is_empty(), "what was stored is reported");
    assert_eq!(engine.begin_step(Time::ZERO), None);
}

proptest! {
    /// (Prompt tokens, output tokens, shared head) of each request, all there at once.
    #[test]
    fn every_request_ends_and_leaves_no_block_in_use(
        requests in prop::collection::vec((1..300_u32, 1..40_u32, 0..3_u64), 1..30),
        blocks in 22..64_u32,
        eviction in prop::sample::select(Eviction::ALL.to_vec()),
    ) {
        let mut engine = evicting(16, blocks, eviction);
        for (id, &(prompt, output, head)) in requests.iter().enumerate() {
            let tail = 1000 * (id as u64 + 1);
            let chain = (0..u64::from(prompt / 16)).map(|at| if at < 4 { head * 100 + at } else { tail + at });
            engine.submit(work(id as u64, prompt, output, chain)).unwrap();
        }
        let (progress, events) = run(&mut engine);
        for (id, &(prompt, output, _)) in requests.iter().enumerate() {
            let of_it: Vec<_> = progress.iter().filter(|token| token.id == id as u64).collect();
            prop_assert_eq!(of_it.iter().map(|token| token.generated).collect::<Vec<_>>(), (1..=output).collect::<Vec<_>>());
            prop_assert!(of_it.iter().all(|token| token.cached_tokens < prompt && token.cached_tokens % 16 == 0));
            prop_assert_eq!(of_it.iter().filter(|token| token.finished).count(), 1);
        }
        prop_assert_eq!(engine.cache_usage(), 0.0);
        let removed = events.iter().filter(|event| matches!(event, CacheEvent::Removed(_))).count() as u32;
        let stored: u32 = events.iter().map(|event| match event {
            CacheEvent::Stored { count, .. } => *count,
            CacheEvent::Removed(_) => 0,
        }).sum();
        prop_assert!(removed <= stored && stored - removed <= blocks, "what is cached fits");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// (Prompt tokens, output tokens, nanoseconds after the one before it) of each request: steps taken at once, interrupted by
    /// whoever comes, tell the same at the same times as step by step.
    #[test]
    fn coasting_tells_nothing_else_and_nothing_later_than_step_by_step(
        requests in prop::collection::vec((1..400_u32, 1..300_u32, 0..2_000_000_000_u64), 1..12),
        blocks in 48..200_u32,
    ) {
        let mut at = 0;
        let arrivals: Vec<(Time, Work)> = (0..).zip(&requests).map(|(id, &(prompt, output, gap))| {
            at += gap;
            (Time::from_nanos(at), work(id, prompt, output, (0..100).map(|block| 1000 * id + block)))
        }).collect();
        let (stepped, coasted) = (timeline(blocks, &arrivals, false), timeline(blocks, &arrivals, true));
        prop_assert_eq!(&stepped.told, &coasted.told);
        prop_assert_eq!(stepped.stats, coasted.stats);
        prop_assert!(coasted.ends <= stepped.ends);
    }
}

#[test]
fn when_a_token_last_came_is_told_within_a_coast_as_step_by_step() {
    let engine = || {
        let mut engine = instance(512, 100);
        (0..3).for_each(|id| engine.submit(work(id, 9_000, 800, 100 * id..100 * id + 20)).unwrap());
        engine
    };
    let (mut progress, mut events) = (Vec::new(), Vec::new());
    let (mut stepping, mut now, mut ends) = (engine(), Time::ZERO, Vec::new());
    while let Some(end) = stepping.begin_step(now) {
        let tokens = progress.len();
        stepping.end_step(&mut progress, &mut events);
        if progress.len() > tokens {
            ends.push(end);
        }
        now = end;
    }
    let (mut coasting, mut now, mut asked) = (engine(), Time::ZERO, 0);
    assert_eq!(coasting.token_at(now), None);
    while let Some(end) = coasting.begin_step(now) {
        let end = coasting.coast(end);
        for pair in ends.windows(2).filter(|pair| now < pair[0] && pair[1] < end) {
            let within = pair[0] + pair[1].since(pair[0]).mul_f64(0.3);
            let told = coasting.token_at(within).expect("tokens came before");
            let off = told.since(pair[0]).max(pair[0].since(told));
            assert!(off < Duration::from_micros(10), "{told} is not {}", pair[0]);
            asked += 1;
        }
        coasting.end_step(&mut progress, &mut events);
        now = end;
    }
    assert!(asked > 700, "{asked}");
}

#[test]
fn a_long_decode_is_one_step_a_block_to_who_coasts() {
    let arrivals = [(Time::ZERO, work(0, 10, 1000, []))];
    let ends = |coasts| timeline(100, &arrivals, coasts).ends;
    assert_eq!(ends(false), 1000);
    assert!(ends(true) < 250, "{} ends of steps", ends(true));
}

struct Timeline {
    /// First and last tokens and cache events, each at its time.
    told: Vec<(Time, Vec<Progress>, Vec<CacheEvent>)>,
    stats: InstanceStats,
    ends: u32,
}

/// Gives an engine what comes and ends its steps, each or only those that tell something.
fn timeline(blocks: u32, arrivals: &[(Time, Work)], coasts: bool) -> Timeline {
    let mut engine = instance(16, blocks);
    let (mut told, mut ends, mut end) = (Vec::new(), 0, None);
    let mut arrivals = arrivals.iter().peekable();
    loop {
        match (end, arrivals.peek()) {
            (Some(now), next) if next.is_none_or(|(at, _)| now <= *at) => {
                let (mut progress, mut events) = (Vec::new(), Vec::new());
                engine.end_step(&mut progress, &mut events);
                ends += 1;
                progress.retain(|token| token.generated == 1 || token.finished);
                if !(progress.is_empty() && events.is_empty()) {
                    told.push((now, progress, events));
                }
                end = engine.begin_step(now).map(|end| if coasts { engine.coast(end) } else { end });
            }
            (_, Some((at, work))) => {
                engine.submit(work.clone()).unwrap();
                end = match end {
                    Some(end) => Some(engine.interrupt(*at).unwrap_or(end)),
                    None => engine.begin_step(*at).map(|end| if coasts { engine.coast(end) } else { end }),
                };
                arrivals.next();
            }
            (_, None) => return Timeline { told, stats: engine.stats(), ends },
        }
    }
}
