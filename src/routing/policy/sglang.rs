//! SGLang's router, `cache_aware`: the best match if it is good enough, unless the fleet is out of balance.
//!
//! Out of balance (most requests − fewest > 64 and most > 1.5 × fewest): the least loaded. Else, if the best match covers
//! more than half of the prompt: the best match. Else the smallest tree, here the fewest tokens ever placed, which is the
//! tree without its eviction. Source: `sgl-router/src/policies/cache_aware.rs` of github.com/sgl-project/sglang.

use super::{Parameter, Policy, View, smallest};

pub(super) struct SgLang {
    match_share: f64,
    imbalance_requests: f64,
    imbalance_ratio: f64,
}

impl Default for SgLang {
    fn default() -> Self {
        SgLang { match_share: 0.5, imbalance_requests: 64.0, imbalance_ratio: 1.5 }
    }
}

impl Policy for SgLang {
    fn choose(&self, view: &View<'_>) -> usize {
        let (fewest, most) = view.requests_range();
        if most - fewest > self.imbalance_requests && most > self.imbalance_ratio * fewest {
            return smallest(view, |a, b| a.load.order().cmp(&b.load.order()));
        }
        let best = f64::from(view.best_overlap_tokens());
        if best / f64::from(view.prompt_tokens) > self.match_share {
            smallest(view, |a, b| b.overlap_tokens.cmp(&a.overlap_tokens))
        } else {
            smallest(view, |a, b| a.load.assigned_tokens.cmp(&b.load.assigned_tokens))
        }
    }

    fn parameters(&mut self) -> Vec<Parameter<'_>> {
        vec![
            Parameter::new("match_share", "the share of the prompt that is a good match", &mut self.match_share),
            Parameter::new("imbalance_requests", "out of balance beyond this difference", &mut self.imbalance_requests),
            Parameter::new("imbalance_ratio", "and beyond this ratio", &mut self.imbalance_ratio),
        ]
    }
}
