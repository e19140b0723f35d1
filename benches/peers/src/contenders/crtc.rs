//! dynamo-kv-router 1.6.1: `ConcurrentRadixTreeCompressed`. Its events go to a thread that runs its own `worker` loop, as
//! in its `ThreadPoolIndexer` (whose hop through an async runtime is left out); lookups run on the caller's thread.

use super::Contender;
use super::radix::{best, hash, query, removed_event, stored_event};
use crate::measure::cpu;
use crate::workload::{Removed, Stored};
use dynamo_kv_router::ConcurrentRadixTreeCompressed;
use dynamo_kv_router::indexer::{SyncIndexer, WorkerTask};
use dynamo_kv_router::protocols::{LocalBlockHash, OverlapScores, RouterEvent};
use std::os::unix::thread::JoinHandleExt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// An index with one event thread.
pub struct Lane<T> {
    pub index: Arc<T>,
    tasks: flume::Sender<WorkerTask>,
    clock: libc::clockid_t,
    thread: Option<JoinHandle<()>>,
}

impl<T: SyncIndexer> Lane<T> {
    pub fn new(index: T) -> Self {
        let index = Arc::new(index);
        let (tasks, receiver) = flume::unbounded();
        let lane = Arc::clone(&index);
        let thread =
            std::thread::spawn(move || lane.worker(receiver, None).expect("the lane runs until it is told to end"));
        let mut clock = 0;
        // SAFETY: the thread lives until it is joined in `drop`.
        let failed = unsafe { libc::pthread_getcpuclockid(thread.as_pthread_t(), &mut clock) };
        assert_eq!(failed, 0, "a living thread has a clock");
        Lane { index, tasks, clock, thread: Some(thread) }
    }

    pub fn apply(&self, events: Vec<RouterEvent>) -> Duration {
        let start = cpu(self.clock);
        for event in events {
            self.tasks.send(WorkerTask::Event(event)).expect("the lane runs");
        }
        let (done, wait) = tokio::sync::oneshot::channel();
        self.tasks.send(WorkerTask::Flush(done)).expect("the lane runs");
        wait.blocking_recv().expect("the lane answers");
        cpu(self.clock) - start
    }
}

impl<T> Drop for Lane<T> {
    fn drop(&mut self) {
        let _ = self.tasks.send(WorkerTask::Terminate);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub struct Crtc {
    lane: Lane<ConcurrentRadixTreeCompressed>,
    scores: OverlapScores,
}

impl Contender for Crtc {
    type Event = RouterEvent;
    type Query = [LocalBlockHash];

    fn name() -> &'static str {
        "Dynamo CRTC"
    }

    fn new(_: u16) -> Self {
        Crtc { lane: Lane::new(ConcurrentRadixTreeCompressed::new()), scores: OverlapScores::new() }
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
