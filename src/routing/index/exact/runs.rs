//! Every run's header, and which of them are free.

use super::budget::Budget;
use super::chunks::Chunks;
use super::run::{Run, RunId};
use super::sync::Mutex;
use super::words::Words;

/// The headers of all runs, by number.
pub(super) struct Runs {
    headers: Chunks<Run, 6>,
    free: Mutex<FreeRuns>,
}

struct FreeRuns {
    next: u32,
    end: u32,
    head: u32,
    in_use: usize,
}

impl Runs {
    pub fn new() -> Self {
        Runs { headers: Chunks::new(), free: Mutex::new(FreeRuns { next: 1, end: 0, head: 0, in_use: 0 }) }
    }

    #[inline]
    pub fn get(&self, run: RunId) -> Option<&Run> {
        self.headers.get(run.0)
    }

    #[inline]
    pub fn known(&self, run: RunId) -> &Run {
        self.headers.get(run.0).expect("a run that is referred to exists")
    }

    /// The runs in use. The caller keeps them from changing.
    pub fn all(&self) -> impl Iterator<Item = RunId> + '_ {
        let end = self.free.lock().next;
        (1..end).map(RunId).filter(|&run| self.known(run).blocks() > 0)
    }

    pub fn in_use(&self) -> usize {
        self.free.lock().in_use
    }

    /// A header with no blocks, to start with `head` after `parent`. `None` when the budget is used up.
    pub fn take(&self, head: u64, parent: RunId, budget: &Budget) -> Option<RunId> {
        let mut free = self.free.lock();
        let run = if free.head != 0 {
            let run = RunId(free.head);
            free.head = self.known(run).parent().0;
            run
        } else {
            if free.next >= free.end {
                let end = free.end;
                free.end += self.headers.grow(end, budget)? as u32;
            }
            let run = RunId(free.next);
            free.next += 1;
            run
        };
        free.in_use += 1;
        drop(free);
        self.known(run).begin(head, parent);
        Some(run)
    }

    /// Takes back a run that nobody holds and nothing hangs from, whose sets were released.
    pub fn give(&self, run: RunId, words: &Words) {
        let header = self.known(run);
        header.end(words);
        let mut free = self.free.lock();
        header.link(RunId(free.head));
        free.head = run.0;
        free.in_use -= 1;
    }
}
