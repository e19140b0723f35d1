//! dynamo-kv-router 1.6.1: `RadixTree`, its single-threaded index, by `apply_event` and `find_matches`.

use super::Contender;
use crate::measure::cpu_of;
use crate::workload::{Removed, Stored};
use dynamo_kv_router::RadixTree;
use dynamo_kv_router::protocols::{
    BlockHashOptions, ExternalSequenceBlockHash, KvCacheEvent, KvCacheEventData, KvCacheRemoveData, KvCacheStoreData,
    KvCacheStoredBlockData, LocalBlockHash, OverlapScores, RouterEvent, compute_block_hash_for_seq,
};
use std::time::Duration;

pub struct Radix {
    index: RadixTree,
    scores: OverlapScores,
}

pub fn stored_event(stored: &Stored) -> RouterEvent {
    let block = |block: &crate::workload::Block| KvCacheStoredBlockData {
        block_hash: ExternalSequenceBlockHash(block.name),
        tokens_hash: LocalBlockHash(block.content),
        mm_extra_info: None,
    };
    event(
        stored.instance,
        KvCacheEventData::Stored(KvCacheStoreData {
            parent_hash: stored.parent.map(ExternalSequenceBlockHash),
            start_position: None,
            blocks: stored.blocks.iter().map(block).collect(),
        }),
    )
}

pub fn removed_event(removed: &Removed) -> RouterEvent {
    let block_hashes = vec![ExternalSequenceBlockHash(removed.name)];
    event(removed.instance, KvCacheEventData::Removed(KvCacheRemoveData { block_hashes }))
}

fn event(instance: u16, data: KvCacheEventData) -> RouterEvent {
    RouterEvent::new(u64::from(instance), KvCacheEvent { event_id: 0, data, dp_rank: 0 })
}

pub fn best(scores: &OverlapScores) -> (u32, u32) {
    let by = |&(worker, score): &(u32, u32)| (score, u32::MAX - worker);
    let each = scores.scores.iter().map(|(worker, &score)| (worker.worker_id as u32, score));
    each.max_by_key(by).unwrap_or((u32::MAX, 0))
}

pub fn query(contents: &[u64], query: &mut Vec<LocalBlockHash>) {
    query.clear();
    query.extend(contents.iter().map(|&content| LocalBlockHash(content)));
}

pub fn hash(tokens: &[u32]) -> Vec<LocalBlockHash> {
    compute_block_hash_for_seq(tokens, 16, BlockHashOptions::default())
}

impl Contender for Radix {
    type Event = RouterEvent;
    type Query = [LocalBlockHash];

    fn name() -> &'static str {
        "Dynamo RadixTree"
    }

    fn new(_: u16) -> Self {
        Radix { index: RadixTree::new(), scores: OverlapScores::new() }
    }

    fn stored(&self, stored: &Stored) -> RouterEvent {
        stored_event(stored)
    }

    fn removed(&self, removed: &Removed) -> RouterEvent {
        removed_event(removed)
    }

    fn apply(&mut self, events: Vec<RouterEvent>) -> Duration {
        cpu_of(|| {
            for event in events {
                self.index.apply_event(event).expect("the event fits");
            }
        })
        .0
    }

    fn query(contents: &[u64], buffer: &mut Vec<LocalBlockHash>) {
        query(contents, buffer);
    }

    fn find(&mut self, query: &Vec<LocalBlockHash>) {
        // The signature takes the query by value; the copy is part of the price of this door.
        self.scores = self.index.find_matches(query.clone(), false);
    }

    fn find_tokens(&mut self, tokens: &[u32]) {
        self.scores = self.index.find_matches(hash(tokens), false);
    }

    fn best(&self) -> (u32, u32) {
        best(&self.scores)
    }

    fn reader(&self) -> Option<Box<dyn FnMut(&Vec<LocalBlockHash>) + Send>> {
        None
    }

    fn content_of(tokens: &[u32]) -> u64 {
        hash(tokens)[0].0
    }
}
