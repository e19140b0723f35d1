//! The exact index equals the reference, whatever is stored, removed, cleared and left.

use proptest::prelude::*;
use warmpath::routing::block::{BlockHash, BlockSize, ContentHash, EngineHash, Namespace};
use warmpath::routing::index::{Attach, ExactIndex, IndexError, Overlaps, ReferenceIndex};
use warmpath::routing::{Content, InstanceId, Prompt};

/// Few instances, names and contents, so that collisions, copies and holes are common.
const INSTANCES: u16 = 4;
const NAMES: u64 = 24;
const CONTENTS: u64 = 3;
const ROOTS: u64 = 2;

#[derive(Clone, Debug)]
enum Step {
    Join(u16),
    Leave(u16),
    Clear(u16),
    /// Parent name (or a root), names, contents.
    Store(u16, Result<u64, u64>, Vec<(u64, u64)>),
    Remove(u16, Vec<u64>),
}

fn step() -> impl Strategy<Value = Step> {
    let parent = prop_oneof![(0..NAMES).prop_map(Ok), (0..ROOTS).prop_map(Err)];
    let blocks = prop::collection::vec((0..NAMES, 0..CONTENTS), 1..6);
    prop_oneof![
        2 => (0..INSTANCES).prop_map(Step::Join),
        1 => (0..INSTANCES).prop_map(Step::Leave),
        1 => (0..INSTANCES).prop_map(Step::Clear),
        12 => (0..INSTANCES, parent, blocks).prop_map(|(i, parent, blocks)| Step::Store(i, parent, blocks)),
        8 => (0..INSTANCES, prop::collection::vec(0..NAMES, 1..4)).prop_map(|(i, names)| Step::Remove(i, names)),
    ]
}

fn root(id: u64) -> BlockHash {
    BlockHash::root(&Namespace::of_model(["base", "other"][id as usize]), BlockSize::DEFAULT, 0)
}

fn apply(step: &Step, exact: &ExactIndex, reference: &mut ReferenceIndex) -> [Result<(), IndexError>; 2] {
    match step {
        Step::Join(instance) => {
            exact.join(InstanceId(*instance));
            reference.join(InstanceId(*instance));
            [Ok(()), Ok(())]
        }
        Step::Leave(instance) => [exact.leave(InstanceId(*instance)), reference.leave(InstanceId(*instance))],
        Step::Clear(instance) => [exact.clear(InstanceId(*instance)), reference.clear(InstanceId(*instance))],
        Step::Store(instance, parent, blocks) => {
            let attach = match parent {
                Ok(name) => Attach::Block(EngineHash(*name)),
                Err(id) => Attach::Root(root(*id)),
            };
            let names: Vec<EngineHash> = blocks.iter().map(|&(name, _)| EngineHash(name)).collect();
            let contents: Vec<ContentHash> = blocks.iter().map(|&(_, content)| ContentHash(content)).collect();
            let (instance, content) = (InstanceId(*instance), Content::Hashes(&contents));
            [exact.store(instance, attach, &names, content), reference.store(instance, attach, &names, content)]
        }
        Step::Remove(instance, names) => {
            let names: Vec<EngineHash> = names.iter().map(|&name| EngineHash(name)).collect();
            [exact.remove(InstanceId(*instance), &names), reference.remove(InstanceId(*instance), &names)]
        }
    }
}

