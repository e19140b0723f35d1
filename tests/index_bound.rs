//! The bound in bytes covers what is rare too: further copies, further names, shared sets.

use warmpath::routing::block::{BlockHash, BlockSize, ContentHash, EngineHash};
use warmpath::routing::index::{Attach, ExactIndex, IndexError, Overlaps};
use warmpath::routing::{Content, InstanceId, Prompt, Tier};

const ROOT: BlockHash = BlockHash(5);

fn contents(blocks: u64) -> Vec<ContentHash> {
    (0..blocks).map(|block| ContentHash::of_tokens(&[block as u32])).collect()
}

fn store(index: &ExactIndex, instance: u16, names: u64, contents: &[ContentHash]) -> Result<(), IndexError> {
    let names: Vec<EngineHash> = (names..names + contents.len() as u64).map(EngineHash).collect();
    index.store(InstanceId(instance), Tier::Gpu, Attach::Root(ROOT), &names, Content::Hashes(contents))
}

#[test]
fn copies_and_further_names_are_counted_and_stop_at_the_bound() {
    const LIMIT: usize = 400_000;
    const SLACK: usize = 40_000;
    let index = ExactIndex::new(BlockSize::new(1).unwrap(), LIMIT);
    index.join(InstanceId(0));
    let contents = contents(2000);
    store(&index, 0, 0, &contents).unwrap();
    let once = index.stats();
    store(&index, 0, 0, &contents).unwrap();
    let twice = index.stats();
    assert!(twice.bytes >= once.bytes + 2000 * 20, "{} bytes, then {}", once.bytes, twice.bytes);
    assert_eq!(twice.entries, 2000);
    // Another name for every block, in batches of a hundred, until no more fit.
    let full = (1..2000_u64).find_map(|round| store(&index, 0, round * 10_000, &contents[..100]).err());
    assert!(matches!(full, Some(IndexError::Full { instance: InstanceId(0), limit_bytes: LIMIT, .. })), "{full:?}");
    assert!(index.stats().bytes <= LIMIT + SLACK, "{} bytes", index.stats().bytes);
    // What is held is answered all the same, and what is forgotten makes room.
    let mut overlaps = Overlaps::default();
    index.find(&Prompt::Blocks { contents: &contents, tokens: 2001 }, ROOT, &mut overlaps);
    assert_eq!(overlaps.blocks(InstanceId(0)), 2000);
    index.clear(InstanceId(0)).unwrap();
    assert!(index.stats().bytes < once.bytes);
    store(&index, 0, 0, &contents).unwrap();
}

/// Every set of many holders takes memory, for its members and for being found again; all of it is counted.
#[test]
fn sets_are_counted() {
    let index = ExactIndex::new(BlockSize::new(1).unwrap(), usize::MAX);
    let contents = contents(1000);
    for instance in 0..12 {
        index.join(InstanceId(instance));
        store(&index, instance, 0, &contents[..8]).unwrap();
    }
    let before = index.stats();
    for instance in 12..200 {
        index.join(InstanceId(instance));
        store(&index, instance, 0, &contents[..1000 - usize::from(instance)]).unwrap();
    }
    // Names take what they take; a set for each of 188 lengths comes on top.
    let names = 188 * (32 + 15) * 64;
    assert!(index.stats().bytes > before.bytes + names, "{} bytes, then {}", before.bytes, index.stats().bytes);
    assert_eq!(index.stats().blocks, 988);
}
