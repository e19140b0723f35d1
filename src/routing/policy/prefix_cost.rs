//! Ours, the default: the least expected cost in seconds, to the request itself and to the others.
//!
//! With, at each instance, `w` the estimated seconds of prefill queued, `s` the seconds to prefill what this request has
//! not cached there, `ctx` and `n` the tokens and the requests in decode; and, over the fleet, `λ` the arrivals a second
//! an instance, `w̄` the mean wait, `ρ̄` the share of time lately given to prefill, `kv` the seconds a context token adds
//! to a decode step, the cost is
//!
//! `w + r · s  +  s · λ · (w̄ + s/2) / (1 − ρ̄)  +  d · E[out] · kv · ctx  +  d · s · n`
//!
//! The first two are the time to first token, with prefill weighed by `r`: seconds that a cache could have spared are
//! paid by the request and again by the fleet. The third is the delay that this work puts on those who come behind it
//! (an M/G/1 externality), priced for the fleet as a whole, because whoever comes next is routed around a queue. The last
//! two are decode interference, theirs on us and ours on them, weighed by `d`.

use super::{Candidate, Parameter, Policy, View, smallest};
use crate::routing::fact::Knowledge;

pub(super) struct PrefixCost {
    prefill: f64,
    decode: f64,
    fleet_delay: f64,
    own_delay: f64,
    batch: f64,
}

impl Default for PrefixCost {
    fn default() -> Self {
        PrefixCost { prefill: 2.0, decode: 0.1, fleet_delay: 1.0, own_delay: 0.0, batch: 0.0 }
    }
}

/// The delay on others grows without bound as the fleet saturates; past this share it is as good as infinite.
const BUSY_MAX: f64 = 0.95;

impl Policy for PrefixCost {
    fn choose(&self, view: &View<'_>) -> usize {
        let fleet = FleetState::of(view);
        let cost = |candidate: &Candidate| self.cost(view, &fleet, candidate);
        smallest(view, |a, b| cost(a).total_cmp(&cost(b)).then_with(|| a.load.order().cmp(&b.load.order())))
    }

    fn parameters(&mut self) -> Vec<Parameter<'_>> {
        vec![
            Parameter::new("prefill", "what a second of own prefill weighs against one of waiting", &mut self.prefill),
            Parameter::new("decode", "what decode interference weighs", &mut self.decode),
            Parameter::new("fleet_delay", "what delay on others weighs, priced for the fleet", &mut self.fleet_delay),
            Parameter::new("own_delay", "what delay on others weighs, priced for the instance", &mut self.own_delay),
            Parameter::new("batch", "batch", &mut self.batch),
        ]
    }
}

/// What a second of work costs those who come behind it, as far as the fleet decides it.
struct FleetState {
    arrivals_per_second: f64,
    wait: f64,
    busy_share: f64,
    requests: f64,
}

impl FleetState {
    fn of(view: &View<'_>) -> Self {
        FleetState {
            arrivals_per_second: view.arrivals_per_second / view.candidates.len() as f64,
            wait: view.mean(|candidate| candidate.load.prefill_wait.as_secs_f64()),
            busy_share: view.mean(|candidate| candidate.load.busy_share).min(BUSY_MAX),
            requests: view.mean(|candidate| f64::from(candidate.load.requests())),
        }
    }
}

impl PrefixCost {
    fn cost(&self, view: &View<'_>, fleet: &FleetState, candidate: &Candidate) -> f64 {
        let load = &candidate.load;
        let wait = load.prefill_wait.as_secs_f64();
        let own = own_seconds(candidate);
        let behind = |wait: f64, busy: f64| own * fleet.arrivals_per_second * (wait + own / 2.0) / (1.0 - busy);
        let slowed_by_decodes = view.expected_output_tokens * view.decode_context_seconds * load.decode_tokens as f64;
        let slows_decodes = own * f64::from(load.decode_requests);
        let batch = (f64::from(load.requests()) + 1.0) / (fleet.requests + 1.0);
        (wait + self.prefill * own) * (1.0 + self.batch * (batch - 1.0))
            + self.fleet_delay * behind(fleet.wait, fleet.busy_share)
            + self.own_delay * behind(wait, load.busy_share.min(BUSY_MAX))
            + self.decode * (slowed_by_decodes + slows_decodes)
    }
}

/// Seconds to prefill what is not cached, where what is believed to be cached counts as far as it can be believed.
fn own_seconds(candidate: &Candidate) -> f64 {
    let trust = match candidate.knowledge {
        Knowledge::Exact => 1.0,
        Knowledge::Degraded => 0.9,
        Knowledge::Blind => 0.7,
    };
    trust * candidate.prefill.as_secs_f64() + (1.0 - trust) * candidate.cold_prefill.as_secs_f64()
}
