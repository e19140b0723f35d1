//! DualMap: two instances by two hashes of an affinity key; of them the one with more cached, unless that one is late.
//!
//! The key is the session, the best that it could have, else the head of the prompt. The one with more of the prompt cached
//! is taken when it answers within the deadline, else the sooner of the two. Absent: its rebalancing of hot keys.

use super::{Candidate, Parameter, Policy, View, mix};

pub(super) struct DualMap {
    deadline_seconds: f64,
}

impl Default for DualMap {
    fn default() -> Self {
        DualMap { deadline_seconds: 5.0 }
    }
}

impl Policy for DualMap {
    fn choose(&self, view: &View<'_>) -> usize {
        let count = view.candidates.len();
        if count == 1 {
            return 0;
        }
        let key = view.session.map(|session| session.0).or(view.head).unwrap_or_else(|| mix(view.sequence));
        let first = (mix(key) % count as u64) as usize;
        let other = (mix(mix(key)) % (count - 1) as u64) as usize;
        let second = if other >= first { other + 1 } else { other };
        let [a, b] = [first, second].map(|position| &view.candidates[position]);
        let ttft = |candidate: &Candidate| candidate.load.prefill_wait_seconds + candidate.prefill_seconds;
        let sooner = if ttft(b) < ttft(a) { second } else { first };
        let warmer = match a.overlap_tokens.cmp(&b.overlap_tokens) {
            std::cmp::Ordering::Greater => first,
            std::cmp::Ordering::Less => second,
            std::cmp::Ordering::Equal => sooner,
        };
        if ttft(&view.candidates[warmer]) <= self.deadline_seconds { warmer } else { sooner }
    }

    fn parameters(&mut self) -> Vec<Parameter<'_>> {
        vec![Parameter::new("deadline_seconds", "time to first token to be kept", &mut self.deadline_seconds)]
    }
}
