//! Which free block goes first.
//!
//! LRU is vLLM's and needs nothing but the pool's queue. The others are told of every use of a block, keep the free ones
//! in an order of their own, and are here to be compared. Blocks that hold nothing always go first.

mod clairvoyant;
mod flop_aware;
mod ranked;
mod s3_fifo;
mod workload_aware;

pub use clairvoyant::Foresight;

use super::cache::Slot;
use crate::routing::Time;
use crate::routing::block::BlockHash;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Which free block goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Eviction {
    /// The one that became free first, the tail of a prompt before its head: vLLM's.
    #[default]
    Lru,
    /// The one that was filled first, used since or not.
    Fifo,
    /// The one that served the fewest requests.
    Lfu,
    /// Greedy-dual with frequency and size (Cherkasova 1998): the least of a clock plus uses × cost. The clock is the rank
    /// of what was evicted last; the cost of a block grows with its depth, as attention over what is before it does.
    Gdfs,
    /// Three first-in-first-out queues (Yang et al., SOSP 2023): a small one for what is new, a main one for what was
    /// used again, and one of names of what went.
    S3Fifo,
    /// The one least likely to be used again soon, going by how soon others of its kind and turn were (Wang et al., ATC
    /// 2025, arXiv 2506.02634).
    WorkloadAware,
    /// The least of recency plus compute saved a byte, for a model of attention and state-space layers (Marconi, Pan et
    /// al., MLSys 2025, arXiv 2411.19379).
    FlopAware,
    /// The one that will be used again last (Belady 1966): a bound, possible only in hindsight. Who is not told what is to
    /// come (see [`Foresight`]) expects nothing, and evicts as LRU does.
    Clairvoyant,
}

impl Eviction {
    /// All of them.
    pub const ALL: [Eviction; 8] = [
        Eviction::Lru,
        Eviction::Fifo,
        Eviction::Lfu,
        Eviction::Gdfs,
        Eviction::S3Fifo,
        Eviction::WorkloadAware,
        Eviction::FlopAware,
        Eviction::Clairvoyant,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Eviction::Lru => "lru",
            Eviction::Fifo => "fifo",
            Eviction::Lfu => "lfu",
            Eviction::Gdfs => "gdfs",
            Eviction::S3Fifo => "s3_fifo",
            Eviction::WorkloadAware => "workload_aware",
            Eviction::FlopAware => "flop_aware",
            Eviction::Clairvoyant => "clairvoyant",
        }
    }

    /// What keeps the order of `blocks` blocks; `None` for the pool's own queue.
    pub(super) fn order(self, blocks: u32) -> Option<Box<dyn Order>> {
        match self {
            Eviction::Lru => None,
            Eviction::Fifo => Some(Box::new(ranked::Ranked::fifo())),
            Eviction::Lfu => Some(Box::new(ranked::Ranked::lfu())),
            Eviction::Gdfs => Some(Box::new(ranked::Ranked::gdfs())),
            Eviction::S3Fifo => Some(Box::new(s3_fifo::S3Fifo::new(blocks))),
            Eviction::WorkloadAware => Some(Box::new(workload_aware::WorkloadAware::new(blocks))),
            Eviction::FlopAware => Some(Box::new(flop_aware::FlopAware::default())),
            Eviction::Clairvoyant => Some(Box::new(clairvoyant::Clairvoyant::default())),
        }
    }
}

impl fmt::Display for Eviction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An eviction policy's name that there is none of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown eviction policy {name:?}; there are {}", Eviction::ALL.map(Eviction::name).join(", "))]
pub struct UnknownEviction {
    /// What was asked for.
    pub name: String,
}

impl FromStr for Eviction {
    type Err = UnknownEviction;
    fn from_str(name: &str) -> Result<Self, UnknownEviction> {
        let known = Eviction::ALL.into_iter().find(|eviction| eviction.name() == name);
        known.ok_or_else(|| UnknownEviction { name: name.to_owned() })
    }
}

