//! SMG's `cache_aware` with KV events: the holder of the longest match, unless it is overloaded.
//!
//! A holder is passed over when its requests are above 1.5 × the mean and above the mean + min(64, max(4, 2·√mean)).
//! Ties, and matches of at most 0.3 of the prompt, go by expected wait. Source: release 1.13.0 of
//! github.com/smg-project/smg.

use super::{Candidate, Parameter, Policy, View, smallest};
use std::cmp::Ordering;

pub(super) struct Smg {
    match_share: f64,
    spill_ratio: f64,
}

impl Default for Smg {
    fn default() -> Self {
        Smg { match_share: 0.3, spill_ratio: 1.5 }
    }
}

impl Policy for Smg {
    fn choose(&self, view: &View<'_>) -> usize {
        let mean = view.mean(|candidate| f64::from(candidate.load.requests()));
        let limit = (self.spill_ratio * mean).max(mean + (2.0 * mean.sqrt()).clamp(4.0, 64.0));
        let matched = |candidate: &Candidate| {
            let share = f64::from(candidate.overlap_tokens) / f64::from(view.prompt_tokens);
            let held = share > self.match_share && f64::from(candidate.load.requests()) <= limit;
            if held { candidate.overlap_tokens } else { 0 }
        };
        let wait = |a: &Candidate, b: &Candidate| -> Ordering {
            a.load
                .prefill_wait_seconds
                .total_cmp(&b.load.prefill_wait_seconds)
                .then_with(|| a.load.order().cmp(&b.load.order()))
        };
        smallest(view, |a, b| matched(b).cmp(&matched(a)).then_with(|| wait(a, b)))
    }

    fn parameters(&mut self) -> Vec<Parameter<'_>> {
        vec![
            Parameter::new("match_share", "the share of the prompt that is a match", &mut self.match_share),
            Parameter::new(
                "spill_ratio",
                "requests of a holder, of the mean, beyond which it spills",
                &mut self.spill_ratio,
            ),
        ]
    }
}
