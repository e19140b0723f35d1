//! What one instance has been given to do.

use super::pace::Pace;
use super::rate::DecayingRate;
use crate::routing::decision::RequestId;
use crate::routing::prefill::PrefillModel;
use crate::routing::time::Time;
use std::collections::VecDeque;
use std::time::Duration;

/// What an instance has to do, as the router knows it from its own decisions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Requests waiting for their first token.
    pub prefill_requests: u32,
    /// Prompt tokens to be computed for them.
    pub prefill_tokens: u64,
    /// Estimated time until a new request's prefill would begin.
    pub prefill_wait: Duration,
    /// Estimated time, before that, until a step ends in which nothing but decodes is under way.
    pub step_wait: Duration,
    /// Of the requests waiting for their first token, those whose prefill has not begun.
    pub unbegun_requests: u32,
    /// Requests past their first token.
    pub decode_requests: u32,
    /// Prompt tokens that they attend to.
    pub decode_tokens: u64,
    /// The share of time, over the last minute or so, for which it was given prefill work. Above 1 it falls behind.
    pub busy_share: f64,
    /// Requests that it was ever given.
    pub assigned: u64,
    /// Uncached prompt tokens that it was ever given.
    pub assigned_tokens: u64,
    /// Prompt tokens of the requests waiting for their first token, cached ones included.
    pub prefill_prompt_tokens: u64,
    /// What it last said of itself, if it says anything.
    pub reported: Option<Reported>,
    /// The same, where it was said not too long ago to be still so.
    pub recent: Option<Reported>,
    /// When it said so.
    pub reported_at: Option<Time>,
    /// Requests that it reported beyond those that we know of: someone else's. Their wait is part of the estimate.
    pub foreign_requests: u32,
}

/// What an instance says of itself: its queue and cache as its metrics show them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reported {
    /// Requests not yet scheduled.
    pub waiting: u32,
    /// Requests scheduled.
    pub running: u32,
    /// The share of KV blocks in use, 0 to 1.
    pub cache_usage: f64,
}

impl Load {
    /// Requests in flight, those of others included as far as they were reported.
    pub fn requests(&self) -> u32 {
        self.prefill_requests + self.decode_requests + self.foreign_requests
    }

    /// Prompt tokens of all requests in flight.
    pub fn active_tokens(&self) -> u64 {
        self.prefill_prompt_tokens + self.decode_tokens
    }

    /// Requests not yet scheduled, as reported; without a report, those waiting for their first token.
    pub fn waiting(&self) -> u32 {
        self.reported.map_or(self.prefill_requests, |reported| reported.waiting)
    }

    /// The share of KV blocks in use, as reported; without a report, none.
    pub fn cache_usage(&self) -> f64 {
        self.reported.map_or(0.0, |reported| reported.cache_usage)
    }

    /// Less loaded first: by requests in flight, then by requests ever given, so that idle instances take turns.
    pub fn order(&self) -> (u32, u64) {
        (self.requests(), self.assigned)
    }
}

/// The running account behind a [`Load`].
#[derive(Debug, Default)]
pub(super) struct Book {
    /// Prefills in the order in which they were given.
    queue: VecDeque<Prefill>,
    queued: Duration,
    queued_tokens: u64,
    queued_prompt_tokens: u64,
    /// Since when what is queued has been at work, as far as we can tell.
    head_since: Time,
    /// Whether the first that is queued found nothing before it.
    head_is_alone: bool,
    decode_requests: u32,
    decode_tokens: u64,
    work: DecayingRate,
    pace: Pace,
    assigned: u64,
    assigned_tokens: u64,
    reported: Option<(Time, Reported)>,
    foreign: Foreign,
    /// All estimates so far.
    estimated: Duration,
}

/// Requests of others, from what an instance reports and what we know.
///
/// A report is about a moment since the last one, or some time before it is there, so what of it are our own requests is no more
/// than the most that we had in flight at once lately; only what goes beyond is someone else's. Our own account is never replaced.
#[derive(Debug, Default)]
struct Foreign {
    requests: u32,
    /// Of these, those that wait.
    waiting: u32,
    /// Most of our own requests at once, since the last turn and between the two before.
    most: [u32; 2],
    /// A turn comes with a report, where the last was long enough ago.
    turned_at: Time,
}

