//! kv-index 2.0.0 (SMG): `ChainIndex` with one `ChainBlockMap` a worker, as its lanes drive it; lookups by `score_into`,
//! which allocates nothing, into an array.

use super::Contender;
use crate::measure::cpu_of;
use crate::workload::{Removed, Stored};
use kv_index::{ChainBlockMap, ChainIndex, ContentHash, SequenceHash, StoredBlock};
use std::sync::Arc;
use std::time::Duration;

pub struct Chain {
    index: Arc<ChainIndex>,
    maps: Vec<ChainBlockMap>,
    ids: Vec<u32>,
    scores: Vec<(u32, u32)>,
}

pub enum Event {
    Stored { instance: usize, parent: Option<SequenceHash>, blocks: Vec<StoredBlock> },
    Removed { instance: usize, names: [SequenceHash; 1] },
}

impl Contender for Chain {
    type Event = Event;
    type Query = [ContentHash];

    fn name() -> &'static str {
        "kv-index ChainIndex"
    }

    fn new(instances: u16) -> Self {
        let index = Arc::new(ChainIndex::with_max_workers(usize::from(instances)));
        let ids = (0..instances).map(|at| index.intern_worker(&format!("w{at}")).expect("a free slot")).collect();
        let maps = (0..instances).map(|_| ChainBlockMap::new()).collect();
        Chain { index, maps, ids, scores: Vec::with_capacity(usize::from(instances)) }
    }

    fn stored(&self, stored: &Stored) -> Event {
        let block = |block: &crate::workload::Block| StoredBlock {
            seq_hash: SequenceHash(block.name),
            content_hash: ContentHash(block.content),
        };
        Event::Stored {
            instance: usize::from(stored.instance),
            parent: stored.parent.map(SequenceHash),
            blocks: stored.blocks.iter().map(block).collect(),
        }
    }

    fn removed(&self, removed: &Removed) -> Event {
        Event::Removed { instance: usize::from(removed.instance), names: [SequenceHash(removed.name)] }
    }

    fn apply(&mut self, events: Vec<Event>) -> Duration {
        cpu_of(|| {
            for event in events {
                match event {
                    Event::Stored { instance, parent, blocks } => self
                        .index
                        .apply_stored(self.ids[instance], &blocks, parent, &mut self.maps[instance])
                        .expect("the parent is held"),
                    Event::Removed { instance, names } => {
                        self.index.apply_removed(self.ids[instance], &names, &mut self.maps[instance]);
                    }
                }
            }
        })
        .0
    }

    fn query(contents: &[u64], query: &mut Vec<ContentHash>) {
        query.clear();
        query.extend(contents.iter().map(|&content| ContentHash(content)));
    }

    fn find(&mut self, query: &Vec<ContentHash>) {
        let Chain { index, scores, .. } = self;
        scores.clear();
        index.score_into(query, |content| content.0, false, |worker, score| scores.push((worker, score)));
    }

    fn find_tokens(&mut self, tokens: &[u32]) {
        let query = kv_index::compute_request_content_hashes(tokens, 16);
        self.find(&query);
    }

    fn best(&self) -> (u32, u32) {
        let each = self.scores.iter().copied();
        each.max_by_key(|&(worker, score)| (score, u32::MAX - worker)).unwrap_or((u32::MAX, 0))
    }

    fn reader(&self) -> Option<Box<dyn FnMut(&Vec<ContentHash>) + Send>> {
        let (index, mut scores) = (Arc::clone(&self.index), Vec::with_capacity(1024));
        Some(Box::new(move |query| {
            scores.clear();
            index.score_into(query, |content| content.0, false, |worker, score| scores.push((worker, score)));
        }))
    }

    fn content_of(tokens: &[u32]) -> u64 {
        kv_index::compute_content_hash(tokens).0
    }
}
