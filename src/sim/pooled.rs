//! One cache for all requests, asked one after another.
//!
//! Absent: time. A request is done before the next one comes, so only the order of requests and the [`Eviction`] matter.

use super::cache::BlockPool;
use super::eviction::{Category, Eviction, Foresight, Use};
use crate::routing::Time;
use crate::routing::block::BlockHash;
use std::sync::Arc;

/// A pool of blocks with vLLM's rules and one request at a time.
pub struct PooledCache {
    pool: BlockPool,
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
        let pool = &mut self.pool;
        pool.set_now(at);
        let reach = chain.len() as u32;
        let using = |depth: usize| Use { at, category, depth: depth as u32, reach };
        let mut slots = pool.cached_prefix(&chain[..reusable.min(chain.len())]);
        for (depth, &slot) in slots.iter().enumerate() {
            pool.reference(slot, using(depth));
        }
        let hits = slots.len();
        for (depth, &block) in chain.iter().enumerate().skip(hits) {
            let Some((slot, _)) = pool.allocate() else { break };
            pool.publish(slot, block, using(depth));
            slots.push(slot);
        }
        pool.release(&slots);
        hits
    }
}