/// In reports that are no later than this, others' requests are told from ours that ended since.
const REPORT_LATE_MAX: Duration = Duration::from_millis(1500);
/// A report says nothing about what is later than this.
const REPORT_LASTS: Duration = Duration::from_secs(30);

/// A prefill to be queued. The estimate is the model's: the account corrects it by what it has learnt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prefill {
    pub request: RequestId,
    pub tokens: u32,
    pub prompt_tokens: u32,
    pub estimate: Duration,
    pub booked_at: Time,
}

/// What a first token tells of how fast an instance prefills.
pub(super) struct Prefilled {
    /// Seconds that it took, as far as can be told.
    pub taken: f64,
    /// Seconds that the model estimated.
    pub estimated: f64,
    /// Seconds from when it was given to the news of it, where nothing was before it.
    pub alone: Option<f64>,
}

/// A queue that outlasts its estimate is still not over: it is never believed to be done beyond this share. Short of that it
/// is believed to go on as estimated, so that news of first tokens may be late.
const DONE_MAX: f64 = 0.9;

/// So many steps after one was seen to end, it is not known any more when they do.
const STEPS_TOLD: f64 = 8.0;

impl Book {
    /// `pace` is what [`pace`](Self::pace) says.
    pub fn queue(&mut self, now: Time, step_ended: Time, prefill: Prefill, model: &PrefillModel, pace: f64) {
        if self.queue.is_empty() {
            self.head_since = now + self.step_under_way(now, step_ended, model, pace);
            self.head_is_alone = true;
        }
        self.queued += prefill.estimate;
        self.queued_tokens += u64::from(prefill.tokens);
        self.queued_prompt_tokens += u64::from(prefill.prompt_tokens);
        self.work.add(now, prefill.estimate.as_secs_f64() * pace);
        self.assigned += 1;
        self.assigned_tokens += u64::from(prefill.tokens);
        self.estimated += prefill.estimate;
        self.queue.push_back(prefill);
        self.foreign.most[0] = self.foreign.most[0].max(self.own_requests());
    }

    /// Its first token is there, `late` ago. The request must be in the queue.
    pub fn prefilled(&mut self, now: Time, late: Duration, request: RequestId) -> Prefilled {
        let (since, is_alone) = (self.head_since, self.head_is_alone);
        let done = self.withdraw(now, late, request);
        let (all, estimated) = (now.since(since).as_secs_f64(), done.estimate.as_secs_f64());
        let taken = (all - late.as_secs_f64()).max(0.0);
        self.pace.observe(taken, estimated);
        Prefilled { taken, estimated, alone: is_alone.then_some(all) }
    }

    /// It will not be computed, or nobody waits for it; so it was `late` ago. The request must be in the queue.
    pub fn withdraw(&mut self, now: Time, late: Duration, request: RequestId) -> Prefill {
        let at = self.queue.iter().position(|prefill| prefill.request == request).expect("a prefill is queued once");
        let done = self.queue.remove(at).expect("the position was just found");
        self.queued -= done.estimate;
        self.queued_tokens -= u64::from(done.tokens);
        self.queued_prompt_tokens -= u64::from(done.prompt_tokens);
        // What came since then found the instance idle.
        let then = now - late;
        self.head_since = self.queue.front().map_or(then, |next| then.max(next.booked_at));
        self.head_is_alone = false;
        done
    }

    pub fn report(&mut self, now: Time, reported: Reported) {
        self.reported = Some((now, reported));
        let own = self.own_requests();
        let [since, before] = self.foreign.most;
        let most = since.max(before).max(own);
        self.foreign.requests = reported.running.saturating_add(reported.waiting).saturating_sub(most);
        self.foreign.waiting = self.foreign.requests.min(reported.waiting);
        if now.since(self.foreign.turned_at) > REPORT_LATE_MAX {
            (self.foreign.most, self.foreign.turned_at) = ([own, since], now);
        }
    }

    /// How long the prefill of a prompt takes by the model, beside the decodes under way. After the request whose step is under
    /// way, the next pays for what they add to a step of its own, and who comes behind shares it.
    pub fn estimate(&self, model: &PrefillModel, prompt_tokens: u32, cached_tokens: u32) -> Duration {
        let steps = model.steps(prompt_tokens.saturating_sub(cached_tokens));
        if self.queue.len() > 1 {
            model.prefill_shared(prompt_tokens, cached_tokens) + model.decode_step(self.decode_tokens).mul_f64(steps)
        } else {
            model.prefill(prompt_tokens, cached_tokens) + model.decode_step(self.decode_tokens).mul_f64(steps.max(1.0))
        }
    }

