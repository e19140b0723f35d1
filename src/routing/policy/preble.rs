//! Preble's E2 (Srivatsa et al., ICLR 2025): exploit where more of the prompt is cached than not, else explore.
//!
//! Exploiting takes the least loaded of the instances that have most of it; exploring the least of load and own prefill. Load
//! is the work given over the last minutes: Preble sums three, the router's account decays over one, scaled to three. The
//! paper's cost of evicting is left out: it needs each instance's eviction order.

use super::{Candidate, Parameter, Policy, View, smallest_of_random};

pub(super) struct Preble {
    window_seconds: f64,
}

impl Default for Preble {
    fn default() -> Self {
        Preble { window_seconds: 180.0 }
    }
}

impl Policy for Preble {
    fn choose(&self, view: &View<'_>) -> usize {
        let best = view.best_overlap_tokens();
        let load = |candidate: &Candidate| candidate.load.busy_share * self.window_seconds;
        if best > view.prompt_tokens - best {
            let out = |candidate: &Candidate| candidate.overlap_tokens < best;
            smallest_of_random(view, |c| if out(c) { f64::INFINITY } else { load(c) })
        } else {
            smallest_of_random(view, |candidate| load(candidate) + candidate.prefill_seconds)
        }
    }

    fn parameters(&mut self) -> Vec<Parameter<'_>> {
        vec![Parameter::new("window_seconds", "how much recent work counts as load", &mut self.window_seconds)]
    }
}
