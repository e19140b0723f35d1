//! Small tables that are turned over for long: an index whose instances hold little, and never the same for long, answers as
//! the reference does, finds absent names absent, and takes no more memory in the end than it needed.
//!
//! What grows with the number of blocks that ever were, and what only a table full of traces of former entries does wrong,
//! shows here: tables of names, of runs and of sets are a few buckets each and see a thousand entries come and go.

use proptest::prelude::*;
use std::collections::VecDeque;
use warmpath::routing::block::{BlockHash, BlockSize, ContentHash, EngineHash, Namespace};
use warmpath::routing::index::{Attach, ExactIndex, IndexError, Overlaps, ReferenceIndex};
use warmpath::routing::{Content, InstanceId, Prompt, Tier};

#[derive(Clone, Debug)]
struct Churn {
    instances: u16,
    /// Prompts that are held at a time.
    window: usize,
    /// How many different blocks there are at each depth: few make chains meet, many make runs.
    variety: u64,
    longest: u64,
    /// Names are given again after so many.
    names: u64,
    seed: u64,
}

fn churn() -> impl Strategy<Value = Churn> {
    let variety = prop::sample::select(&[2_u64, 3, 7, 1000][..]);
    let names = prop::sample::select(&[50_u64, 400, u64::MAX][..]);
    (1..10_u16, 1..60_usize, variety, 1..9_u64, names, any::<u64>()).prop_map(
        |(instances, window, variety, longest, names, seed)| Churn { instances, window, variety, longest, names, seed },
    )
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % bound
    }
}

struct Held {
    instance: InstanceId,
    tier: Tier,
    names: Vec<EngineHash>,
    contents: Vec<ContentHash>,
}

const STEPS: usize = 400;

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_comes_and_goes_leaves_nothing_behind(churn in churn()) {
        let block_size = BlockSize::new(1).unwrap();
        let (index, mut reference) = (ExactIndex::new(block_size, usize::MAX), ReferenceIndex::new(block_size));
        let root = BlockHash::root(&Namespace::of_model("m"), block_size, 0);
        for instance in (0..churn.instances).map(InstanceId) {
            index.join(instance);
            reference.join(instance);
        }
        let (mut random, mut overlaps) = (Random(churn.seed), Overlaps::default());
        let mut held: VecDeque<Held> = VecDeque::new();
        let mut named = 0_u64;
        for step in 0..STEPS {
            let instance = InstanceId(random.below(u64::from(churn.instances)) as u16);
            let tier = if random.below(8) == 0 { Tier::Cpu } else { Tier::Gpu };
            let contents: Vec<ContentHash> =
                (0..=random.below(churn.longest)).map(|_| ContentHash::of_tokens(&[random.below(churn.variety) as u32])).collect();
            let names: Vec<EngineHash> = contents
                .iter()
                .map(|_| {
                    named += 1;
                    EngineHash(named % churn.names)
                })
                .collect();
            let content = Content::Hashes(&contents);
            let expected = reference.store(instance, tier, Attach::Root(root), &names, content);
            prop_assert_eq!(index.store(instance, tier, Attach::Root(root), &names, content), expected);
            held.push_back(Held { instance, tier, names, contents });
            while held.len() > churn.window {
                // The oldest as a rule, sometimes one from the middle; from its end as a rule, sometimes from its start.
                let at = if random.below(5) == 0 { random.below(held.len() as u64) as usize } else { 0 };
                let Held { instance, tier, mut names, .. } = held.remove(at).expect("it is in there");
                if random.below(5) != 0 {
                    names.reverse();
                }
                let expected = reference.remove(instance, tier, &names);
                prop_assert_eq!(index.remove(instance, tier, &names), expected);
            }
            // What was never stored is not there.
            let absent = EngineHash(u64::MAX - step as u64);
            let unknown = IndexError::UnknownBlocks { instance, unknown: 1, blocks: 1 };
            prop_assert_eq!(index.remove(instance, Tier::Gpu, &[absent]), Err(unknown));
            let asked = &held[random.below(held.len() as u64) as usize].contents;
            let prompt = Prompt::Blocks { contents: asked, tokens: asked.len() as u32 + 1 };
            index.find(&prompt, root, &mut overlaps);
            let found: Vec<_> = overlaps.holders().map(|holder| (holder, overlaps.by_tier(holder))).collect();
            let expected: Vec<_> = reference.find(&prompt, root).into_iter().collect();
            prop_assert_eq!(found, expected);
            let stats = index.stats();
            prop_assert_eq!((stats.blocks, stats.entries), (reference.blocks(), reference.entries()));
        }
        (0..churn.instances).for_each(|instance| index.clear(InstanceId(instance)).unwrap());
        let stats = index.stats();
        prop_assert_eq!((stats.blocks, stats.entries, stats.runs), (0, 0, 0));
    }
}

/// At a constant residency memory stops growing: what the second half of a long churn needs, the first half had taken.
#[test]
fn memory_is_flat_under_churn() {
    const RESIDENT: u64 = 2000;
    let index = ExactIndex::new(BlockSize::DEFAULT, usize::MAX);
    let root = BlockHash::root(&Namespace::of_model("m"), BlockSize::DEFAULT, 0);
    (0..8).for_each(|instance| index.join(InstanceId(instance)));
    let mut random = Random(1);
    let mut held: VecDeque<(InstanceId, Vec<EngineHash>)> = VecDeque::new();
    let (mut resident, mut named) = (0, 0_u64);
    let mut half = 0;
    for prompt in 0..8000_u64 {
        if prompt == 4000 {
            half = index.stats().bytes;
        }
        let (instance, blocks) = (InstanceId(random.below(8) as u16), 4 + random.below(60));
        let contents: Vec<ContentHash> =
            (0..blocks).map(|at| ContentHash(if at < 4 { at + 7 } else { random.below(u64::MAX) })).collect();
        let names: Vec<EngineHash> = (0..blocks).map(|at| EngineHash(named + at)).collect();
        named += blocks;
        index.store(instance, Tier::Gpu, Attach::Root(root), &names, Content::Hashes(&contents)).unwrap();
        resident += blocks;
        held.push_back((instance, names.into_iter().rev().collect()));
        while resident > RESIDENT {
            let (instance, names) = held.pop_front().expect("something is resident");
            resident -= names.len() as u64;
            index.remove(instance, Tier::Gpu, &names).unwrap();
        }
    }
    let end = index.stats().bytes;
    assert!(end * 100 <= half * 105, "{half} bytes after one half, {end} after the other");
}
