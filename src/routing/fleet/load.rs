//! What one instance has been given to do.

use super::rate::DecayingRate;
use crate::routing::decision::RequestId;
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
    /// Requests past their first token.
    pub decode_requests: u32,
    /// Prompt tokens that they attend to.
    pub decode_tokens: u64,
    /// The share of time, over the last minute or so, for which it was given prefill work. Above 1 it falls behind.
    pub busy_share: f64,
    /// Requests that it was ever given.
    pub assigned: u64,
}

impl Load {
    /// Requests in flight.
    pub fn requests(&self) -> u32 {
        self.prefill_requests + self.decode_requests
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
    /// Since when the first of the queue has been at work, as far as we can tell.
    head_since: Time,
    decode_requests: u32,
    decode_tokens: u64,
    work: DecayingRate,
    assigned: u64,
}

#[derive(Debug)]
struct Prefill {
    request: RequestId,
    tokens: u32,
    estimate: Duration,
}

/// A prefill that outlasts its estimate is still not over: this much of it is always left to wait for.
const DONE_MAX: f64 = 0.9;

impl Book {
    pub fn queue(&mut self, now: Time, request: RequestId, tokens: u32, estimate: Duration) {
        if self.queue.is_empty() {
            self.head_since = now;
        }
        self.queue.push_back(Prefill { request, tokens, estimate });
        self.queued += estimate;
        self.queued_tokens += u64::from(tokens);
        self.work.add(now, estimate.as_secs_f64());
        self.assigned += 1;
    }

    /// The request must be in the queue.
    pub fn prefilled(&mut self, now: Time, request: RequestId) {
        let at = self.queue.iter().position(|prefill| prefill.request == request).expect("a prefill is queued once");
        let done = self.queue.remove(at).expect("the position was just found");
        self.queued -= done.estimate;
        self.queued_tokens -= u64::from(done.tokens);
        self.head_since = now;
    }

    pub fn decode(&mut self, prompt_tokens: u32) {
        self.decode_requests += 1;
        self.decode_tokens += u64::from(prompt_tokens);
    }

    pub fn decoded(&mut self, prompt_tokens: u32) {
        self.decode_requests -= 1;
        self.decode_tokens -= u64::from(prompt_tokens);
    }

    pub fn load(&self, now: Time) -> Load {
        Load {
            prefill_requests: self.queue.len() as u32,
            prefill_tokens: self.queued_tokens,
            prefill_wait: self.wait(now),
            decode_requests: self.decode_requests,
            decode_tokens: self.decode_tokens,
            busy_share: self.work.per_second(now),
            assigned: self.assigned,
        }
    }

    fn wait(&self, now: Time) -> Duration {
        let Some(head) = self.queue.front() else {
            return Duration::ZERO;
        };
        let done = now.since(self.head_since).min(head.estimate.mul_f64(DONE_MAX));
        self.queued - done
    }
}
