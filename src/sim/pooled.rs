//! One cache for all requests.
//!
//! Absent: the time that prefill takes. A request's prompt is computed before the next one comes, so only the order of requests, when
//! they are answered and the [`Eviction`] matter.

use super::cache::{BlockPool, Slot};
use super::eviction::{Category, Eviction, Foresight, Use};
use crate::routing::Time;
use crate::routing::block::BlockHash;
use std::sync::Arc;

/// A pool of blocks with vLLM's rules.
pub struct PooledCache {
    pool: BlockPool,
}

/// A request that has its prompt's blocks and is not answered yet; so long they are not evicted.
#[derive(Debug)]
pub struct Answering {
    slots: Vec<Slot>,
    /// Blocks of the prompt that were there already.
    pub hits: usize,
}

impl PooledCache {
    /// An empty cache of so many blocks.
    pub fn new(blocks: u32, eviction: Eviction) -> Self {
        PooledCache { pool: BlockPool::new(blocks, eviction) }
    }

    /// Tells what is to come, for [`Eviction::Clairvoyant`]; times are those that [`ask`](Self::ask) will be told.
    pub fn foresee(&mut self, future: Arc<Foresight>) {
        self.pool.foresee(future);
    }

    /// Looks a prompt's first `reusable` blocks up, from the start until one is missing, then keeps all of its blocks, or as
    /// many as there is room for. Returns how many were found.
    pub fn ask(&mut self, at: Time, category: Category, chain: &[BlockHash], reusable: usize) -> usize {
        let asked = self.begin(at, category, chain, chain.len(), reusable);
        let hits = asked.hits;
        self.end(at, category, chain, asked);
        hits
    }

    /// The same for the first `prompt` blocks of a `chain` whose others come with the answer.
    pub fn begin(
        &mut self,
        at: Time,
        category: Category,
        chain: &[BlockHash],
        prompt: usize,
        reusable: usize,
    ) -> Answering {
        self.pool.set_now(at);
        let mut slots = self.pool.cached_prefix(&chain[..reusable.min(prompt)]);
        for (depth, &slot) in slots.iter().enumerate() {
            self.pool.reference(slot, using(at, category, chain, depth));
        }
        let hits = slots.len();
        self.keep(at, category, &chain[..prompt], chain, &mut slots);
        Answering { slots, hits }
    }

    /// It is answered: keeps the rest of its `chain`, and lets go of all of it.
    pub fn end(&mut self, at: Time, category: Category, chain: &[BlockHash], answered: Answering) {
        self.pool.set_now(at);
        let Answering { mut slots, .. } = answered;
        self.keep(at, category, chain, chain, &mut slots);
        self.pool.release(&slots);
    }

    /// Takes room for what of `blocks` has no slot yet, as far as there is some.
    fn keep(&mut self, at: Time, category: Category, blocks: &[BlockHash], chain: &[BlockHash], slots: &mut Vec<Slot>) {
        for (depth, &block) in blocks.iter().enumerate().skip(slots.len()) {
            let Some((slot, _)) = self.pool.allocate() else { break };
            self.pool.publish(slot, block, using(at, category, chain, depth));
            slots.push(slot);
        }
    }
}

fn using(at: Time, category: Category, chain: &[BlockHash], depth: usize) -> Use {
    Use { at, category, depth: depth as u32, reach: chain.len() as u32 }
}
