//! NVIDIA Dynamo's KV router: the least of `overlap_weight · prefill blocks to do + active decode blocks`.
//!
//! Prefill blocks to do are those queued and this prompt's uncached ones; active blocks are those of requests in flight and
//! this prompt's (counted once a request here; Dynamo counts a block that several share once). Temperature 0 takes the
//! least, ties at random; above 0 it draws from a softmax over the normalised costs. Source:
//! `lib/kv-router/src/scheduling` of github.com/ai-dynamo/dynamo.

use super::{Candidate, Parameter, Policy, View, smallest_of_random};

pub(super) struct Dynamo {
    overlap_weight: f64,
    temperature: f64,
}

impl Default for Dynamo {
    fn default() -> Self {
        Dynamo { overlap_weight: 1.0, temperature: 0.0 }
    }
}

impl Policy for Dynamo {
    fn choose(&self, view: &View<'_>) -> usize {
        let cost = |candidate: &Candidate| {
            let block = f64::from(view.block_tokens);
            let prefill = candidate.load.prefill_tokens as f64 + f64::from(view.uncached_tokens(candidate));
            let active = candidate.load.active_tokens() as f64 + f64::from(view.prompt_tokens);
            (self.overlap_weight * prefill + active) / block
        };
        if self.temperature > 0.0 { self.draw(view, cost) } else { smallest_of_random(view, cost) }
    }

    fn parameters(&mut self) -> Vec<Parameter<'_>> {
        vec![
            Parameter::new("overlap_weight", "what prefill weighs against decode", &mut self.overlap_weight),
            Parameter::new("temperature", "of the softmax; 0 takes the least", &mut self.temperature),
        ]
    }
}

impl Dynamo {
    fn draw(&self, view: &View<'_>, cost: impl Fn(&Candidate) -> f64) -> usize {
        let costs: Vec<f64> = view.candidates.iter().map(cost).collect();
        let least = costs.iter().copied().fold(f64::INFINITY, f64::min);
        let most = costs.iter().copied().fold(0.0, f64::max);
        let range = (most - least).max(f64::MIN_POSITIVE);
        let weights = costs.iter().map(|cost| (-(cost - least) / range / self.temperature).exp());
        let weights: Vec<f64> = weights.collect();
        let mut dice = view.dice;
        let mut left = dice.share() * weights.iter().sum::<f64>();
        let drawn = weights.iter().position(|weight| {
            left -= weight;
            left <= 0.0
        });
        drawn.unwrap_or(0)
    }
}
