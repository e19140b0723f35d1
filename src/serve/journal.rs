//! What happened lately, for whoever looks: the last decisions and how they went, and the last hour in steps.
//!
//! Both are rings of a fixed size, whatever the traffic. A decision costs one uncontended lock; the steps are differences
//! between readings of the metrics, and cost requests nothing.

mod verdict;

pub use verdict::{Suspect, Verdict};

use super::members::Member;
use super::telemetry::metrics::Progress;
use super::telemetry::totals::{Cached, Compared, Totals};
use crate::routing::admission::Waited;
use crate::routing::{Decision, RequestId, Time};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Decisions that are kept.
pub(super) const DECISIONS: usize = 64;
/// Steps that are kept: an hour.
const STEPS: usize = 720;
/// Time from one step to the next.
pub(super) const STEP: Duration = Duration::from_secs(5);

/// The last decisions, and the last hour.
pub(super) struct Journal {
    /// By request id, modulo the length: ids are given in sequence.
    decisions: [Mutex<Option<Entry>>; DECISIONS],
    history: Mutex<History>,
}

/// A decision, and what became of it so far.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub decision: Decision,
    /// Where it went, whoever is there now.
    pub member: Arc<Member>,
    pub at: Time,
    pub why: Why,
    /// How it waited before, if it did.
    pub waited: Option<Waited>,
    pub ttft: Option<f64>,
    pub ended: Option<Progress>,
}

/// Why a request went where it went, as far as overlap says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Its prompt could not be looked up, so load alone decided.
    ByLoad,
    /// Nobody had any of it cached, so load decided.
    Cold,
    /// It went where most of it is cached.
    Prefix,
    /// More of it is cached elsewhere, where it would have waited for too long.
    Load,
}

impl Why {
    fn of(decision: &Decision, looked_up: bool) -> Self {
        match (decision.overlap_tokens, decision.best_overlap_tokens) {
            _ if !looked_up => Why::ByLoad,
            (_, 0) => Why::Cold,
            (chosen, best) if chosen >= best => Why::Prefix,
            (_, _) => Why::Load,
        }
    }
}

#[derive(Default)]
struct History {
    last: Option<(Time, Totals)>,
    steps: VecDeque<(Step, Told)>,
}

/// What happened in one step of time. The three shares are of the same prompt tokens: those of the requests whose instances said
/// what they had cached, or, where hardly any did, those of all that were routed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// When it ended, in seconds since 1970.
    pub at: u64,
    /// Requests routed, a second.
    pub requests_per_second: f64,
    /// Prompt tokens routed, a second.
    pub prompt_tokens_per_second: f64,
    /// Cached at the best instance, as far as the index knew.
    pub best: Option<f64>,
    /// Cached at the chosen instance, as far as the index knew.
    pub chosen: Option<f64>,
    /// Cached, as the instances said in the answers that came back; missing where hardly any did.
    pub delivered: Option<f64>,
    /// Median time to the first token, in seconds.
    pub ttft_p50: Option<f64>,
    /// 99th percentile of the time to the first token, in seconds.
    pub ttft_p99: Option<f64>,
    /// Requests in flight at its end.
    pub in_flight: u64,
}

impl Journal {
    pub fn new() -> Self {
        Journal { decisions: std::array::from_fn(|_| Mutex::new(None)), history: Mutex::default() }
    }

    /// A decision was made. `looked_up` says whether the prompt's content was known.
    pub fn decided(&self, at: Time, decision: &Decision, member: Arc<Member>, looked_up: bool) {
        let why = Why::of(decision, looked_up);
        let (decision, waited, ttft, ended) = (*decision, None, None, None);
        *self.slot(decision.request).lock() = Some(Entry { decision, member, at, why, waited, ttft, ended });
    }

    /// It waited so before its decision was made.
    pub fn waited(&self, request: RequestId, waited: Waited) {
        let mut slot = self.slot(request).lock();
        if let Some(entry) = slot.as_mut().filter(|entry| entry.decision.request == request) {
            entry.waited = Some(waited);
        }
    }

    /// A request came so far, so many seconds after its decision.
    pub fn progressed(&self, request: RequestId, progress: Progress, seconds: f64) {
        let mut slot = self.slot(request).lock();
        if let Some(entry) = slot.as_mut().filter(|entry| entry.decision.request == request) {
            match progress {
                Progress::FirstToken => entry.ttft = Some(seconds),
                Progress::Ended(_) => entry.ended = Some(progress),
            }
        }
    }

