//! How many blocks caches of limited size would have had.
//!
//! A request looks its blocks up from the start of the prompt until one is missing, then puts all of them into the cache.
//! LRU has them used from the end to the start, so that the start stays longest: without that, a cache would lose the
//! beginning of a prompt first and all behind it would be worthless. FIFO takes them in as they stand, beginning first. So do, it
//! seems, the curves that kvcache-ai/kvcache-blog published of Qwen-Bailian A: there, FIFO has 0.21, 0.63 and 0.81 of the hits of
//! LRU with 51, 264 and 1,322 blocks; on the imitation of that trace 0.22, 0.67 and 0.80, and 1.00, 0.97 and 0.90 the other way
//! round.
//!
//! Whoever uses a block uses all before it, so the blocks that a request uses again fall into few runs, each last used by one
//! and the same request. LRU and clairvoyant eviction look at these runs instead of at blocks, which makes a curve of
//! hundreds of sizes cheap.

use super::accesses::{Accesses, Latest, NEVER};
use serde::Serialize;
use std::collections::BinaryHeap;
use std::ops::Range;

/// What a cache throws out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Eviction {
    /// What came in first.
    Fifo,
    /// What was used longest ago.
    Lru,
    /// What will be used again last: the best that can be done, and only in hindsight.
    Clairvoyant,
}

impl Eviction {
    /// All, the best last.
    pub const ALL: [Eviction; 3] = [Eviction::Fifo, Eviction::Lru, Eviction::Clairvoyant];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Eviction::Fifo => "FIFO",
            Eviction::Lru => "LRU",
            Eviction::Clairvoyant => "clairvoyant",
        }
    }
}

/// Caches of any size that all requests go through.
pub(crate) struct Caches<'a> {
    accesses: &'a Accesses,
    /// In order of the requests that use again, and of the places in each.
    runs: Vec<Run>,
    /// Where the runs of each request end.
    ends: Vec<usize>,
    /// The same runs in order of the requests that used them before.
    by_last_user: Vec<usize>,
    last_user_ends: Vec<usize>,
}

/// Blocks that one request uses again after one other.
#[derive(Clone, Copy)]
struct Run {
    user: u32,
    last_user: u32,
    /// Their places, the same in both.
    begin: u32,
    end: u32,
    /// Blocks used more recently than the first of these, at that time. Of one more the second, as it was kept before.
    newer: u32,
}

impl Run {
    fn len(&self) -> usize {
        (self.end - self.begin) as usize
    }
}

impl Accesses {
    /// Caches that they go through.
    pub(crate) fn caches(&self) -> Caches<'_> {
        let mut last_users = vec![NEVER; self.distinct()];
        let mut runs: Vec<Run> = Vec::new();
        let mut ends = Vec::new();
        for (user, request) in (0_u32..).zip(self.requests()) {
            let first = runs.len();
            for (place, &block) in (0_u32..).zip(request) {
                let last_user = std::mem::replace(&mut last_users[block as usize], user);
                match runs[first..].last_mut() {
                    _ if last_user == NEVER => {}
                    Some(run) if run.last_user == last_user => run.end = place + 1,
                    Some(_) | None => runs.push(Run { user, last_user, begin: place, end: place + 1, newer: 0 }),
                }
            }
            ends.push(runs.len());
        }
        let mut by_last_user: Vec<usize> = (0..runs.len()).collect();
        by_last_user.sort_by_key(|&run| runs[run].last_user);
        let is_of = |user: usize| move |run: &Run| run.last_user as usize <= user;
        let last_user_ends =
            (0..ends.len()).map(|user| by_last_user.partition_point(|&run| is_of(user)(&runs[run]))).collect();
        let mut caches = Caches { accesses: self, runs, ends, by_last_user, last_user_ends };
        caches.count_newer();
        caches
    }
}

/// The numbers from one end to the next.
fn between(ends: &[usize], index: usize) -> Range<usize> {
    index.checked_sub(1).map_or(0, |before| ends[before])..ends[index]
}

