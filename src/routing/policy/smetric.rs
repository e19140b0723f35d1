//! SMetric: LMetric for sessions. A session stays where its prefix is while that meets its deadline; otherwise the least of
//! expected time to first token times requests.
//!
//! The deadline is `slack · (base + per_token · prompt)` seconds; a session stays when what is cached there is above a tenth
//! of what its history should have left.

use super::{Candidate, Parameter, Policy, View, smallest_of_random};

pub(super) struct SMetric {
    hit_share: f64,
    slack: f64,
    base_seconds: f64,
    seconds_per_token: f64,
}

impl Default for SMetric {
    fn default() -> Self {
        SMetric { hit_share: 0.1, slack: 1.0, base_seconds: 2.0, seconds_per_token: 2e-4 }
    }
}

/// Of a prompt in a session that was seen before, what its history should have left in the cache.
const HISTORY_SHARE: f64 = 0.9;

impl Policy for SMetric {
    fn choose(&self, view: &View<'_>) -> usize {
        let prompt = f64::from(view.prompt_tokens);
        let deadline = self.slack * (self.base_seconds + self.seconds_per_token * prompt);
        let ttft = |candidate: &Candidate| candidate.load.prefill_wait_seconds + candidate.prefill_seconds;
        let meets = |candidate: &Candidate| ttft(candidate) <= deadline;
        let holder = smallest_of_random(view, |candidate| -f64::from(candidate.overlap_tokens));
        let held = f64::from(view.candidates[holder].overlap_tokens);
        let known = view.home.is_some() && held > self.hit_share * HISTORY_SHARE * prompt;
        if known && (meets(&view.candidates[holder]) || !view.candidates.iter().any(meets)) {
            return holder;
        }
        smallest_of_random(view, |candidate| ttft(candidate) * f64::from(candidate.load.requests()))
    }

    fn parameters(&mut self) -> Vec<Parameter<'_>> {
        vec![
            Parameter::new("hit_share", "of the expected history, what must be cached", &mut self.hit_share),
            Parameter::new("slack", "multiplies the deadline", &mut self.slack),
            Parameter::new("base_seconds", "deadline of an empty prompt", &mut self.base_seconds),
            Parameter::new("seconds_per_token", "deadline a prompt token", &mut self.seconds_per_token),
        ]
    }
}