/// What sort of request uses a block: requests of one category are expected to be continued alike. A number that whoever
/// submits requests chooses; in replays, one for each kind and turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Category(pub u32);

/// A use of a block by a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Use {
    /// When.
    pub at: Time,
    /// The request's category.
    pub category: Category,
    /// The block's position in the request's chain.
    pub depth: u32,
    /// Blocks in the request's chain.
    pub reach: u32,
}

/// The free blocks that hold something, in an order of one's own.
pub(super) trait Order: Send {
    /// A block was filled with `content`; it is in use.
    fn fill(&mut self, slot: Slot, content: BlockHash, first: Use);

    /// A block that holds something is used again; it is in use, and was free or not.
    fn hit(&mut self, slot: Slot, content: BlockHash, again: Use);

    /// A block that holds something became free.
    fn free(&mut self, slot: Slot);

    /// A free block is no longer free.
    fn take(&mut self, slot: Slot);

    /// The free block that is to go, no longer free; `None` when there is none.
    fn evict(&mut self, now: Time) -> Option<Slot>;

    /// What is to come.
    fn foresee(&mut self, _future: Arc<Foresight>) {}
}

/// The entry of a slot, made when there is none yet.
fn entry<T: Clone + Default>(entries: &mut Vec<T>, slot: Slot) -> &mut T {
    let at = slot as usize;
    if entries.len() <= at {
        entries.resize(at + 1, T::default());
    }
    &mut entries[at]
}

#[cfg(test)]
mod tests {
    use super::super::cache::BlockPool;
    use super::*;

    fn used(seconds: u64, depth: u32, category: u32) -> Use {
        Use { at: Time::from_secs_f64(seconds as f64), category: Category(category), depth, reach: 3 }
    }

    /// Fills three blocks in order, uses the first again and then the second twice, and tells the order of eviction.
    fn order(eviction: Eviction) -> Vec<u64> {
        let mut pool = BlockPool::new(3, eviction);
        let slots: Vec<Slot> = (0..3).map(|_| pool.allocate().unwrap().0).collect();
        for (depth, &slot) in slots.iter().enumerate() {
            pool.publish(slot, BlockHash(depth as u64), used(depth as u64, depth as u32, 0));
        }
        for &slot in &slots {
            pool.release(&[slot]);
        }
        for (second, at) in (3..).zip([1, 1, 0]) {
            pool.reference(slots[at], used(second, at as u32, 0));
            pool.release(&[slots[at]]);
        }
        pool.set_now(Time::from_secs_f64(10.0));
        (0..3).map(|_| pool.allocate().unwrap().1.unwrap().0).collect()
    }

    #[test]
    fn each_policy_has_its_own_order() {
        let orders = Eviction::ALL.map(|eviction| (eviction.name(), order(eviction)));
        let expected = [
            ("lru", vec![2, 1, 0]),
            ("fifo", vec![0, 1, 2]),
            ("lfu", vec![2, 0, 1]),
            ("gdfs", vec![2, 0, 1]),
            // Used twice since it was new, the second goes to the main queue.
            ("s3_fifo", vec![0, 2, 1]),
            // One category: by recency.
            ("workload_aware", vec![2, 1, 0]),
            // One length: by recency.
            ("flop_aware", vec![2, 1, 0]),
            // Nothing is expected: as LRU.
            ("clairvoyant", vec![2, 1, 0]),
        ];
        assert_eq!(orders, expected);
    }

    #[test]
    fn names_read_back_and_unknown_ones_list_what_there_is() {
        assert!(Eviction::ALL.iter().all(|eviction| eviction.name().parse() == Ok(*eviction)));
        let error = "random".parse::<Eviction>().unwrap_err().to_string();
        let all = "lru, fifo, lfu, gdfs, s3_fifo, workload_aware, flop_aware, clairvoyant";
        assert_eq!(error, format!("unknown eviction policy \"random\"; there are {all}"));
    }
}
