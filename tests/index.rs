//! The serving index against the reference: any facts, in any order, and every answer is the same.
//!
//! Names, contents and instances come from small sets, so that runs part, heal and are reused, names move and collide, and
//! holes open everywhere.

use proptest::collection::vec;
use proptest::prelude::*;
use warmpath::routing::block::{BlockHash, BlockSize, ContentHash, EngineHash, Namespace};
use warmpath::routing::index::{Attach, ExactIndex, IndexError, Overlaps, ReferenceIndex, SnapshotError};
use warmpath::routing::{Content, InstanceId, Prompt, Tier};

/// What may happen to an index.
#[derive(Clone, Debug)]
enum Step {
    Store {
        instance: u16,
        tier: Tier,
        parent: Option<u64>,
        names: Vec<u64>,
        contents: Vec<u64>,
        root: u64,
    },
    /// The engine's own way: a path from the root, each block named by all that leads to it.
    Path {
        instance: u16,
        tier: Tier,
        contents: Vec<u64>,
    },
    Remove {
        instance: u16,
        tier: Tier,
        names: Vec<u64>,
    },
    Copy {
        instance: u16,
        tier: Tier,
        names: Vec<u64>,
    },
    Clear {
        instance: u16,
    },
    Leave {
        instance: u16,
    },
    Join {
        instance: u16,
    },
}

/// Far apart, so that bitmaps have gaps.
const INSTANCES: [u16; 5] = [0, 1, 63, 64, 4095];

fn instance() -> impl Strategy<Value = u16> {
    prop::sample::select(&INSTANCES[..])
}

fn tier() -> impl Strategy<Value = Tier> {
    prop_oneof![4 => Just(Tier::Gpu), 1 => Just(Tier::Cpu), 1 => Just(Tier::Storage)]
}

fn step(names: u64, longest: usize) -> impl Strategy<Value = Step> {
    let store = (instance(), tier(), prop::option::of(0..names), vec((0..names, 0..3_u64), 0..longest), 0..2_u64);
    let store = store.prop_map(|(instance, tier, parent, blocks, root)| {
        let (names, contents) = blocks.into_iter().unzip();
        Step::Store { instance, tier, parent, names, contents, root }
    });
    prop_oneof![
        6 => store,
        6 => (instance(), tier(), vec(0..2_u64, 0..longest)).prop_map(|(i, t, contents)| Step::Path { instance: i, tier: t, contents }),
        8 => (instance(), tier(), vec(0..names, 0..longest)).prop_map(|(i, t, names)| Step::Remove { instance: i, tier: t, names }),
        3 => (instance(), tier(), vec(0..names, 0..longest)).prop_map(|(i, t, names)| Step::Copy { instance: i, tier: t, names }),
        1 => instance().prop_map(|instance| Step::Clear { instance }),
        1 => instance().prop_map(|instance| Step::Leave { instance }),
        1 => instance().prop_map(|instance| Step::Join { instance }),
    ]
}

/// Both indexes, and how the steps' numbers are to be read.
struct Pair {
    exact: ExactIndex,
    reference: ReferenceIndex,
    roots: [BlockHash; 2],
    block_size: BlockSize,
}

impl Pair {
    fn new() -> Self {
        let block_size = BlockSize::new(1).unwrap();
        let mut pair = Pair {
            exact: ExactIndex::new(block_size, usize::MAX),
            reference: ReferenceIndex::new(block_size),
            roots: ["a", "b"].map(|model| BlockHash::root(&Namespace::of_model(model), block_size, 0)),
            block_size,
        };
        INSTANCES.map(InstanceId).iter().for_each(|&instance| pair.join(instance));
        pair
    }

    fn join(&mut self, instance: InstanceId) {
        self.exact.join(instance);
        self.reference.join(instance);
    }