    /// The last decisions, latest first.
    pub fn decisions(&self) -> Vec<Entry> {
        let mut entries: Vec<Entry> = self.decisions.iter().filter_map(|slot| slot.lock().clone()).collect();
        entries.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.decision.request));
        entries
    }

    /// A step ends with these totals.
    pub fn step(&self, now: Time, totals: Totals) {
        let mut history = self.history.lock();
        if let Some((before, last)) = &history.last {
            let told = Told::between(last, &totals);
            let step = Step::of(&told, last, &totals, now.seconds_since(*before));
            if history.steps.len() == STEPS {
                history.steps.pop_front();
            }
            history.steps.push_back((step, told));
        }
        history.last = Some((now, totals));
    }

    /// The last hour, earliest first.
    pub fn steps(&self) -> Vec<Step> {
        self.history.lock().steps.iter().map(|(step, _)| step.clone()).collect()
    }

    /// What was told of prompt tokens over the last so many steps.
    pub fn lately(&self, steps: usize) -> Told {
        let history = self.history.lock();
        history.steps.iter().rev().take(steps).fold(Told::default(), |sum, (_, told)| sum.plus(told))
    }

    fn slot(&self, request: RequestId) -> &Mutex<Option<Entry>> {
        &self.decisions[(request.0 % DECISIONS as u64) as usize]
    }
}

impl Step {
    fn of(told: &Told, from: &Totals, to: &Totals, seconds: f64) -> Self {
        let shares = told.shares();
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let ttft = to.ttft.since(&from.ttft);
        Step {
            at,
            requests_per_second: (to.requests - from.requests) as f64 / seconds,
            prompt_tokens_per_second: told.routed.prompt_tokens as f64 / seconds,
            best: shares.map(|shares| shares.best),
            chosen: shares.map(|shares| shares.chosen),
            delivered: shares.and_then(|shares| shares.delivered),
            ttft_p50: ttft.quantile(0.5),
            ttft_p99: ttft.quantile(0.99),
            in_flight: to.in_flight,
        }
    }
}

/// What was told of the prompt tokens of some time: of the requests that were routed in it, and of those whose answers ended in it
/// and said what had been cached.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    routed: Cached,
    compared: Compared,
}

/// Shares of one and the same prompt tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Shares {
    best: f64,
    chosen: f64,
    /// `None` where hardly any answer says.
    delivered: Option<f64>,
}

/// Answers for less than this share of the prompt tokens say nothing about the rest.
const FEW: f64 = 0.10;

impl Told {
    fn between(from: &Totals, to: &Totals) -> Told {
        let since = |to: &Cached, from: &Cached| Cached {
            prompt_tokens: to.prompt_tokens - from.prompt_tokens,
            best_tokens: to.best_tokens - from.best_tokens,
            chosen_tokens: to.chosen_tokens - from.chosen_tokens,
        };
        Told {
            routed: since(&to.routed, &from.routed),
            compared: Compared {
                predicted: since(&to.compared.predicted, &from.compared.predicted),
                delivered_tokens: to.compared.delivered_tokens - from.compared.delivered_tokens,
            },
        }
    }

    fn plus(&self, other: &Told) -> Told {
        Told { routed: self.routed.plus(&other.routed), compared: self.compared.plus(&other.compared) }
    }