impl Caches<'_> {
    fn count_newer(&mut self) {
        let mut latest = Latest::new(self.ends.len());
        let mut seen = 0;
        for (user, request) in self.accesses.requests().enumerate() {
            let runs = &mut self.runs[between(&self.ends, user)];
            for run in &mut *runs {
                run.newer = seen - latest.before(run.last_user + 1);
            }
            let mut again = 0;
            for run in runs {
                latest.add(run.last_user, -(run.len() as i32));
                again += run.len();
            }
            latest.add(user as u32, request.len() as i32);
            seen += (request.len() - again) as u32;
        }
    }

    /// Blocks that a cache of `capacity` blocks would have had.
    pub(crate) fn hits(&self, eviction: Eviction, capacity: usize) -> u64 {
        let mut all = 0;
        self.each_hits(eviction, capacity, &mut |_, hits| all += hits as u64);
        all
    }

    /// The same of each request, told with its number.
    pub(crate) fn each_hits(&self, eviction: Eviction, capacity: usize, told: &mut dyn FnMut(usize, usize)) {
        match eviction {
            Eviction::Fifo => self.fifo(capacity, told),
            Eviction::Lru => self.lru(capacity, told),
            Eviction::Clairvoyant => self.clairvoyant(capacity, told),
        }
    }

    /// A block is there until as many as there is room for came in after it.
    fn fifo(&self, capacity: usize, told: &mut dyn FnMut(usize, usize)) {
        let mut came_in = vec![0_u32; self.accesses.distinct()];
        let mut newest = 0_u32;
        for (number, request) in self.accesses.requests().enumerate() {
            let is_there = |came_in: u32, newest: u32| came_in > 0 && ((newest - came_in) as usize) < capacity;
            told(number, request.iter().take_while(|&&block| is_there(came_in[block as usize], newest)).count());
            for &block in request {
                let came_in = &mut came_in[block as usize];
                if !is_there(*came_in, newest) {
                    newest += 1;
                    *came_in = newest;
                }
            }
        }
    }

    /// A block is there as long as fewer than there is room for were used after it (Mattson et al., "Evaluation techniques for
    /// storage hierarchies", 1970).
    fn lru(&self, capacity: usize, told: &mut dyn FnMut(usize, usize)) {
        for number in 0..self.ends.len() {
            let runs = self.runs[between(&self.ends, number)].iter();
            told(number, runs.map(|run| capacity.saturating_sub(run.newer as usize).min(run.len())).sum());
        }
    }

    /// Belady's algorithm with bypass: after each request keep those blocks, of the cached and the new ones, whose next
    /// use is soonest; of equally soon ones the foremost. As a block's predecessor is used whenever the block is, what is
    /// kept is always whole prefixes, so that every kept block is a hit; and what is kept for one request lies together in it.
    fn clairvoyant(&self, capacity: usize, told: &mut dyn FnMut(usize, usize)) {
        // For each request, the places of the blocks that are kept until it comes.
        let mut kept = vec![0_u32..0; self.ends.len()];
        let mut latest_first: BinaryHeap<u32> = BinaryHeap::new();
        let mut kept_blocks = 0;
        for number in 0..self.ends.len() {
            let hits = kept[number].len();
            debug_assert!(hits == 0 || kept[number].start == 0, "what is kept is whole prefixes");
            told(number, hits);
            kept_blocks -= hits;
            for &run in &self.by_last_user[between(&self.last_user_ends, number)] {
                let run = self.runs[run];
                let places = &mut kept[run.user as usize];
                if Range::is_empty(places) {
                    *places = run.begin..run.end;
                    latest_first.push(run.user);
                } else {
                    debug_assert_eq!(places.start, run.end, "what is kept lies together");
                    places.start = run.begin;
                }
                kept_blocks += run.len();
            }
            while kept_blocks > capacity {
                let Some(&latest) = latest_first.peek() else { unreachable!("what is kept is in the heap") };
                let places = &mut kept[latest as usize];
                let dropped = places.len().min(kept_blocks - capacity);
                places.end -= dropped as u32;
                kept_blocks -= dropped;
                if Range::is_empty(places) {
                    latest_first.pop();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::stats::accesses::tests::accesses;
    use proptest::prelude::*;

    fn prompts() -> impl Strategy<Value = Vec<Vec<u64>>> {
        prop::collection::vec(prop::collection::vec(0..3_u64, 0..6), 0..60)
    }

    /// Blocks of each request in a cache that is a list: what to throw out stands first.
    fn by_the_book(accesses: &Accesses, capacity: usize, eviction: Eviction) -> Vec<usize> {
        let mut list: Vec<u32> = Vec::new();
        let mut all = Vec::new();
        for request in accesses.requests() {
            all.push(request.iter().take_while(|block| list.contains(block)).count());
            let mut blocks = request.to_vec();
            if eviction == Eviction::Lru {
                blocks.reverse();
            }
            for block in blocks {
                if eviction == Eviction::Lru {
                    list.retain(|&other| other != block);
                }
                if !list.contains(&block) {
                    list.push(block);
                }
                if list.len() > capacity {
                    list.remove(0);
                }
            }
        }
        all
    }

    /// The same where those are kept whose next use is soonest.
    fn by_hindsight(accesses: &Accesses, capacity: usize) -> Vec<usize> {
        let requests: Vec<&[u32]> = accesses.requests().collect();
        let mut kept: Vec<u32> = Vec::new();
        let mut all = Vec::new();
        for (number, request) in requests.iter().enumerate() {
            all.push(request.iter().take_while(|block| kept.contains(block)).count());
            kept.extend(request.iter().filter(|&block| !kept.contains(block)).copied().collect::<Vec<_>>());
            let next_use = |block: u32| {
                let later = (number + 1..).zip(&requests[number + 1..]);
                later
                    .filter_map(|(later, blocks)| Some((later, blocks.iter().position(|&other| other == block)?)))
                    .next()
            };
            let mut again: Vec<_> = kept.iter().filter_map(|&block| Some((next_use(block)?, block))).collect();
            again.sort_unstable();
            kept = again.into_iter().take(capacity).map(|(_, block)| block).collect();
        }
        all
    }

    fn hits(accesses: &Accesses, eviction: Eviction, capacity: usize) -> Vec<usize> {
        let mut all = Vec::new();
        accesses.caches().each_hits(eviction, capacity, &mut |number, hits| {
            assert_eq!(number, all.len());
            all.push(hits);
        });
        all
    }

    proptest! {
        #[test]
        fn every_eviction_is_what_the_book_says(prompts in prompts(), capacity in 0..12_usize) {
            let accesses = accesses(&prompts);
            prop_assert_eq!(hits(&accesses, Eviction::Fifo, capacity), by_the_book(&accesses, capacity, Eviction::Fifo));
            prop_assert_eq!(hits(&accesses, Eviction::Lru, capacity), by_the_book(&accesses, capacity, Eviction::Lru));
            prop_assert_eq!(hits(&accesses, Eviction::Clairvoyant, capacity), by_hindsight(&accesses, capacity));
        }

        #[test]
        fn nobody_beats_clairvoyance(prompts in prompts(), capacity in 0..20_usize) {
            let accesses = accesses(&prompts);
            let caches = accesses.caches();
            let best = caches.hits(Eviction::Clairvoyant, capacity);
            let all = caches.hits(Eviction::Clairvoyant, accesses.distinct());
            for eviction in Eviction::ALL {
                let hits = caches.hits(eviction, capacity);
                prop_assert!(hits <= best, "{} has {hits}, clairvoyant {best}", eviction.name());
                prop_assert_eq!(caches.hits(eviction, accesses.distinct()), all, "a cache for all is a cache for all");
            }
            prop_assert!(best <= all);
        }
    }
}