    fn take(&mut self, step: &Step) {
        let hashes = |contents: &[u64]| contents.iter().map(|&content| content_hash(content)).collect::<Vec<_>>();
        let engine = |names: &[u64]| names.iter().map(|&name| EngineHash(name)).collect::<Vec<_>>();
        match step {
            Step::Store { instance, tier, parent, names, contents, root } => {
                let attach = match parent {
                    Some(parent) => Attach::Block(EngineHash(*parent)),
                    None => Attach::Root(self.roots[*root as usize]),
                };
                self.store(InstanceId(*instance), *tier, attach, &engine(names), &hashes(contents));
            }
            Step::Path { instance, tier, contents } => {
                let names: Vec<u64> = (0..contents.len()).map(|end| path_name(&contents[..=end])).collect();
                let attach = Attach::Root(self.roots[0]);
                self.store(InstanceId(*instance), *tier, attach, &engine(&names), &hashes(contents));
            }
            Step::Remove { instance, tier, names } => {
                let (instance, names) = (InstanceId(*instance), engine(names));
                let expected = self.reference.remove(instance, *tier, &names);
                assert_eq!(self.exact.remove(instance, *tier, &names), expected);
            }
            Step::Copy { instance, tier, names } => {
                let (instance, names) = (InstanceId(*instance), engine(names));
                let expected = self.reference.copy(instance, *tier, &names);
                assert_eq!(self.exact.copy(instance, *tier, &names), expected);
            }
            Step::Clear { instance } => {
                let instance = InstanceId(*instance);
                assert_eq!(self.exact.clear(instance), self.reference.clear(instance));
            }
            Step::Leave { instance } => {
                let instance = InstanceId(*instance);
                assert_eq!(self.exact.leave(instance), self.reference.leave(instance));
            }
            Step::Join { instance } => self.join(InstanceId(*instance)),
        }
    }

    fn store(
        &mut self,
        instance: InstanceId,
        tier: Tier,
        attach: Attach,
        names: &[EngineHash],
        contents: &[ContentHash],
    ) {
        let expected = self.reference.store(instance, tier, attach, names, Content::Hashes(contents));
        assert_eq!(self.exact.store(instance, tier, attach, names, Content::Hashes(contents)), expected);
    }

    /// Every answer and every count is the same.
    fn check(&self, prompts: &[Vec<u64>], overlaps: &mut Overlaps) {
        for contents in prompts {
            let contents: Vec<ContentHash> = contents.iter().map(|&content| content_hash(content)).collect();
            let prompt = Prompt::Blocks { contents: &contents, tokens: contents.len() as u32 + 1 };
            for root in self.roots {
                self.exact.find(&prompt, root, overlaps);
                let found: Vec<_> = overlaps.holders().map(|holder| (holder, overlaps.by_tier(holder))).collect();
                let expected: Vec<_> = self.reference.find(&prompt, root).into_iter().collect();
                assert_eq!(found, expected, "prompt {contents:?}");
                assert!(found.iter().all(|(holder, tiers)| overlaps.blocks(*holder) == tiers.iter().sum::<u32>()));
            }
        }
        let stats = self.exact.stats();
        assert_eq!((stats.blocks, stats.entries), (self.reference.blocks(), self.reference.entries()));
        let held: usize = INSTANCES.iter().map(|&instance| self.exact.blocks_of(InstanceId(instance))).sum();
        assert_eq!(held, stats.entries);
        let _ = self.block_size;
    }
}

fn content_hash(content: u64) -> ContentHash {
    ContentHash::of_tokens(&[content as u32])
}

/// Names of paths are below 64 for paths of up to five blocks of two contents, so that removals hit them.
fn path_name(contents: &[u64]) -> u64 {
    contents.iter().fold(1, |name, &content| name * 2 + content)
}