    /// How long a step full of prefill takes by the model, beside the same.
    pub fn full_step(&self, model: &PrefillModel) -> Duration {
        model.full_step() + model.decode_step(self.decode_tokens)
    }

    /// Requests given and not ended.
    pub fn own_requests(&self) -> u32 {
        self.queue.len() as u32 + self.decode_requests
    }

    /// What the model's estimates are to be multiplied by, here; `fleet` is what to multiply them by on average.
    pub fn pace(&self, fleet: f64) -> f64 {
        self.pace.ratio(fleet)
    }

    pub fn decode(&mut self, prompt_tokens: u32) {
        self.decode_requests += 1;
        self.decode_tokens += u64::from(prompt_tokens);
    }

    pub fn decoded(&mut self, prompt_tokens: u32) {
        self.decode_requests -= 1;
        self.decode_tokens -= u64::from(prompt_tokens);
    }

    /// `pace` is what [`pace`](Self::pace) says; first tokens are told `late`.
    pub fn load(&self, now: Time, step_ended: Time, model: &PrefillModel, pace: f64, late: Duration) -> Load {
        let recent = self.reported.filter(|(at, _)| now.since(*at) < REPORT_LASTS);
        Load {
            prefill_requests: self.queue.len() as u32,
            prefill_tokens: self.queued_tokens,
            prefill_wait: if late.is_zero() { self.wait(now, pace) } else { self.wait_untold(now, pace, late) }
                + if recent.is_some() { self.foreign_wait(pace) } else { Duration::ZERO },
            step_wait: if late.is_zero() { self.step_wait(now, step_ended, model, pace) } else { Duration::ZERO },
            unbegun_requests: self.queue.iter().rev().take_while(|prefill| prefill.booked_at > step_ended).count() as u32,
            decode_requests: self.decode_requests,
            decode_tokens: self.decode_tokens,
            busy_share: self.work.per_second(now),
            assigned: self.assigned,
            assigned_tokens: self.assigned_tokens,
            prefill_prompt_tokens: self.queued_prompt_tokens,
            reported: self.reported.map(|(_, reported)| reported),
            recent: recent.map(|(_, reported)| reported),
            reported_at: self.reported.map(|(at, _)| at),
            foreign_requests: if recent.is_some() { self.foreign.requests } else { 0 },
        }
    }

    /// Others' prefills are taken to be like ours on average.
    fn foreign_wait(&self, pace: f64) -> Duration {
        match self.assigned {
            0 => Duration::ZERO,
            assigned => self.estimated.mul_f64(f64::from(self.foreign.waiting) / assigned as f64 * pace),
        }
    }

    /// The same where first tokens are told late: what should be done by now and could not be told yet is believed to be.
    fn wait_untold(&self, now: Time, pace: f64, late: Duration) -> Duration {
        let (mut ends, mut least) = (self.head_since, Duration::ZERO);
        for prefill in &self.queue {
            let takes = prefill.estimate.mul_f64(pace);
            ends = ends.max(prefill.booked_at) + takes;
            let is_untold = ends <= now && now.since(ends) < late;
            least += if is_untold { Duration::ZERO } else { takes.mul_f64(1.0 - DONE_MAX) };
        }
        ends.since(now).max(least)
    }

    fn wait(&self, now: Time, pace: f64) -> Duration {
        let queued = self.queued.mul_f64(pace);
        let done = now.since(self.head_since).min(queued.mul_f64(DONE_MAX));
        queued - done
    }

    fn step_wait(&self, now: Time, step_ended: Time, model: &PrefillModel, pace: f64) -> Duration {
        if self.queue.is_empty() { self.step_under_way(now, step_ended, model, pace) } else { self.head_since.since(now) }
    }

    /// How long the step goes on in which nothing but decodes is under way: whoever comes begins with the next one.
    fn step_under_way(&self, now: Time, step_ended: Time, model: &PrefillModel, pace: f64) -> Duration {
        if self.decode_requests == 0 {
            return Duration::ZERO;
        }
        let step = (model.idle_step() + model.decode_step(self.decode_tokens)).as_secs_f64() * pace;
        let since = now.since(step_ended).as_secs_f64();
        let left = if since > step * STEPS_TOLD { step / 2.0 } else { step - since % step };
        Duration::from_secs_f64(left)
    }
}
