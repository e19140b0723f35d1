//! LMetric (OSDI 2026, arXiv 2603.15202): the least of new prefill tokens, queued ones included, times batch size.

use super::{Candidate, Policy, View, smallest_of_random};

pub(super) struct LMetric;

impl Policy for LMetric {
    fn choose(&self, view: &View<'_>) -> usize {
        smallest_of_random(view, |candidate: &Candidate| {
            let tokens = candidate.load.prefill_tokens as f64 + f64::from(view.uncached_tokens(candidate));
            tokens * f64::from(candidate.load.requests() + 1)
        })
    }
}
