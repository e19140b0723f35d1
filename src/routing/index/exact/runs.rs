//! Every run's header, and which of them are free.

use super::budget::Budget;
use super::chunks::Chunks;
use super::names::RUNS_MAX;
use super::run::{Run, RunId};
use super::sync::{AtomicU32, Mutex, Ordering};
use super::words::Words;

/// The headers of all runs, by number.
pub(super) struct Runs {
    headers: Chunks<Run, 6>,
    /// Apart from the headers, because lookups need nothing of it.
    kin: Chunks<Kin, 6>,
    free: Mutex<FreeRuns>,
}

/// What a run hangs from, and what hangs from it. Only who holds the lock of the run's shard writes its number of children.
#[derive(Default)]
struct Kin {
    /// The run that this one hangs from, or none at a root. In a free header: the next free one.
    parent: AtomicU32,
    /// Runs that hang from this one.
    children: AtomicU32,
}

struct FreeRuns {
    next: u32,
    end: u32,
    head: u32,
    in_use: usize,
}

impl Runs {
    pub fn new() -> Self {
        Runs {
            headers: Chunks::new(),
            kin: Chunks::new(),
            free: Mutex::new(FreeRuns { next: 1, end: 0, head: 0, in_use: 0 }),
        }
    }

    #[inline]
    pub fn get(&self, run: RunId) -> Option<&Run> {
        self.headers.get(run.0)
    }

    #[inline]
    pub fn known(&self, run: RunId) -> &Run {
        self.headers.get(run.0).expect("a run that is referred to exists")
    }

    fn kin(&self, run: RunId) -> &Kin {
        self.kin.get(run.0).expect("a run that is referred to exists")
    }

    pub fn parent(&self, run: RunId) -> RunId {
        RunId(self.kin(run).parent.load(Ordering::Relaxed))
    }

    /// Where a run hangs from; for one that is being restored.
    pub fn link(&self, run: RunId, parent: RunId) {
        self.kin(run).parent.store(parent.0, Ordering::Relaxed);
    }

    /// A run hangs from block `offset` of this one from now on.
    pub fn adopt(&self, run: RunId, offset: usize) {
        self.kin(run).children.fetch_add(1, Ordering::Relaxed);
        self.known(run).pin(offset);
    }

    /// A run hangs from this one no more; `true` if it was the last.
    pub fn orphan(&self, run: RunId) -> bool {
        let last = self.kin(run).children.fetch_sub(1, Ordering::Relaxed) == 1;
        if last {
            self.known(run).set_pinned(0);
        }
        last
    }

    /// How many runs hang from one, and how much of it must stay for them; for a run that is being restored.
    pub fn restore_children(&self, run: RunId, children: u32, pinned: usize) {
        self.kin(run).children.store(children, Ordering::Relaxed);
        self.known(run).set_pinned(pinned);
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
            free.head = self.parent(run).0;
            run
        } else {
            if free.next >= RUNS_MAX {
                return None;
            }
            if free.next >= free.end {
                let end = free.end;
                // The second list may be a chunk ahead of the first, if that found no room before.
                if self.kin.get(end).is_none() {
                    self.kin.grow(end, budget)?;
                }
                free.end += self.headers.grow(end, budget)? as u32;
            }
            let run = RunId(free.next);
            free.next += 1;
            run
        };
        free.in_use += 1;
        drop(free);
        self.known(run).begin(head);
        self.link(run, parent);
        self.kin(run).children.store(0, Ordering::Relaxed);
        Some(run)
    }

    /// Takes back a run that nobody holds and nothing hangs from, whose sets were released.
    pub fn give(&self, run: RunId, words: &Words) {
        let header = self.known(run);
        header.end(words);
        let mut free = self.free.lock();
        self.link(run, RunId(free.head));
        free.head = run.0;
        free.in_use -= 1;
    }
}
