//! How many bytes the index may hold, and how many it does.

use super::sync::{AtomicUsize, Ordering};
use std::sync::Arc;

/// Bytes taken from the process for blocks, names and sets, against a limit. Memory that removals free is kept for reuse,
/// so what is taken shrinks only when an instance leaves.
pub(super) struct Budget {
    used: Arc<AtomicUsize>,
    limit: usize,
}

impl Budget {
    pub fn new(limit_bytes: usize) -> Self {
        Budget { used: Arc::new(AtomicUsize::new(0)), limit: limit_bytes }
    }

    /// The same account without a limit, for what must not fail: forgetting.
    pub fn beyond(&self) -> Self {
        Budget { used: Arc::clone(&self.used), limit: usize::MAX }
    }

    /// `false`, and nothing taken, if the limit would be passed.
    pub fn take(&self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    pub fn give(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub fn limit(&self) -> usize {
        self.limit
    }
}