    /// `None` when there were no prompt tokens at all.
    fn shares(&self) -> Option<Shares> {
        let Told { routed, compared } = self;
        let says = compared.predicted.prompt_tokens as f64;
        let (of, delivered) = match says > 0.0 && says >= FEW * routed.prompt_tokens as f64 {
            true => (&compared.predicted, Some(compared.delivered_tokens)),
            false => (routed, None),
        };
        // The counters are read one after another while requests go on.
        let share = |tokens: u64| (tokens as f64 / of.prompt_tokens as f64).min(1.0);
        (of.prompt_tokens > 0).then(|| Shares {
            best: share(of.best_tokens),
            chosen: share(of.chosen_tokens),
            delivered: delivered.map(share),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::InstanceId;
    use crate::serve::telemetry::labels::End;

    fn decision(request: u64, overlap_tokens: u32, best_overlap_tokens: u32) -> Decision {
        Decision {
            request: RequestId(request),
            instance: InstanceId(0),
            prompt_tokens: 100,
            overlap_tokens,
            best_overlap_tokens,
            expected_ttft: Duration::ZERO,
        }
    }

    #[test]
    fn the_last_decisions_are_kept_with_what_became_of_them() {
        let journal = Journal::new();
        let last = 3 * DECISIONS as u64;
        let member = Arc::new(Member::example());
        let decided = |request| journal.decided(Time::ZERO, &decision(request, 0, 16), Arc::clone(&member), true);
        (0..=last).for_each(decided);
        journal.progressed(RequestId(last), Progress::FirstToken, 0.5);
        journal.progressed(RequestId(last), Progress::Ended(End::Finished), 2.0);
        // Long overwritten: nobody's progress.
        journal.progressed(RequestId(0), Progress::FirstToken, 9.0);
        let kept = journal.decisions();
        let ids: Vec<u64> = kept.iter().map(|entry| entry.decision.request.0).collect();
        assert_eq!(ids, (last - DECISIONS as u64 + 1..=last).rev().collect::<Vec<_>>());
        assert_eq!((kept[0].ttft, kept[0].ended), (Some(0.5), Some(Progress::Ended(End::Finished))));
        assert!(kept[1..].iter().all(|entry| entry.ttft.is_none()));
    }

    #[test]
    fn overlap_says_why() {
        for (overlap, best, looked_up, why) in [
            (0, 0, true, Why::Cold),
            (16, 16, true, Why::Prefix),
            (16, 32, true, Why::Load),
            (0, 32, true, Why::Load),
            (0, 0, false, Why::ByLoad),
        ] {
            assert_eq!(Why::of(&decision(0, overlap, best), looked_up), why, "{overlap} {best}");
        }
    }

    fn cached(prompt_tokens: u64, best_tokens: u64, chosen_tokens: u64) -> Cached {
        Cached { prompt_tokens, best_tokens, chosen_tokens }
    }

    #[test]
    fn shares_are_of_the_same_requests() {
        let told =
            |routed, predicted, delivered_tokens| Told { routed, compared: Compared { predicted, delivered_tokens } };
        let shares = |best, chosen, delivered| Some(Shares { best, chosen, delivered });
        for (told, expected) in [
            (told(cached(0, 0, 0), cached(0, 0, 0), 0), None),
            // Half of the requests are streams that never say; what was delivered of the other half is no less for it.
            (told(cached(2000, 1600, 1200), cached(1000, 800, 600), 600), shares(0.8, 0.6, Some(0.6))),
            (told(cached(2000, 1600, 1200), cached(0, 0, 0), 0), shares(0.8, 0.6, None)),
            (told(cached(2000, 1600, 1200), cached(100, 0, 0), 0), shares(0.8, 0.6, None)),
            // Answers end after their requests were routed.
            (told(cached(0, 0, 0), cached(1000, 500, 500), 250), shares(0.5, 0.5, Some(0.25))),
        ] {
            assert_eq!(told.shares(), expected, "{told:?}");
        }
    }

    #[test]
    fn an_hour_is_kept_in_differences() {
        let journal = Journal::new();
        let at = |step: u64| Time::ZERO + STEP * step as u32;
        for step in 0..=(STEPS as u64 + 5) {
            let totals = Totals {
                requests: 10 * step,
                routed: cached(1000 * step, 800 * step, 500 * step),
                compared: Compared {
                    predicted: cached(500 * step, 350 * step, 300 * step),
                    delivered_tokens: 250 * step,
                },
                in_flight: step,
                ..Totals::default()
            };
            journal.step(at(step), totals);
        }
        let steps = journal.steps();
        assert_eq!(steps.len(), STEPS);
        let last = steps.last().unwrap();
        assert_eq!((last.requests_per_second, last.prompt_tokens_per_second), (2.0, 200.0));
        // All of the same requests: those whose answers say.
        assert_eq!((last.best, last.chosen, last.delivered), (Some(0.7), Some(0.6), Some(0.5)));
        assert_eq!((last.ttft_p50, last.in_flight), (None, STEPS as u64 + 5));
    }
}
