//! The fewest prompt tokens waiting to be computed, this request's own included: llm-d's `token-load` scorer taken alone.

use super::{Candidate, Policy, View, smallest};

pub(super) struct LeastTokens;

impl Policy for LeastTokens {
    fn choose(&self, view: &View<'_>) -> usize {
        let tokens = |candidate: &Candidate| candidate.load.prefill_tokens + u64::from(view.uncached_tokens(candidate));
        smallest(view, |a, b| tokens(a).cmp(&tokens(b)).then_with(|| a.load.order().cmp(&b.load.order())))
    }
}
