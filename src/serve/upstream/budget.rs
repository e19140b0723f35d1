//! How many retries all requests together may cost.

use std::sync::atomic::{AtomicI64, Ordering};

/// A tenth of a retry is earned with each request, and a hundred can be saved.
pub(super) struct Budget {
    /// In tenths.
    saved: AtomicI64,
}

const RETRY: i64 = 10;
const SAVED_MAX: i64 = 100 * RETRY;

impl Default for Budget {
    /// Full: a router that just started may meet instances that did not.
    fn default() -> Self {
        Budget { saved: AtomicI64::new(SAVED_MAX) }
    }
}

impl Budget {
    /// A request came.
    pub fn earn(&self) {
        if self.saved.load(Ordering::Relaxed) < SAVED_MAX {
            self.saved.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether there may be one more retry; if so it is paid.
    pub fn spend(&self) -> bool {
        let paid = self.saved.fetch_sub(RETRY, Ordering::Relaxed) >= RETRY;
        if !paid {
            self.saved.fetch_add(RETRY, Ordering::Relaxed);
        }
        paid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_at_once_and_then_one_for_ten_requests() {
        let budget = Budget::default();
        assert_eq!((0..1000).filter(|_| budget.spend()).count(), 100);
        (0..25).for_each(|_| budget.earn());
        assert_eq!((0..1000).filter(|_| budget.spend()).count(), 2);
        (0..100_000).for_each(|_| budget.earn());
        assert_eq!((0..1000).filter(|_| budget.spend()).count(), 100);
    }
}
