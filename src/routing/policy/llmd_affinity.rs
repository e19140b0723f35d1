//! llm-d's newer scheme: keep to those who have nearly all of the prompt, unless that costs too much, then the fewest
//! uncached tokens in flight.
//!
//! `prefix-cache-affinity-filter` keeps instances with at least 0.80 of the prompt cached, and gives that up when the best of
//! them is more than 18 s of in-flight tokens, at 15,928 tokens a second, behind the best of the others.
//! `token-load-scorer` then takes the fewest in-flight uncached tokens. Source: llm-d pull requests 1651 and 2071.

use super::{Candidate, Parameter, Policy, View, smallest_of_random};

pub(super) struct LlmDAffinity {
    match_share: f64,
    penalty_seconds_max: f64,
    tokens_per_second: f64,
}

impl Default for LlmDAffinity {
    fn default() -> Self {
        LlmDAffinity { match_share: 0.8, penalty_seconds_max: 18.0, tokens_per_second: 15_928.0 }
    }
}

impl Policy for LlmDAffinity {
    fn choose(&self, view: &View<'_>) -> usize {
        let wanted = self.match_share * f64::from(view.prompt_tokens);
        let warm = |candidate: &Candidate| f64::from(candidate.overlap_tokens) >= wanted;
        let least = |of: bool| {
            let among = view.candidates.iter().filter(|candidate| warm(candidate) == of);
            among.map(|candidate| candidate.load.prefill_tokens).min()
        };
        let keep = match (least(true), least(false)) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(warm), Some(cold)) => {
                (warm as f64 - cold as f64) / self.tokens_per_second.max(1.0) <= self.penalty_seconds_max
            }
        };
        let tokens = |candidate: &Candidate| {
            let own = candidate.load.prefill_tokens as f64 + f64::from(view.uncached_tokens(candidate));
            if keep && !warm(candidate) { f64::INFINITY } else { own }
        };
        smallest_of_random(view, tokens)
    }

    fn parameters(&mut self) -> Vec<Parameter<'_>> {
        vec![
            Parameter::new("match_share", "the cached share to keep to", &mut self.match_share),
            Parameter::new("penalty_seconds_max", "what keeping to it may cost", &mut self.penalty_seconds_max),
            Parameter::new("tokens_per_second", "peak prefill rate of an instance", &mut self.tokens_per_second),
        ]
    }
}
