//! llm-d's weighted scorers: the largest of `3 · prefix + 2 · queue + 2 · kv`, each between 0 and 1.
//!
//! Prefix is the cached share of the prompt; queue is `(most − waiting) / (most − fewest)` over the candidates, 1 when all
//! are equal; kv is the free share of the cache. Waiting and cache use are what the instances report, or what our own books say
//! where they report nothing. Weights are those of the Helm chart. Source: github.com/llm-d/llm-d-inference-scheduler.

use super::{Candidate, Parameter, Policy, View, smallest_of_random};

pub(super) struct LlmD {
    prefix: f64,
    queue: f64,
    kv: f64,
}

impl Default for LlmD {
    fn default() -> Self {
        LlmD { prefix: 3.0, queue: 2.0, kv: 2.0 }
    }
}

impl Policy for LlmD {
    fn choose(&self, view: &View<'_>) -> usize {
        let waiting = |candidate: &Candidate| f64::from(candidate.load.waiting());
        let (fewest, most) = view.range(waiting);
        let score = |candidate: &Candidate| {
            let prefix = f64::from(candidate.overlap_tokens) / f64::from(view.prompt_tokens);
            let queue = if most > fewest { (most - waiting(candidate)) / (most - fewest) } else { 1.0 };
            self.prefix * prefix + self.queue * queue + self.kv * (1.0 - candidate.load.cache_usage())
        };
        smallest_of_random(view, |candidate| -score(candidate))
    }

    fn parameters(&mut self) -> Vec<Parameter<'_>> {
        vec![
            Parameter::new("prefix", "weight of the cached share", &mut self.prefix),
            Parameter::new("queue", "weight of the queue", &mut self.queue),
            Parameter::new("kv", "weight of the free share of the cache", &mut self.kv),
        ]
    }
}
