//! What `Explain` answers.

use crate::routing::admission::Refusal;
use crate::routing::{self, Explanation};
use crate::serve::core::Core;
use crate::serve::proto::{Barred, ExplainResponse, Knowledge, Wait, Weighed};

pub(super) fn answer(core: &Core, explanation: &Explanation, is_estimated: bool) -> ExplainResponse {
    let name = |instance| core.member(instance).name.clone();
    let cost = |position: usize| explanation.costs.as_ref().and_then(|costs| costs.get(position).copied());
    let candidates = explanation.candidates.iter().enumerate().map(|(position, candidate)| {
        let weighed = Weighed {
            name: name(candidate.instance),
            barred: Barred::Unspecified.into(),
            overlap_tokens: candidate.overlap_tokens,
            cost: cost(position),
            prefill_seconds: Some(candidate.prefill_seconds),
            load: Some(candidate.load.into()),
            knowledge: Knowledge::from(candidate.knowledge).into(),
        };
        (candidate.instance, weighed)
    });
    let others = explanation.others.iter().map(|other| {
        let barred = match other.availability {
            routing::Availability::Ready => Barred::NotAllowed,
            routing::Availability::Draining => Barred::Draining,
            routing::Availability::Down => Barred::Down,
        };
        let weighed = Weighed {
            name: name(other.instance),
            barred: barred.into(),
            overlap_tokens: other.overlap_tokens,
            cost: None,
            prefill_seconds: None,
            load: Some(other.load.into()),
            knowledge: Knowledge::from(other.knowledge).into(),
        };
        (other.instance, weighed)
    });
    let mut instances: Vec<_> = candidates.chain(others).collect();
    instances.sort_by_key(|(instance, _)| *instance);
    let (wait, room_in_seconds) = match explanation.refusal {
        None => (Wait::Unspecified, None),
        Some(Refusal::Saturated { .. }) => (Wait::Saturated, None),
        Some(Refusal::Held { room_in, .. }) => (Wait::Held, Some(room_in.as_secs_f64())),
    };
    ExplainResponse {
        wait: wait.into(),
        room_in_seconds,
        chosen: name(explanation.chosen),
        prompt_tokens: explanation.prompt_tokens,
        is_estimated,
        policy: core.router().config().policy_spec().without_hold().to_string(),
        instances: instances.into_iter().map(|(_, weighed)| weighed).collect(),
    }
}
