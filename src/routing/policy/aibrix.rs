//! AIBrix's `prefix-cache`: the best match among those not overloaded.
//!
//! When most − fewest requests > 16: the least loaded. Else the largest matched percentage, then the fewest requests, among
//! holders with no more requests than the mean + 2 σ; without such a holder the least loaded. Source:
//! `pkg/plugins/gateway/algorithms/prefix_cache.go` of github.com/vllm-project/aibrix.

use super::{Candidate, Parameter, Policy, View, smallest};

pub(super) struct AiBrix {
    imbalance_requests: f64,
    deviations: f64,
}

impl Default for AiBrix {
    fn default() -> Self {
        AiBrix { imbalance_requests: 16.0, deviations: 2.0 }
    }
}

impl Policy for AiBrix {
    fn choose(&self, view: &View<'_>) -> usize {
        let requests = |candidate: &Candidate| f64::from(candidate.load.requests());
        let (fewest, most) = view.requests_range();
        let mean = view.mean(requests);
        let variance = view.mean(|candidate| (requests(candidate) - mean).powi(2));
        let limit = mean + self.deviations * variance.sqrt();
        let balanced = most - fewest <= self.imbalance_requests;
        let percent = |candidate: &Candidate| {
            let usable = balanced && requests(candidate) <= limit;
            if usable { u64::from(candidate.overlap_tokens) * 100 / u64::from(view.prompt_tokens) } else { 0 }
        };
        smallest(view, |a, b| percent(b).cmp(&percent(a)).then_with(|| a.load.order().cmp(&b.load.order())))
    }

    fn parameters(&mut self) -> Vec<Parameter<'_>> {
        vec![
            Parameter::new("imbalance_requests", "out of balance beyond this difference", &mut self.imbalance_requests),
            Parameter::new(
                "deviations",
                "standard deviations above the mean that are overloaded",
                &mut self.deviations,
            ),
        ]
    }
}
