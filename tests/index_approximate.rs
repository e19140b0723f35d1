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
            approximate.sent(&index, A, root, &prompt).unwrap();
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
