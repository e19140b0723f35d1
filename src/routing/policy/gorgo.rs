//! GORGO: the least of network latency, own prefill and `queue_weight` times the queued prefill, all by a linear rate a token.
//!
//! All instances are equally far here, so latency falls out and tokens stand for time.

use super::{Candidate, Parameter, Policy, View, smallest_of_random};

pub(super) struct Gorgo {
    queue_weight: f64,
}

impl Default for Gorgo {
    fn default() -> Self {
        Gorgo { queue_weight: 1.0 }
    }
}

impl Policy for Gorgo {
    fn choose(&self, view: &View<'_>) -> usize {
        smallest_of_random(view, |candidate: &Candidate| {
            f64::from(view.uncached_tokens(candidate)) + self.queue_weight * candidate.load.prefill_tokens as f64
        })
    }

    fn parameters(&mut self) -> Vec<Parameter<'_>> {
        vec![Parameter::new("queue_weight", "what queued tokens weigh", &mut self.queue_weight)]
    }
}