/// All prompts of up to `longest` blocks of two contents, and some of three.
fn prompts(longest: u32) -> Vec<Vec<u64>> {
    let all = (0..1_u64 << longest).map(|path| (0..longest).map(|bit| path >> bit & 1).collect());
    all.chain([vec![2; longest as usize], (0..3).cycle().take(longest as usize).collect()]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_facts_are_answered_as_the_reference_answers(steps in vec(step(64, 6), 1..60)) {
        let mut pair = Pair::new();
        let (prompts, mut overlaps) = (prompts(5), Overlaps::default());
        for step in &steps {
            pair.take(step);
            pair.check(&prompts, &mut overlaps);
        }
    }

    /// Few names for many blocks: names move, and blocks go by several.
    #[test]
    fn names_that_move_and_meet_are_kept_apart(steps in vec(step(6, 5), 1..60)) {
        let mut pair = Pair::new();
        let (prompts, mut overlaps) = (prompts(4), Overlaps::default());
        for step in &steps {
            pair.take(step);
            pair.check(&prompts, &mut overlaps);
        }
    }

    /// At the bound a store says what it could not keep, and all the rest stays right.
    #[test]
    fn at_the_bound_nothing_is_answered_that_is_not_held(
        steps in vec(step(64, 6), 1..60),
        bytes in 30_000_usize..90_000,
        fillers in 1_u64..400,
    ) {
        let mut pair = Pair::new();
        pair.exact = ExactIndex::new(pair.block_size, bytes);
        INSTANCES.map(InstanceId).iter().for_each(|&instance| pair.exact.join(instance));
        let steps = (0..fillers).map(filler).chain(steps);
        for step in steps {
            take_bounded(&mut pair, &step);
        }
        pair.check(&prompts(5), &mut Overlaps::default());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// A restored index answers as the one it was taken from, and goes on as it would have.
    #[test]
    fn a_snapshot_comes_back_whole(steps in vec(step(24, 6), 1..40), more in vec(step(24, 6), 0..20)) {
        let mut pair = Pair::new();
        steps.iter().for_each(|step| pair.take(step));
        let bytes = pair.exact.snapshot();
        pair.exact = ExactIndex::restore(&bytes, pair.block_size, usize::MAX).expect("a snapshot is one");
        let (prompts, mut overlaps) = (prompts(5), Overlaps::default());
        pair.check(&prompts, &mut overlaps);
        for step in &more {
            pair.take(step);
            pair.check(&prompts, &mut overlaps);
        }
    }

    #[test]
    fn bytes_that_are_no_snapshot_are_refused(
        steps in vec(step(24, 6), 0..20),
        edits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
        noise in vec(any::<u8>(), 0..200),
    ) {
        let mut pair = Pair::new();
        steps.iter().for_each(|step| pair.take(step));
        let whole = pair.exact.snapshot();
        let restore = |bytes: &[u8]| ExactIndex::restore(bytes, pair.block_size, 1 << 20);
        prop_assert!(restore(&noise).is_err());
        prop_assert!(restore(&whole[..cut.index(whole.len())]).is_err());
        let mut changed = whole.clone();
        edits.iter().for_each(|(at, byte)| changed[at.index(whole.len())] ^= byte);
        prop_assert!(changed == whole || restore(&changed).is_err());
        // With a checksum that fits, what is refused must be found by reading, and what is not must hold together.
        let end = changed.len() - 8;
        let checksum = twox_hash::XxHash3_64::oneshot_with_seed(0x7761_726d_7061_7468, &changed[..end]);
        changed[end..].copy_from_slice(&checksum.to_le_bytes());
        if let Ok(index) = restore(&changed) {
            // A changed snapshot may name any instance.
            (0..InstanceId::LIMIT as u16).for_each(|instance| {
                let _ = index.clear(InstanceId(instance));
            });
            prop_assert_eq!(index.stats().entries, 0);
        }
    }
}

#[test]
fn a_snapshot_of_an_earlier_version_is_refused_and_so_are_its_names() {
    let index = ExactIndex::new(BlockSize::DEFAULT, usize::MAX);
    index.join(InstanceId(0));
    let root = BlockHash::root(&Namespace::of_model("m"), BlockSize::DEFAULT, 0);
    let content = [ContentHash(1)];
    index.store(InstanceId(0), Tier::Gpu, Attach::Root(root), &[EngineHash(1)], Content::Hashes(&content)).unwrap();
    let whole = index.snapshot();
    let restore = |bytes: &[u8]| ExactIndex::restore(bytes, BlockSize::DEFAULT, usize::MAX).map(|index| index.stats());
    assert_eq!(restore(&whole).unwrap().entries, 1);

    let mut earlier = whole.clone();
    earlier[4..8].copy_from_slice(&1_u32.to_le_bytes());
    assert_eq!(restore(&earlier), Err(SnapshotError::Version { found: 1 }));

    // The last entry is a name of 64 bits, of which the lowest four are not kept, and five numbers; a checksum follows.
    let (mut long, end) = (whole.clone(), whole.len() - 8);
    long[end - 28] |= 1;
    let checksum = twox_hash::XxHash3_64::oneshot_with_seed(0x7761_726d_7061_7468, &long[..end]);
    long[end..].copy_from_slice(&checksum.to_le_bytes());
    assert!(matches!(restore(&long), Err(SnapshotError::Malformed { .. })));
}

/// Something of its own for an instance to hold, under names that nothing else has.
fn filler(number: u64) -> Step {
    let start = 1000 + number * 10;
    Step::Store {
        instance: INSTANCES[number as usize % 5],
        tier: Tier::Gpu,
        parent: None,
        names: (start..start + 10).collect(),
        contents: (start..start + 10).collect(),
        root: 1,
    }
}

/// Tells the reference only what the bounded index could take, and what it forgot on the way.
fn take_bounded(pair: &mut Pair, step: &Step) {
    let (instance, tier, attach, names, contents) = match step {
        Step::Store { instance, tier, parent, names, contents, root } => {
            let attach = match parent {
                Some(parent) => Attach::Block(EngineHash(*parent)),
                None => Attach::Root(pair.roots[*root as usize]),
            };
            (*instance, *tier, attach, names.clone(), contents.clone())
        }
        Step::Path { instance, tier, contents } => {
            let names = (0..contents.len()).map(|end| path_name(&contents[..=end])).collect();
            (*instance, *tier, Attach::Root(pair.roots[0]), names, contents.clone())
        }
        Step::Copy { instance, tier, names } => {
            let (instance, names) = (InstanceId(*instance), names.iter().copied().map(EngineHash).collect::<Vec<_>>());
            let result = pair.exact.copy(instance, *tier, &names);
            let (seen, is_full) = match result {
                Err(IndexError::Full { stored, .. }) => (stored, true),
                Ok(()) | Err(_) => (names.len(), false),
            };
            let expected = pair.reference.copy(instance, *tier, &names[..seen]);
            assert!(is_full || result == expected, "{result:?} instead of {expected:?}");
            return;
        }
        Step::Remove { .. } | Step::Clear { .. } | Step::Leave { .. } | Step::Join { .. } => return pair.take(step),
    };
    let names: Vec<EngineHash> = names.into_iter().map(EngineHash).collect();
    let contents: Vec<ContentHash> = contents.into_iter().map(content_hash).collect();
    let instance = InstanceId(instance);
    let result = pair.exact.store(instance, tier, attach, &names, Content::Hashes(&contents));
    let stored = match result {
        Err(IndexError::Full { stored, .. }) => stored,
        Ok(()) | Err(_) => names.len(),
    };
    let result = pair.reference.store(instance, tier, attach, &names[..stored], Content::Hashes(&contents[..stored]));
    let known =
        |error: &IndexError| matches!(error, IndexError::UnknownInstance { .. } | IndexError::UnknownParent { .. });
    assert!(result.is_ok() || result.is_err_and(|error| known(&error)));
}

/// Long runs: more segments than fit a header, several runs to a prompt, holes everywhere. The reference would take too
/// long, so what each instance holds is a list of flags.
#[test]
fn long_prompts_keep_their_holes_and_come_back() {
    const BLOCKS: usize = 5000;
    let block_size = BlockSize::new(1).unwrap();
    let index = ExactIndex::new(block_size, usize::MAX);
    let root = BlockHash::root(&Namespace::of_model("m"), block_size, 0);
    let contents: Vec<ContentHash> = (0..BLOCKS as u64).map(content_hash).collect();
    let names: Vec<EngineHash> = (0..BLOCKS as u64).map(EngineHash).collect();
    let mut held = INSTANCES.map(|_| vec![false; BLOCKS]);
    let mut overlaps = Overlaps::default();
    let mut check = |held: &[Vec<bool>; 5]| {
        index.find(&Prompt::Blocks { contents: &contents, tokens: BLOCKS as u32 + 1 }, root, &mut overlaps);
        for (instance, held) in INSTANCES.iter().zip(held) {
            let prefix = held.iter().take_while(|held| **held).count() as u32;
            assert_eq!(overlaps.blocks(InstanceId(*instance)), prefix, "instance {instance}");
        }
        let stats = index.stats();
        assert_eq!(stats.entries, held.iter().flatten().filter(|held| **held).count());
        assert_eq!(stats.blocks, (0..BLOCKS).filter(|&at| held.iter().any(|held| held[at])).count());
    };
    for (at, instance) in INSTANCES.into_iter().enumerate() {
        let blocks = BLOCKS - at * 300;
        index.join(InstanceId(instance));
        let content = Content::Hashes(&contents[..blocks]);
        index.store(InstanceId(instance), Tier::Gpu, Attach::Root(root), &names[..blocks], content).unwrap();
        held[at][..blocks].fill(true);
        check(&held);
    }
    for at in (1..3600).rev().step_by(7) {
        index.remove(InstanceId(INSTANCES[at % 5]), Tier::Gpu, &names[at..=at]).unwrap();
        held[at % 5][at] = false;
        if at % 25 == 0 {
            check(&held);
        }
    }
    check(&held);
    for at in (1..3600).step_by(1) {
        if !held[at % 5][at] {
            let content = Content::Hashes(&contents[at..=at]);
            let attach = Attach::Block(names[at - 1]);
            index.store(InstanceId(INSTANCES[at % 5]), Tier::Gpu, attach, &names[at..=at], content).unwrap();
            held[at % 5][at] = true;
        }
    }
    check(&held);
    for (at, instance) in INSTANCES.into_iter().enumerate() {
        index.clear(InstanceId(instance)).unwrap();
        held[at].fill(false);
        check(&held);
    }
    assert_eq!(index.stats().runs, 0);
}