/// Every prompt of up to three blocks, under both roots, and one that is a token short of sparing its last block.
fn check_all_prompts(exact: &ExactIndex, reference: &ReferenceIndex) -> Result<(), TestCaseError> {
    let mut overlaps = Overlaps::default();
    for id in 0..ROOTS {
        for code in 0..CONTENTS.pow(3) {
            let contents = [code % 3, code / 3 % 3, code / 9].map(ContentHash);
            for tokens in [48, 49] {
                let prompt = Prompt::Blocks { contents: &contents, tokens };
                exact.find(&prompt, root(id), &mut overlaps);
                let expected = reference.find(&prompt, root(id));
                for instance in (0..INSTANCES).map(InstanceId) {
                    let wanted = expected.get(&instance).copied().unwrap_or(0);
                    prop_assert_eq!(overlaps.blocks(instance), wanted, "{} of {:?}", instance, contents);
                }
                prop_assert_eq!(overlaps.holders().len(), expected.len());
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn exact_equals_reference(steps in prop::collection::vec(step(), 1..60)) {
        let exact = ExactIndex::new(BlockSize::DEFAULT, usize::MAX);
        let mut reference = ReferenceIndex::new(BlockSize::DEFAULT);
        for instance in (0..INSTANCES).map(InstanceId) {
            exact.join(instance);
            reference.join(instance);
        }
        for step in &steps {
            let [got, wanted] = apply(step, &exact, &mut reference);
            prop_assert_eq!(got, wanted, "{:?}", step);
        }
        check_all_prompts(&exact, &reference)?;
        prop_assert_eq!(exact.stats().entries, reference.entries());
        for instance in (0..INSTANCES).map(InstanceId) {
            let _ = exact.leave(instance);
        }
        prop_assert_eq!((exact.stats().entries, exact.stats().blocks), (0, 0), "what all left is empty");
    }
}

fn names(ids: impl IntoIterator<Item = u64>) -> Vec<EngineHash> {
    ids.into_iter().map(EngineHash).collect()
}

/// An index with one instance that holds a chain of `blocks` blocks, whose content is their position.
fn chain_of(blocks: u64, entries_max: usize) -> (ExactIndex, Result<(), IndexError>) {
    let exact = ExactIndex::new(BlockSize::DEFAULT, entries_max);
    exact.join(InstanceId(0));
    let contents: Vec<ContentHash> = (0..blocks).map(ContentHash).collect();
    let stored = exact.store(InstanceId(0), Attach::Root(root(0)), &names(0..blocks), Content::Hashes(&contents));
    (exact, stored)
}

fn overlap(exact: &ExactIndex, blocks: u64) -> u32 {
    let contents: Vec<ContentHash> = (0..blocks).map(ContentHash).collect();
    let prompt = Prompt::Blocks { contents: &contents, tokens: blocks as u32 * 16 + 1 };
    let mut overlaps = Overlaps::default();
    exact.find(&prompt, root(0), &mut overlaps);
    overlaps.blocks(InstanceId(0))
}

#[test]
fn a_hole_cuts_the_prefix_until_it_is_filled() {
    let (exact, stored) = chain_of(5, usize::MAX);
    stored.unwrap();
    exact.remove(InstanceId(0), &names([2])).unwrap();
    assert_eq!(overlap(&exact, 5), 2);
    let again = Content::Hashes(&[ContentHash(2)]);
    exact.store(InstanceId(0), Attach::Block(EngineHash(1)), &names([2]), again).unwrap();
    assert_eq!(overlap(&exact, 5), 5);
}

#[test]
fn a_block_stored_twice_is_removed_twice() {
    let (exact, stored) = chain_of(2, usize::MAX);
    stored.unwrap();
    let copy = Content::Hashes(&[ContentHash(1)]);
    exact.store(InstanceId(0), Attach::Block(EngineHash(0)), &names([1]), copy).unwrap();
    exact.remove(InstanceId(0), &names([1])).unwrap();
    assert_eq!(overlap(&exact, 2), 2, "one copy is left");
    exact.remove(InstanceId(0), &names([1])).unwrap();
    assert_eq!(overlap(&exact, 2), 1);
}

#[test]
fn a_full_index_refuses_and_says_how_much_it_took() {
    let (exact, stored) = chain_of(5, 3);
    let full = IndexError::Full { instance: InstanceId(0), stored: 3, blocks: 5, limit: 3 };
    assert_eq!(stored, Err(full));
    assert_eq!(overlap(&exact, 5), 3, "what was taken is right");
    exact.clear(InstanceId(0)).unwrap();
    let one = Content::Hashes(&[ContentHash(0)]);
    exact.store(InstanceId(0), Attach::Root(root(0)), &names([9]), one).unwrap();
    assert_eq!(overlap(&exact, 5), 1, "room that was given back can be used again");
}

#[test]
fn tokens_and_their_content_hashes_are_the_same_blocks() {
    let tokens: Vec<u32> = (0..48).collect();
    let exact = ExactIndex::new(BlockSize::DEFAULT, usize::MAX);
    exact.join(InstanceId(0));
    exact.store(InstanceId(0), Attach::Root(root(0)), &names(0..3), Content::Tokens(&tokens)).unwrap();
    let contents: Vec<ContentHash> = tokens.chunks(16).map(ContentHash::of_tokens).collect();
    let mut overlaps = Overlaps::default();
    for prompt in [Prompt::Tokens(&tokens), Prompt::Blocks { contents: &contents, tokens: 48 }] {
        exact.find(&prompt, root(0), &mut overlaps);
        assert_eq!(overlaps.blocks(InstanceId(0)), 2, "the last block of an exact repeat is computed again");
    }
    let mismatch = exact.store(InstanceId(0), Attach::Root(root(0)), &names(0..2), Content::Tokens(&tokens));
    let message = mismatch.unwrap_err().to_string();
    assert!(message.contains("2 blocks of 16 tokens with content for 48"), "{message}");
}
