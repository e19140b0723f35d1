//! What happened lately, for whoever looks: the last decisions and how they went, and the last hour in steps.
//!
//! Both are rings of a fixed size, whatever the traffic. A decision costs one uncontended lock; the steps are differences
//! between readings of the metrics, and cost requests nothing.

use super::telemetry::metrics::{Progress, Totals};
use crate::routing::{Decision, Knowledge, RequestId, Time};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
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
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub decision: Decision,
    pub at: Time,
    pub why: Why,
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
    steps: VecDeque<Step>,
}

/// What happened in one step of time. Shares are of the prompt tokens that were routed, and are missing when none were.
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
    /// Cached, as the instances said in the answers that came back; those that do not say count as nothing.
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
    pub fn decided(&self, at: Time, decision: &Decision, looked_up: bool) {
        let why = Why::of(decision, looked_up);
        *self.slot(decision.request).lock() = Some(Entry { decision: *decision, at, why, ttft: None, ended: None });
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
        let mut entries: Vec<Entry> = self.decisions.iter().filter_map(|slot| *slot.lock()).collect();
        entries.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.decision.request));
        entries
    }

    /// A step ends with these totals.
    pub fn step(&self, now: Time, totals: Totals) {
        let mut history = self.history.lock();
        if let Some((before, last)) = &history.last {
            let step = Step::between(last, &totals, now.since(*before).as_secs_f64());
            if history.steps.len() == STEPS {
                history.steps.pop_front();
            }
            history.steps.push_back(step);
        }
        history.last = Some((now, totals));
    }

    /// The last hour, earliest first.
    pub fn steps(&self) -> Vec<Step> {
        self.history.lock().steps.iter().cloned().collect()
    }

    fn slot(&self, request: RequestId) -> &Mutex<Option<Entry>> {
        &self.decisions[(request.0 % DECISIONS as u64) as usize]
    }
}

impl Step {
    fn between(from: &Totals, to: &Totals, seconds: f64) -> Self {
        let prompt_tokens = to.prompt_tokens - from.prompt_tokens;
        let share = |tokens: u64| (prompt_tokens > 0).then(|| tokens as f64 / prompt_tokens as f64);
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let ttft = to.ttft.since(&from.ttft);
        Step {
            at,
            requests_per_second: (to.requests - from.requests) as f64 / seconds,
            prompt_tokens_per_second: prompt_tokens as f64 / seconds,
            best: share(to.best_tokens - from.best_tokens),
            chosen: share(to.chosen_tokens - from.chosen_tokens),
            // An answer ends after its request was routed, so it may report what an earlier step asked.
            delivered: share(to.delivered_tokens - from.delivered_tokens).map(|share| share.min(1.0)),
            ttft_p50: ttft.quantile(0.5),
            ttft_p99: ttft.quantile(0.99),
            in_flight: to.in_flight,
        }
    }
}

/// Where to look when not enough is served from caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Suspect {
    /// Nothing was routed lately.
    Idle,
    /// Most of what could be cached is, and is found.
    Nothing,
    /// Prompts share little with what is cached anywhere.
    Workload,
    /// More is cached than where requests are sent.
    Policy,
    /// Instances have less, or more, cached than the index says.
    Index,
}

/// Is it routing well, and if not, why?
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// In one word.
    pub suspect: Suspect,
    /// In one sentence.
    pub says: String,
    /// The share of prompt tokens cached at the best instance, over the last five minutes.
    pub best: Option<f64>,
    /// The same at the chosen instance.
    pub chosen: Option<f64>,
    /// The same as instances reported it.
    pub delivered: Option<f64>,
}

/// Steps that a verdict looks at: five minutes.
const LATELY: usize = 60;
/// A difference of so many points is worth a look.
const WIDE: f64 = 0.05;
/// A difference that answers still under way, and a few that do not say, cannot explain.
const UNTRUE: f64 = 0.10;
/// Less than this share cached anywhere is little.
const LITTLE: f64 = 0.10;

