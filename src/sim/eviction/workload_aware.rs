//! The policy of "KVCache Cache in the Wild" (Wang et al., ATC 2025, arXiv 2506.02634): the free block goes that is least
//! likely to be used again within the time that a block may expect to stay, going by its category.
//!
//! A category is the kind and turn of the request that used a block last. The time from one use to the next is taken to be
//! exponential in each category, with the mean of the last hour or two; blocks that went are remembered for it, so that
//! what is seen does not end where the cache does. So a block last used `t` ago, and not since, is used within `life`, the
//! mean time from last use to eviction, with probability `p · e^(−t/mean) · (1 − e^(−life/mean)) / (1 − p + p · e^(−t/mean))`,
//! where `p` is the share of uses that another followed. Of equals the one deeper in its prompt goes first.
//!
//! Ours, as the paper does not say: `p`, with it that a block long unused is likely one of those never used again, and that a
//! category of which little was seen is taken to be like all together.

use super::{Category, Order, Use, entry};
use crate::routing::Time;
use crate::routing::block::BlockHash;
use crate::sim::cache::Slot;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

pub(super) struct WorkloadAware {
    blocks: Vec<Block>,
    categories: BTreeMap<Category, Queue>,
    all: Fit,
    /// Mean seconds from last use to eviction.
    life: Option<f64>,
    freed: u64,
    /// The last use of every block seen lately, cached or not.
    seen: HashMap<BlockHash, (Time, Category)>,
    /// The same in order, to forget the oldest of them.
    seen_order: VecDeque<(BlockHash, Time)>,
    seen_max: usize,
}

#[derive(Clone, Default)]
struct Block {
    used: Time,
    category: Category,
    freed: u64,
}

/// The free blocks of one category: those used longest ago first, and of one request's the deepest.
#[derive(Default)]
struct Queue {
    free: BTreeSet<(u64, Slot)>,
    fit: Fit,
}

/// What was seen of one category.
#[derive(Default)]
struct Fit {
    began: Time,
    current: Sums,
    before: Sums,
}

#[derive(Clone, Copy, Default)]
struct Sums {
    uses: f64,
    reuses: f64,
    /// From use to reuse, all together.
    seconds: f64,
}

/// What is seen is forgotten after one to two of these.
const WINDOW_SECONDS: f64 = 3600.0;
/// Blocks remembered, in pools.
const SEEN_POOLS: usize = 8;
/// Uses of a category that count as much as those of all categories together.
const PRIOR: f64 = 256.0;
/// How much the last eviction counts in the mean.
const LIFE_SHARE: f64 = 0.01;

impl WorkloadAware {
    pub fn new(blocks: u32) -> Self {
        WorkloadAware {
            blocks: Vec::new(),
            categories: BTreeMap::new(),
            all: Fit::default(),
            life: None,
            freed: 0,
            seen: HashMap::new(),
            seen_order: VecDeque::new(),
            seen_max: SEEN_POOLS * blocks as usize,
        }
    }

    fn note(&mut self, content: BlockHash, now: &Use) {
        if let Some((then, category)) = self.seen.insert(content, (now.at, now.category)) {
            let seconds = now.at.seconds_since(then);
            let fit = &mut self.categories.entry(category).or_default().fit;
            for fit in [fit, &mut self.all] {
                fit.reused(now.at, seconds);
            }
        }
        for fit in [&mut self.categories.entry(now.category).or_default().fit, &mut self.all] {
            fit.used(now.at);
        }
        self.seen_order.push_back((content, now.at));
        while self.seen_order.len() > self.seen_max {
            let Some((content, at)) = self.seen_order.pop_front() else { return };
            if self.seen.get(&content).is_some_and(|(used, _)| *used == at) {
                self.seen.remove(&content);
            }
        }
    }
}

impl Order for WorkloadAware {
    fn fill(&mut self, slot: Slot, content: BlockHash, first: Use) {
        self.hit(slot, content, first);
    }

    fn hit(&mut self, slot: Slot, content: BlockHash, again: Use) {
        self.note(content, &again);
        let block = entry(&mut self.blocks, slot);
        (block.used, block.category) = (again.at, again.category);
    }

    fn free(&mut self, slot: Slot) {
        self.freed += 1;
        let block = &mut self.blocks[slot as usize];
        block.freed = self.freed;
        self.categories.entry(block.category).or_default().free.insert((block.freed, slot));
    }

    fn take(&mut self, slot: Slot) {
        let Block { category, freed, .. } = self.blocks[slot as usize];
        if let Some(queue) = self.categories.get_mut(&category) {
            queue.free.remove(&(freed, slot));
        }
    }

    fn evict(&mut self, now: Time) -> Option<Slot> {
        let all = self.all.sums();
        let age = |slot: Slot| now.seconds_since(self.blocks[slot as usize].used);
        let heads = self.categories.iter().filter_map(|(category, queue)| {
            let &(freed, slot) = queue.free.first()?;
            let chance = queue.fit.sums().chance(&all, age(slot), self.life);
            Some((chance, freed, *category, slot))
        });
        let (_, freed, category, slot) = heads.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))?;
        let seconds = age(slot);
        self.life = Some(self.life.map_or(seconds, |life| life + LIFE_SHARE * (seconds - life)));
        self.categories.get_mut(&category)?.free.remove(&(freed, slot));
        Some(slot)
    }
}

impl Fit {
    fn used(&mut self, now: Time) {
        self.turn(now);
        self.current.uses += 1.0;
    }

    fn reused(&mut self, now: Time, seconds: f64) {
        self.turn(now);
        self.current.reuses += 1.0;
        self.current.seconds += seconds;
    }

    fn turn(&mut self, now: Time) {
        if now.seconds_since(self.began) > WINDOW_SECONDS {
            self.before = std::mem::take(&mut self.current);
            self.began = now;
        }
    }

    fn sums(&self) -> Sums {
        let Sums { uses, reuses, seconds } = self.current;
        Sums {
            uses: uses + self.before.uses,
            reuses: reuses + self.before.reuses,
            seconds: seconds + self.before.seconds,
        }
    }
}

impl Sums {
    /// That a block last used `age` seconds ago is used within `life` more; `life` is without end until something went.
    fn chance(&self, all: &Sums, age: f64, life: Option<f64>) -> f64 {
        let share_of_all = all.reuses / all.uses.max(1.0);
        let mean_of_all = all.seconds / all.reuses.max(1.0);
        let share = (self.reuses + PRIOR * share_of_all) / (self.uses + PRIOR);
        let mean = ((self.seconds + PRIOR * mean_of_all) / (self.reuses + PRIOR)).max(1e-3);
        let within = life.map_or(1.0, |life| 1.0 - (-life / mean).exp());
        let left = share * (-age / mean).exp();
        left * within / (1.0 - share + left).max(1e-9)
    }
}
