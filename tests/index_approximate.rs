//! Instances without events are believed to hold what they were sent, within bounds.

use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::VecDeque;
use warmpath::routing::block::{BlockHash, BlockSize, ContentHash, Namespace};
use warmpath::routing::index::{ApproximateIndex, ExactIndex, Overlaps};
use warmpath::routing::policy::PolicyKind;
use warmpath::routing::{Config, Fact, InstanceId, Knowledge, Prompt, Request, Router, Time};

const A: InstanceId = InstanceId(0);

fn contents(path: &[u32]) -> Vec<ContentHash> {
    path.iter().map(|&block| ContentHash::of_tokens(&[block; 16])).collect()
}

/// Least recently used first, of one prompt's blocks from its end: prefixes in order of last use.
#[derive(Default)]
struct Model(VecDeque<Vec<u32>>);

impl Model {
    fn used(&mut self, path: &[u32], blocks_max: usize) {
        for end in (1..=path.len().min(blocks_max)).rev() {
            self.0.retain(|held| held != &path[..end]);
            self.0.push_back(path[..end].to_vec());
        }
        while self.0.len() > blocks_max {
            self.0.pop_front();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_least_recently_used_goes_first(paths in vec(vec(0..3_u32, 0..6), 1..40), blocks_max in 1_usize..12) {
        let (index, approximate) = (
            ExactIndex::new(BlockSize::DEFAULT, usize::MAX),
            ApproximateIndex::new(BlockSize::DEFAULT, blocks_max),
        );
        index.join(A);
        let root = BlockHash::root(&Namespace::of_model("m"), BlockSize::DEFAULT, 0);
        let (mut model, mut overlaps) = (Model::default(), Overlaps::default());
        for (at, path) in paths.iter().enumerate() {
            let sent = contents(path);
            let prompt = Prompt::Blocks { contents: &sent, tokens: sent.len() as u32 * 16 };
            approximate.sent(&index, A, root, &prompt, Time::ZERO).unwrap();
            model.used(path, blocks_max);
            // Uses are forgotten early where the same is used over and over; short of that, blocks are what the model says.
            prop_assert!(index.blocks_of(A) <= blocks_max);
            for asked in &paths[..=at] {
                let asked_contents = contents(asked);
                let prompt = Prompt::Blocks { contents: &asked_contents, tokens: asked.len() as u32 * 16 + 1 };
                index.find(&prompt, root, &mut overlaps);
                let held = (1..=asked.len()).take_while(|&end| model.0.iter().any(|held| held == &asked[..end])).count();
                prop_assert!(overlaps.blocks(A) as usize <= held, "{asked:?}");
                if blocks_max >= 6 && at < blocks_max / 2 {
                    prop_assert_eq!(overlaps.blocks(A) as usize, held, "{:?}", asked);
                }
            }
        }
    }
}

#[test]
fn a_router_sends_a_prompt_where_it_sent_it_before() {
    let router = Router::new(Config { policy: PolicyKind::LongestPrefix, ..Config::default() });
    for instance in [0, 1, 2].map(InstanceId) {
        router.learn(Fact::Joined { instance, model: "m", knowledge: Knowledge::Approximate }, Time::ZERO).unwrap();
    }
    let tokens: Vec<u32> = (0..1000).collect();
    let request = Request { namespace: Namespace::of_model("m"), prompt: Prompt::Tokens(&tokens), session: None };
    let first = router.route(&request, Time::ZERO).unwrap();
    let again = router.route(&request, Time::ZERO).unwrap();
    assert_eq!((first.overlap_tokens, again.overlap_tokens), (0, 992));
    assert_eq!(first.instance, again.instance);
    // Its events begin to come: what was guessed no longer counts.
    let fact = Fact::Known { instance: first.instance, knowledge: Knowledge::Exact };
    router.learn(fact, Time::ZERO).unwrap();
    assert_eq!(router.cached_blocks(first.instance), 0);
}

fn routed(router: &Router, path: &[u32], seconds: u64) -> warmpath::routing::Decision {
    let contents = contents(path);
    let prompt = Prompt::Blocks { contents: &contents, tokens: contents.len() as u32 * 16 + 1 };
    let request = Request { namespace: Namespace::of_model("m"), prompt, session: None };
    router.route(&request, at(seconds)).unwrap()
}

fn at(seconds: u64) -> Time {
    Time::ZERO + std::time::Duration::from_secs(seconds)
}

fn approximate(blocks_max: usize) -> Router {
    let router = Router::new(Config { approximate_blocks_max: blocks_max, ..Config::default() });
    let fact = Fact::Joined { instance: A, model: "m", knowledge: Knowledge::Approximate };
    router.learn(fact, Time::ZERO).unwrap();
    router
}

#[test]
fn what_was_not_there_any_more_was_evicted_and_so_was_what_was_used_before_it() {
    let router = approximate(1000);
    for (first, seconds) in [(10, 0), (20, 20), (30, 40)] {
        let placed = routed(&router, &[first, first + 1, first + 2], seconds);
        router.learn(Fact::Delivered { request: placed.request, cached_tokens: 0 }, at(seconds)).unwrap();
        router.learn(Fact::Finished { request: placed.request, output_tokens: 1 }, at(seconds)).unwrap();
    }
    assert_eq!(router.cached_blocks(A), 9);
    // Of the second prompt two blocks are left, by the instance's word; the first one was used before it.
    let again = routed(&router, &[20, 21, 22], 60);
    assert_eq!(again.overlap_tokens, 48);
    router.learn(Fact::Delivered { request: again.request, cached_tokens: 32 }, at(60)).unwrap();
    let found = |first| routed(&router, &[first, first + 1, first + 2], 60).overlap_tokens;
    assert_eq!((found(30), found(20), found(10)), (48, 48, 0));
}

#[test]
fn what_may_still_be_on_its_way_into_the_cache_was_not_evicted() {
    let router = approximate(1000);
    routed(&router, &[10, 11], 0);
    routed(&router, &[20, 21], 20);
    let beside = routed(&router, &[20, 21], 21);
    assert_eq!(beside.overlap_tokens, 32);
    router.learn(Fact::Delivered { request: beside.request, cached_tokens: 0 }, at(21)).unwrap();
    assert_eq!(routed(&router, &[10, 11], 22).overlap_tokens, 32);
}

#[test]
fn an_instance_says_how_much_it_can_hold() {
    let router = approximate(2);
    routed(&router, &[1, 2, 3, 4], 0);
    assert_eq!((router.cached_blocks(A), router.approximate_blocks_max(A)), (2, 2));
    router.learn(Fact::Sized { instance: A, blocks: 5 }, Time::ZERO).unwrap();
    routed(&router, &[1, 2, 3, 4], 0);
    routed(&router, &[7, 8], 1);
    assert_eq!(router.cached_blocks(A), 5);
    router.learn(Fact::Sized { instance: A, blocks: 2 }, Time::ZERO).unwrap();
    assert_eq!((router.cached_blocks(A), routed(&router, &[7, 8], 2).overlap_tokens), (2, 32));
    assert!(router.learn(Fact::Sized { instance: InstanceId(9), blocks: 2 }, Time::ZERO).is_err());
}

#[test]
fn a_guessed_prompt_takes_as_much_of_a_cache_as_its_tokens_would() {
    // Room for 48 blocks of 16 tokens.
    let index = ExactIndex::new(BlockSize::DEFAULT, usize::MAX);
    let approximate = ApproximateIndex::new(BlockSize::DEFAULT, 48);
    index.join(A);
    let root = BlockHash::root(&Namespace::of_model("m"), BlockSize::DEFAULT, 0);
    let mut overlaps = Overlaps::default();
    let mut held = |prompt: &Prompt<'_>, root| {
        index.find(prompt, root, &mut overlaps);
        overlaps.blocks(A)
    };
    // Four blocks of tokens to each of these, so 16 and 20 of the 48, and then 12 more that have to make room.
    let guesses = [contents(&[1, 2, 3, 4]), contents(&[5, 6, 7, 8, 9])];
    let guessed = |at: usize| Prompt::Guessed { contents: &guesses[at], tokens: guesses[at].len() as u32 * 64 + 1 };
    let blocks = contents(&(100..113).collect::<Vec<_>>());
    let told = Prompt::Blocks { contents: &blocks, tokens: 13 * 16 + 1 };
    let guessed_root = BlockHash(1);
    approximate.sent(&index, A, guessed_root, &guessed(0), Time::ZERO).unwrap();
    approximate.sent(&index, A, guessed_root, &guessed(1), Time::ZERO).unwrap();
    assert_eq!((held(&guessed(0), guessed_root), held(&guessed(1), guessed_root)), (4, 5));
    approximate.sent(&index, A, root, &told, Time::ZERO).unwrap();
    // 16 + 20 + 13 are one too many: the last block of what was used first goes, which is four.
    assert_eq!((held(&guessed(0), guessed_root), held(&guessed(1), guessed_root), held(&told, root)), (3, 5, 13));
    // Longer than the cache: as much of it as fits.
    let long = contents(&(200..300).collect::<Vec<_>>());
    let long = Prompt::Guessed { contents: &long, tokens: 100 * 64 };
    approximate.sent(&index, A, guessed_root, &long, Time::ZERO).unwrap();
    assert_eq!((held(&long, guessed_root), held(&told, root), index.blocks_of(A)), (12, 0, 12));
}