impl Verdict {
    /// What the last steps say, beside how far the index is to be believed about each instance.
    pub fn of(steps: &[Step], knowledge: &[Knowledge]) -> Self {
        let lately = &steps[steps.len().saturating_sub(LATELY)..];
        let tokens: f64 = lately.iter().map(|step| step.prompt_tokens_per_second).sum();
        let mean = |share: fn(&Step) -> Option<f64>| {
            lately.iter().map(|step| share(step).unwrap_or(0.0) * step.prompt_tokens_per_second).sum::<f64>() / tokens
        };
        if tokens == 0.0 {
            let says = "Nothing was routed in the last five minutes.".to_owned();
            return Verdict { suspect: Suspect::Idle, says, best: None, chosen: None, delivered: None };
        }
        let (best, chosen, delivered) = (mean(|step| step.best), mean(|step| step.chosen), mean(|step| step.delivered));
        let unsure = knowledge.iter().filter(|knowledge| **knowledge != Knowledge::Exact).count();
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        let (suspect, says) = match () {
            () if delivered > 0.0 && (chosen - delivered).abs() > UNTRUE => (
                Suspect::Index,
                format!(
                    "The index: {} of prompt tokens were predicted to be cached, and {} were delivered; {unsure} of {} \
                     instances are not known exactly.",
                    percent(chosen),
                    percent(delivered),
                    knowledge.len()
                ),
            ),
            () if best - chosen > WIDE => (
                Suspect::Policy,
                format!(
                    "The policy, or too little capacity: {} of prompt tokens were cached somewhere, and {} where they \
                     were sent, because load outweighed the rest.",
                    percent(best),
                    percent(chosen)
                ),
            ),
            () if best < LITTLE => (
                Suspect::Workload,
                format!(
                    "The workload, or caches that are too small: only {} of prompt tokens were cached anywhere.",
                    percent(best)
                ),
            ),
            () => (
                Suspect::Nothing,
                format!("Routing well: {} of prompt tokens were cached where they were sent.", percent(chosen)),
            ),
        };
        Verdict { suspect, says, best: Some(best), chosen: Some(chosen), delivered: Some(delivered) }
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
        (0..=last).for_each(|request| journal.decided(Time::ZERO, &decision(request, 0, 16), true));
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

    #[test]
    fn an_hour_is_kept_in_differences() {
        let journal = Journal::new();
        let at = |step: u64| Time::ZERO + STEP * step as u32;
        for step in 0..=(STEPS as u64 + 5) {
            let totals = Totals {
                requests: 10 * step,
                prompt_tokens: 1000 * step,
                best_tokens: 800 * step,
                chosen_tokens: 500 * step,
                delivered_tokens: 450 * step,
                in_flight: step,
                ..Totals::default()
            };
            journal.step(at(step), totals);
        }
        let steps = journal.steps();
        assert_eq!(steps.len(), STEPS);
        let last = steps.last().unwrap();
        assert_eq!((last.requests_per_second, last.prompt_tokens_per_second), (2.0, 200.0));
        assert_eq!((last.best, last.chosen, last.delivered), (Some(0.8), Some(0.5), Some(0.45)));
        assert_eq!((last.ttft_p50, last.in_flight), (None, STEPS as u64 + 5));
    }

    #[test]
    fn a_verdict_names_who_is_to_blame() {
        let step = |best, chosen, delivered| Step {
            at: 0,
            requests_per_second: 1.0,
            prompt_tokens_per_second: 100.0,
            best: Some(best),
            chosen: Some(chosen),
            delivered: Some(delivered),
            ttft_p50: None,
            ttft_p99: None,
            in_flight: 0,
        };
        let idle =
            Step { prompt_tokens_per_second: 0.0, best: None, chosen: None, delivered: None, ..step(0.0, 0.0, 0.0) };
        for (step, suspect) in [
            (idle, Suspect::Idle),
            (step(0.9, 0.88, 0.88), Suspect::Nothing),
            // Answers that do not say what was cached prove nothing against the index.
            (step(0.9, 0.88, 0.0), Suspect::Nothing),
            (step(0.03, 0.03, 0.03), Suspect::Workload),
            (step(0.9, 0.5, 0.5), Suspect::Policy),
            (step(0.9, 0.9, 0.6), Suspect::Index),
            (step(0.2, 0.2, 0.6), Suspect::Index),
        ] {
            let verdict = Verdict::of(std::slice::from_ref(&step), &[Knowledge::Degraded]);
            assert_eq!(verdict.suspect, suspect, "{step:?} {verdict:?}");
        }
    }
}
