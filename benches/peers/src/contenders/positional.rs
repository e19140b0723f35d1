//! dynamo-kv-router 1.6.1: `PositionalIndexer` with the jump of 32 that its documentation names, driven like the CRTC. It
//! needs engine hashes that it can recompute, so its events carry Dynamo's own chain of the contents.

use super::Contender;
use super::crtc::Lane;
use super::radix::{best, hash, query, removed_event, stored_event};
use crate::workload::{Removed, Stored};
use dynamo_kv_router::PositionalIndexer;
use dynamo_kv_router::indexer::SyncIndexer;
use dynamo_kv_router::protocols::{LocalBlockHash, OverlapScores, RouterEvent};
use std::sync::Arc;
use std::time::Duration;

pub struct Positional {
    lane: Lane<PositionalIndexer>,
    scores: OverlapScores,
}

impl Contender for Positional {
    type Event = RouterEvent;
    type Query = [LocalBlockHash];

    fn name() -> &'static str {
        "Dynamo Positional"
    }

    fn new(_: u16) -> Self {
        Positional { lane: Lane::new(PositionalIndexer::new(32)), scores: OverlapScores::new() }
    }

    fn stored(&self, stored: &Stored) -> RouterEvent {
        stored_event(stored)
    }

    fn removed(&self, removed: &Removed) -> RouterEvent {
        removed_event(removed)
    }

    fn apply(&mut self, events: Vec<RouterEvent>) -> Duration {
        self.lane.apply(events)
    }

    fn query(contents: &[u64], buffer: &mut Vec<LocalBlockHash>) {
        query(contents, buffer);
    }

    fn find(&mut self, query: &Vec<LocalBlockHash>) {
        self.scores = self.lane.index.find_matches(query, false);
    }

    fn find_tokens(&mut self, tokens: &[u32]) {
        self.scores = self.lane.index.find_matches(&hash(tokens), false);
    }

    fn best(&self) -> (u32, u32) {
        best(&self.scores)
    }

    fn reader(&self) -> Option<Box<dyn FnMut(&Vec<LocalBlockHash>) + Send>> {
        let index = Arc::clone(&self.lane.index);
        Some(Box::new(move |query| drop(index.find_matches(query, false))))
    }

    fn content_of(tokens: &[u32]) -> u64 {
        hash(tokens)[0].0
    }
}
