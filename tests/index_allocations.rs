//! A lookup and a decision allocate nothing once they have grown to the fleet and the prompts at hand.
#![allow(unsafe_code, reason = "an allocator is unsafe to write; this one only counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use warmpath::routing::block::{BlockHash, BlockSize, ContentHash, EngineHash, Namespace};
use warmpath::routing::index::{Attach, ExactIndex, Overlaps};
use warmpath::routing::{Config, Content, Fact, InstanceId, Knowledge, Parent, Prompt, Request, Router, Tier, Time};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.with(Cell::get);
    work();
    ALLOCATIONS.with(Cell::get) - before
}

fn names(count: u64) -> Vec<EngineHash> {
    (0..count).map(EngineHash).collect()
}

#[test]
fn a_lookup_allocates_nothing_in_the_steady_state() {
    let index = ExactIndex::new(BlockSize::DEFAULT, usize::MAX);
    let root = BlockHash::root(&Namespace::of_model("m"), BlockSize::DEFAULT, 0);
    let tokens: Vec<u32> = (0..32_768).collect();
    for instance in 0..64 {
        index.join(InstanceId(instance));
        let blocks = 2048 - usize::from(instance) * 16;
        let tier = [Tier::Gpu, Tier::Gpu, Tier::Cpu, Tier::Storage][usize::from(instance) % 4];
        let content = Content::Tokens(&tokens[..blocks * 16]);
        index.store(InstanceId(instance), tier, Attach::Root(root), &names(blocks as u64), content).unwrap();
    }
    let contents: Vec<ContentHash> = tokens.chunks(16).map(ContentHash::of_tokens).collect();
    let prompts = [
        Prompt::Tokens(&tokens),
        Prompt::Tokens(&tokens[..5000]),
        Prompt::Tokens(&tokens[7..]),
        Prompt::Blocks { contents: &contents, tokens: 32_768 },
    ];
    let mut overlaps = Overlaps::default();
    index.find(&prompts[0], root, &mut overlaps);
    assert_eq!(overlaps.blocks(InstanceId(0)), 2047);
    let count = allocations(|| prompts.iter().for_each(|prompt| index.find(prompt, root, &mut overlaps)));
    assert_eq!(count, 0);
}

#[test]
fn from_tokens_to_a_decision_only_the_booking_allocates() {
    let router = Router::new(Config::default());
    let tokens: Vec<u32> = (0..32_768).collect();
    for instance in (0..64).map(InstanceId) {
        router.learn(Fact::Joined { instance, model: "m", knowledge: Knowledge::Exact }, Time::ZERO).unwrap();
        let parent = Parent::Root { lora: None, cache_salt: None };
        let content = Content::Tokens(&tokens[..16 * 100]);
        let fact = Fact::Stored { instance, tier: Tier::Gpu, parent, blocks: &names(100), content };
        router.learn(fact, Time::ZERO).unwrap();
    }
    let request = Request { namespace: Namespace::of_model("m"), prompt: Prompt::Tokens(&tokens), session: None };
    let route = || {
        let decision = router.route(&request, Time::ZERO).unwrap();
        router.learn(Fact::FirstToken { request: decision.request }, Time::ZERO).unwrap();
        router.learn(Fact::Finished { request: decision.request, output_tokens: 1 }, Time::ZERO).unwrap();
    };
    // Instances that cost the same take turns: each grows its own queue once.
    (0..640).for_each(|_| route());
    // A reservation is an entry of an ordered map, whose first node is made when it is not empty any more.
    let count = allocations(|| (0..100).for_each(|_| route()));
    assert!(count <= 200, "{count} allocations in 100 requests");
}
