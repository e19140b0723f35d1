//! The index under real threads: writers of different instances on one set of prompts, and readers all the while.

use std::sync::atomic::{AtomicBool, Ordering};
use warmpath::routing::block::{BlockHash, BlockSize, ContentHash, EngineHash, Namespace};
use warmpath::routing::index::{Attach, ExactIndex, Overlaps};
use warmpath::routing::{Content, InstanceId, Prompt, Tier};

const PROMPTS: u64 = 40;
const BLOCKS: u64 = 60;

/// Prompt `prompt`'s blocks: the first third is shared by all, the second by every fourth.
fn contents(prompt: u64) -> Vec<ContentHash> {
    let family = |at: u64| [0, prompt % 4 + 1, prompt + 10][(at * 3 / BLOCKS) as usize];
    (0..BLOCKS).map(|at| ContentHash::of_tokens(&[at as u32, family(at) as u32])).collect()
}

fn names(contents: &[ContentHash], root: BlockHash) -> Vec<EngineHash> {
    (1..=contents.len()).map(|end| EngineHash(root.descendant(&contents[..end]).0)).collect()
}

/// Instance 0 holds every prompt and nobody writes about it: it must be answered exactly whatever the others do. Afterwards
/// everything the others held is gone, and nothing of it is left.
#[test]
fn who_is_not_written_about_is_answered_exactly() {
    let index = ExactIndex::new(BlockSize::DEFAULT, usize::MAX);
    let root = BlockHash::root(&Namespace::of_model("m"), BlockSize::DEFAULT, 0);
    let prompts: Vec<Vec<ContentHash>> = (0..PROMPTS).map(contents).collect();
    let store = |instance: u16, prompt: &[ContentHash]| {
        let (names, content) = (names(prompt, root), Content::Hashes(prompt));
        index.store(InstanceId(instance), Tier::Gpu, Attach::Root(root), &names, content).unwrap();
    };
    (0..4).for_each(|instance| index.join(InstanceId(instance)));
    prompts.iter().step_by(2).for_each(|prompt| store(0, prompt));
    let before = index.stats();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (1..4_u16)
            .map(|instance| {
                let (prompts, store, index) = (&prompts, &store, &index);
                scope.spawn(move || {
                    for round in 0..30_u64 {
                        for at in 0..PROMPTS {
                            let prompt = &prompts[((at * 7 + u64::from(instance)) % PROMPTS) as usize];
                            store(instance, &prompt[..(10 + (round * 13 + at) % 50) as usize]);
                        }
                        match round % 3 {
                            0 => index.clear(InstanceId(instance)).unwrap(),
                            1 => {
                                index.leave(InstanceId(instance)).unwrap();
                                index.join(InstanceId(instance));
                            }
                            _ => {
                                for at in 0..PROMPTS {
                                    let prompt = &prompts[((at * 7 + u64::from(instance)) % PROMPTS) as usize];
                                    let mut names = names(&prompt[..(10 + (round * 13 + at) % 50) as usize], root);
                                    names.reverse();
                                    index.remove(InstanceId(instance), Tier::Gpu, &names).unwrap();
                                }
                            }
                        }
                    }
                })
            })
            .collect();
        for _ in 0..2 {
            scope.spawn(|| {
                let mut overlaps = Overlaps::default();
                while !done.load(Ordering::Relaxed) {
                    for (at, prompt) in prompts.iter().enumerate() {
                        let asked = Prompt::Blocks { contents: prompt, tokens: BLOCKS as u32 * 16 + 1 };
                        index.find(&asked, root, &mut overlaps);
                        // What it holds of a prompt that it was not given is what that shares with one that it was.
                        let expected = if at % 2 == 0 { BLOCKS } else { BLOCKS / 3 };
                        assert_eq!(u64::from(overlaps.blocks(InstanceId(0))), expected, "prompt {at}");
                    }
                }
            });
        }
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, Ordering::Relaxed);
    });
    (1..4).for_each(|instance| index.leave(InstanceId(instance)).unwrap());
    let after = index.stats();
    assert_eq!((after.blocks, after.entries), (before.blocks, before.entries));
}
