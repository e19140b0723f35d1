//! The index under a randomised scheduler, which switches threads at every lock and every atomic:
//! `RUSTFLAGS="--cfg shuttle" cargo test --no-default-features --test index_shuttle --target-dir target/shuttle`.
//! `WARMPATH_SHUTTLE_SCHEDULES` says how many schedules each test tries by chance, and as many again by priorities.
//!
//! It explores orders, not weaker memory than sequential consistency; the fences are argued for where they stand.
#![cfg(shuttle)]

use shuttle::sync::Arc;
use shuttle::thread;
use warmpath::routing::block::{BlockHash, BlockSize, ContentHash, EngineHash};
use warmpath::routing::index::{Attach, ExactIndex, Overlaps, ReferenceIndex};
use warmpath::routing::{Content, InstanceId, Prompt, Tier};

const ROOT: BlockHash = BlockHash(7);
/// Schedules that each test tries, twice.
const SCHEDULES: usize = 3000;

fn schedules() -> usize {
    let asked = std::env::var("WARMPATH_SHUTTLE_SCHEDULES").ok();
    asked.map_or(SCHEDULES, |asked| asked.parse().expect("WARMPATH_SHUTTLE_SCHEDULES is a number"))
}

/// One fact about one instance.
#[derive(Clone, Copy)]
enum Step {
    /// Blocks of a path, each named by its place in the path and the path.
    Store(Tier, &'static [u64]),
    /// The names of blocks of a path, from its end, so many.
    RemoveTail(Tier, &'static [u64], usize),
    /// One block in the middle.
    Remove(Tier, &'static [u64], usize),
    Clear,
    Leave,
}

fn contents(path: &[u64]) -> Vec<ContentHash> {
    path.iter().map(|&content| ContentHash(content.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect()
}

fn names(path: &[u64]) -> Vec<EngineHash> {
    (1..=path.len()).map(|end| EngineHash(path[..end].iter().fold(1, |name, &content| name * 31 + content))).collect()
}

/// What both indexes can be told. An instance that left joins again at once.
fn tell(exact: Option<&ExactIndex>, reference: Option<&mut ReferenceIndex>, instance: InstanceId, step: Step) {
    let (path, tier) = match step {
        Step::Store(tier, path) | Step::RemoveTail(tier, path, _) | Step::Remove(tier, path, _) => (path, tier),
        Step::Clear | Step::Leave => (&[][..], Tier::Gpu),
    };
    let (contents, mut names) = (contents(path), names(path));
    match step {
        Step::RemoveTail(_, _, count) => {
            names.reverse();
            names.truncate(count);
        }
        Step::Remove(_, _, at) => names = vec![names[at]],
        Step::Store(..) | Step::Clear | Step::Leave => {}
    }
    if let Some(index) = exact {
        let _ = match step {
            Step::Store(..) => index.store(instance, tier, Attach::Root(ROOT), &names, Content::Hashes(&contents)),
            Step::RemoveTail(..) | Step::Remove(..) => index.remove(instance, tier, &names),
            Step::Clear => index.clear(instance),
            Step::Leave => index.leave(instance).map(|()| index.join(instance)),
        };
    }
    if let Some(index) = reference {
        let _ = match step {
            Step::Store(..) => index.store(instance, tier, Attach::Root(ROOT), &names, Content::Hashes(&contents)),
            Step::RemoveTail(..) | Step::Remove(..) => index.remove(instance, tier, &names),
            Step::Clear => index.clear(instance),
            Step::Leave => index.leave(instance).map(|()| index.join(instance)),
        };
    }
}

fn find(index: &ExactIndex, path: &[u64], overlaps: &mut Overlaps) {
    let contents = contents(path);
    index.find(&Prompt::Blocks { contents: &contents, tokens: contents.len() as u32 + 1 }, ROOT, overlaps);
}

/// Instance 0 holds `held` throughout; a thread for each script tells of one further instance; a reader asks all along.
/// Instance 0 must be answered exactly at all times, each other one with no more than its script ever stores, and in the end
/// everything is as the reference says.
fn check(held: &'static [&'static [u64]], scripts: &'static [&'static [Step]], asked: &'static [&'static [u64]]) {
    let run = move || {
        let block_size = BlockSize::new(1).unwrap();
        let (index, mut reference) = (Arc::new(ExactIndex::new(block_size, 1 << 24)), ReferenceIndex::new(block_size));
        for instance in 0..=scripts.len() as u16 {
            index.join(InstanceId(instance));
            reference.join(InstanceId(instance));
        }
        for path in held {
            tell(Some(&index), Some(&mut reference), InstanceId(0), Step::Store(Tier::Gpu, path));
        }
        let own: Vec<Option<u32>> = asked
            .iter()
            .map(|path| {
                let contents = contents(path);
                let prompt = Prompt::Blocks { contents: &contents, tokens: contents.len() as u32 + 1 };
                reference.find(&prompt, ROOT).get(&InstanceId(0)).map(|tiers| tiers.iter().sum())
            })
            .collect();
        let mut threads = Vec::new();
        for (script, instance) in scripts.iter().zip(1..) {
            let index = Arc::clone(&index);
            threads.push(thread::spawn(move || {
                script.iter().for_each(|&step| tell(Some(&index), None, InstanceId(instance), step));
            }));
        }
        let reader = Arc::clone(&index);
        threads.push(thread::spawn(move || {
            let mut overlaps = Overlaps::default();
            for (path, own) in asked.iter().zip(own).cycle().take(asked.len() * 2) {
                find(&reader, path, &mut overlaps);
                assert_eq!(overlaps.blocks(InstanceId(0)), own.unwrap_or(0), "{path:?}");
                for (script, instance) in scripts.iter().zip(1..) {
                    let most = script.iter().map(|step| match step {
                        Step::Store(_, stored) => stored.iter().zip(*path).take_while(|(a, b)| a == b).count(),
                        Step::RemoveTail(..) | Step::Remove(..) | Step::Clear | Step::Leave => 0,
                    });
                    assert!(overlaps.blocks(InstanceId(instance)) as usize <= most.max().unwrap_or(0), "{path:?}");
                }
            }
        }));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        for (script, instance) in scripts.iter().zip(1..) {
            script.iter().for_each(|&step| tell(None, Some(&mut reference), InstanceId(instance), step));
        }
        let mut overlaps = Overlaps::default();
        for path in asked {
            find(&index, path, &mut overlaps);
            let found: Vec<_> = overlaps.holders().map(|holder| (holder, overlaps.by_tier(holder))).collect();
            let contents = contents(path);
            let prompt = Prompt::Blocks { contents: &contents, tokens: contents.len() as u32 + 1 };
            let expected: Vec<_> = reference.find(&prompt, ROOT).into_iter().collect();
            assert_eq!(found, expected, "{path:?}");
        }
        let stats = index.stats();
        assert_eq!((stats.blocks, stats.entries), (reference.blocks(), reference.entries()));
    };
    shuttle::check_random(run, schedules());
    shuttle::check_pct(run, schedules(), 3);
}

const G: Tier = Tier::Gpu;

#[test]
fn two_who_store_the_same_meet() {
    const LONG: &[u64] = &[1, 2, 3, 4];
    const FORK: &[u64] = &[1, 2, 5, 6];
    check(
        &[],
        &[&[Step::Store(G, LONG), Step::Store(G, FORK)], &[Step::Store(G, FORK), Step::Store(G, LONG)]],
        &[LONG, FORK],
    );
}

#[test]
fn what_one_removes_another_extends() {
    const SHORT: &[u64] = &[1, 2, 3];
    const LONG: &[u64] = &[1, 2, 3, 4, 5];
    const FORK: &[u64] = &[1, 2, 9];
    check(
        &[&[1, 2]],
        &[
            &[Step::Store(G, SHORT), Step::RemoveTail(G, SHORT, 3), Step::Store(G, FORK)],
            &[Step::Store(G, LONG), Step::RemoveTail(G, LONG, 4), Step::Store(G, SHORT)],
        ],
        &[LONG, FORK],
    );
}

#[test]
fn holes_open_and_heal_under_a_reader() {
    const LONG: &[u64] = &[1, 2, 3, 4, 5];
    const FORK: &[u64] = &[1, 2, 3, 8];
    check(
        &[LONG],
        &[
            &[Step::Store(G, LONG), Step::Remove(G, LONG, 1), Step::Store(G, &[1, 2]), Step::RemoveTail(G, LONG, 2)],
            &[Step::Store(G, FORK), Step::Remove(G, FORK, 2), Step::Clear],
        ],
        &[LONG, FORK],
    );
}

#[test]
fn copies_and_tiers_are_counted_under_a_reader() {
    const PATH: &[u64] = &[1, 2, 3];
    check(
        &[PATH],
        &[
            &[
                Step::Store(G, PATH),
                Step::Store(Tier::Cpu, PATH),
                Step::Store(G, &[1, 2]),
                Step::RemoveTail(G, PATH, 3),
            ],
            &[
                Step::Store(Tier::Storage, PATH),
                Step::Store(G, PATH),
                Step::RemoveTail(Tier::Storage, PATH, 1),
                Step::Leave,
            ],
            &[Step::Store(G, &[1, 2, 4]), Step::RemoveTail(G, &[1, 2, 4], 2)],
        ],
        &[PATH, &[1, 2, 4]],
    );
}

#[test]
fn a_run_that_is_reused_is_not_mistaken() {
    check(
        &[],
        &[
            &[Step::Store(G, &[1, 2]), Step::Clear, Step::Store(G, &[3, 4]), Step::Clear, Step::Store(G, &[5])],
            &[Step::Store(G, &[3, 4]), Step::RemoveTail(G, &[3, 4], 2), Step::Store(G, &[1, 2, 6])],
        ],
        &[&[1, 2, 6], &[3, 4], &[5]],
    );
}

/// Five who hold one block: more than its set's number can spell out, then fewer again.
#[test]
fn a_set_that_grows_and_shrinks_is_whole_at_all_times() {
    const PATH: &[u64] = &[1, 2];
    check(
        &[PATH],
        &[
            &[Step::Store(G, PATH), Step::RemoveTail(G, PATH, 1)],
            &[Step::Store(G, PATH), Step::Clear],
            &[Step::Store(G, PATH), Step::Remove(G, PATH, 0)],
            &[Step::Store(G, PATH), Step::Store(Tier::Cpu, PATH), Step::RemoveTail(G, PATH, 2)],
        ],
        &[PATH],
    );
}

/// A run that another one hangs from, and stops hanging from, while prompts go through both.
#[test]
fn what_hangs_from_a_run_is_found_as_long_as_it_hangs_there() {
    const LONG: &[u64] = &[1, 2, 3, 4];
    const FORK: &[u64] = &[1, 2, 5];
    check(
        &[FORK],
        &[
            &[Step::Store(G, LONG), Step::RemoveTail(G, LONG, 2), Step::Store(G, LONG)],
            &[Step::Store(G, FORK), Step::RemoveTail(G, FORK, 1), Step::Store(G, &[1, 6])],
        ],
        &[FORK, LONG],
    );
}
