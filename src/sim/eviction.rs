//! Which free block goes first.
//!
//! LRU is vLLM's and needs nothing but the pool's queue. The others rank a block when it becomes free; blocks that hold
//! nothing always go first, and equals go in the order in which they became free.
//!
//! Absent: policies with a history of what was evicted (S3-FIFO), and those that need to know a request's kind or the future.

use super::cache::Slot;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::str::FromStr;

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
}

impl Eviction {
    /// All of them.
    pub const ALL: [Eviction; 4] = [Eviction::Lru, Eviction::Fifo, Eviction::Lfu, Eviction::Gdfs];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Eviction::Lru => "lru",
            Eviction::Fifo => "fifo",
            Eviction::Lfu => "lfu",
            Eviction::Gdfs => "gdfs",
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

/// A block that became free.
pub(super) struct Free {
    /// It holds something.
    pub cached: bool,
    /// Requests that it served.
    pub uses: u32,
    /// Its position in its prompt.
    pub depth: u32,
    /// When it was filled, by order.
    pub filled: u64,
}

/// How a block's rank is found, the lowest goes first.
type Rank = fn(&Free, u64) -> u64;

/// The free blocks, by rank.
pub(super) struct Ranked {
    rank: Rank,
    /// By rank, then by when it became free.
    order: BTreeSet<(u64, u64, Slot)>,
    places: HashMap<Slot, (u64, u64)>,
    freed: u64,
    clock: u64,
}

/// What a block at the start of a prompt costs; one this many blocks further costs twice that.
const DEPTH_OF_DOUBLE_COST: u64 = 64;

impl Ranked {
    /// `None` for LRU, which needs no rank.
    pub fn of(eviction: Eviction) -> Option<Self> {
        let rank: Rank = match eviction {
            Eviction::Lru => return None,
            Eviction::Fifo => |free, _| free.filled,
            Eviction::Lfu => |free, _| u64::from(free.uses),
            Eviction::Gdfs => {
                |free, clock| clock + u64::from(free.uses) * (DEPTH_OF_DOUBLE_COST + u64::from(free.depth))
            }
        };
        Some(Ranked { rank, order: BTreeSet::new(), places: HashMap::new(), freed: 0, clock: 0 })
    }

    pub fn add(&mut self, slot: Slot, free: &Free) {
        // Above zero, so that what holds nothing goes before.
        let rank = if free.cached { (self.rank)(free, self.clock).saturating_add(1) } else { 0 };
        self.freed += 1;
        self.order.insert((rank, self.freed, slot));
        self.places.insert(slot, (rank, self.freed));
    }

    /// Taken, evicted or not.
    pub fn remove(&mut self, slot: Slot) {
        if let Some((rank, freed)) = self.places.remove(&slot) {
            self.order.remove(&(rank, freed, slot));
        }
    }

    /// The one to go.
    pub fn evict(&mut self) -> Option<Slot> {
        let &(rank, _, slot) = self.order.first()?;
        self.clock = self.clock.max(rank);
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::super::cache::BlockPool;
    use super::*;
    use crate::routing::block::BlockHash;

    /// Fills three blocks in order, uses the first again and then the second twice, and tells the order of eviction.
    fn order(eviction: Eviction) -> Vec<u64> {
        let mut pool = BlockPool::new(3, eviction);
        let slots: Vec<Slot> = (0..3).map(|_| pool.allocate().unwrap().0).collect();
        for (depth, &slot) in slots.iter().enumerate() {
            pool.publish(slot, BlockHash(depth as u64), depth as u32);
        }
        for &slot in &slots {
            pool.release(&[slot]);
        }
        for slot in [slots[1], slots[1], slots[0]] {
            pool.reference(slot);
            pool.release(&[slot]);
        }
        (0..3).map(|_| pool.allocate().unwrap().1.unwrap().0).collect()
    }

    #[test]
    fn each_policy_has_its_own_order() {
        let orders = Eviction::ALL.map(|eviction| (eviction.name(), order(eviction)));
        let expected =
            [("lru", vec![2, 1, 0]), ("fifo", vec![0, 1, 2]), ("lfu", vec![2, 0, 1]), ("gdfs", vec![2, 0, 1])];
        assert_eq!(orders, expected);
    }

    #[test]
    fn names_read_back_and_unknown_ones_list_what_there_is() {
        assert!(Eviction::ALL.iter().all(|eviction| eviction.name().parse() == Ok(*eviction)));
        let error = "random".parse::<Eviction>().unwrap_err().to_string();
        assert_eq!(error, "unknown eviction policy \"random\"; there are lru, fifo, lfu, gdfs");
    }
}
