//! An answer on its way back, whatever it speaks: its body, how long it may be silent, and what is booked for it.

use super::Placed;
use crate::routing::Decision;
use crate::serve::core::Core;
use crate::serve::ingress::guard::Entered;
use crate::serve::ingress::traced::Traced;
use crate::serve::members::Member;
use crate::serve::telemetry::labels::Failure;
use crate::serve::ticket::Ticket;
use axum::body::{Bytes, HttpBody};
use hyper::body::{Frame, Incoming};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// An answer. Dropping it before its end abandons the request, at the instance and in the router.
pub(super) struct Answer {
    core: Arc<Core>,
    /// Held on to, so that its place stays its own for as long as it answers.
    member: Arc<Member>,
    /// `None` once it ended.
    body: Option<Incoming>,
    ticket: Option<Ticket>,
    /// What was predicted to be cached, where that was looked up.
    predicted: Option<Decision>,
    idle: Option<Idle>,
    /// Against whose key what it generates counts.
    entered: Entered,
    /// Of its request, where that is sampled.
    span: Option<Traced>,
}

/// What an answer told about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Usage {
    /// Tokens generated.
    pub output_tokens: u32,
    /// Prompt tokens that the engine had cached, where it says so.
    pub cached_tokens: Option<u32>,
}

/// What comes next.
pub(super) enum Next {
    Frame(Frame<Bytes>),
    End,
    Broken(Break),
}

/// Why an answer did not come to its end. Its words are the client's to read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Break {
    /// The instance hung up.
    #[error("the instance broke off its answer")]
    Body(#[source] hyper::Error),
    /// The instance was silent for longer than it may be.
    #[error("the instance was silent for too long")]
    Silent,
}

impl Break {
    fn failure(&self) -> Failure {
        match self {
            Break::Body(_) => Failure::Body,
            Break::Silent => Failure::Late,
        }
    }
}

impl Answer {
    pub fn new(
        core: Arc<Core>,
        placed: Placed,
        member: Arc<Member>,
        body: Incoming,
        silence_max: Option<Duration>,
        entered: Entered,
    ) -> Self {
        let Placed { instance: _, decision, ticket } = placed;
        let idle = silence_max.map(Idle::new);
        Answer { core, member, body: Some(body), ticket, predicted: decision, idle, entered, span: None }
    }

    /// Tells a span what the answer told.
    pub fn traced(mut self, span: Option<Traced>) -> Self {
        self.span = span.filter(|Traced(span)| span.is_sampled());
        self
    }

    /// Who gives it.
    pub fn member(&self) -> &Arc<Member> {
        &self.member
    }

    /// What is left of it.
    pub fn body(&self) -> Option<&Incoming> {
        self.body.as_ref()
    }

    /// Whether its request is still booked.
    pub fn is_booked(&self) -> bool {
        self.ticket.is_some()
    }

    /// Counts generated tokens against the client's key.
    pub fn spend(&self, output_tokens: u32) {
        self.entered.spend(output_tokens);
    }

    /// The next frame. After the end, and after a break, there is only the end.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Next> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(Next::End);
        };
        let next = match Pin::new(body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(idle) = &mut self.idle {
                    idle.heard();
                }
                return Poll::Ready(Next::Frame(frame));
            }
            Poll::Ready(Some(Err(error))) => Next::Broken(Break::Body(error)),
            Poll::Ready(None) => Next::End,
            Poll::Pending => match self.idle.as_mut().map_or(Poll::Pending, |idle| idle.poll(context)) {
                Poll::Ready(()) => Next::Broken(Break::Silent),
                Poll::Pending => return Poll::Pending,
            },
        };
        self.body = None;
        Poll::Ready(next)
    }

    /// Nothing more is read of it.
    pub fn close(&mut self) {
        self.body = None;
    }

    /// A token came.
    pub fn token(&mut self) {
        if let Some(ticket) = &mut self.ticket {
            ticket.first_token();
            self.core.stepped(self.member.id);
        }
    }

    /// It came to its end, and said what it took.
    pub fn settle(&mut self, usage: Usage, is_success: bool) {
        let ticket = self.ticket.take();
        if let Some(Traced(span)) = self.span.take() {
            span.tell("warmpath.output_tokens", i64::from(usage.output_tokens));
            if let Some(cached_tokens) = usage.cached_tokens {
                span.tell("warmpath.cached_tokens", i64::from(cached_tokens));
            }
        }
        if let Some(cached_tokens) = usage.cached_tokens {
            let metrics = self.core.metrics().instance(self.member.id.index());
            metrics.reported_cached_tokens.increment(cached_tokens.into());
            if let (Some(predicted), Some(ticket)) = (&self.predicted, &ticket) {
                metrics.delivered(predicted, cached_tokens);
                ticket.delivered(cached_tokens);
            }
        }
        if let Some(ticket) = ticket
            && is_success
        {
            ticket.finish(usage.output_tokens);
        }
    }

    /// Whatever comes of it is no success; its request is booked no longer.
    pub fn unbook(&mut self) {
        self.ticket = None;
    }

    /// The instance failed while it answered.
    pub fn failed(&self, failure: Failure) {
        self.core.metrics().instance(self.member.id.index()).failures.of(failure).increment(1);
        self.core.failed_at(self.member.id);
    }

    /// It broke off by the instance's fault.
    pub fn broke(&mut self, why: &Break) {
        self.unbook();
        self.failed(why.failure());
    }
}

/// How long an answer may be silent, and how much of that is left.
struct Idle {
    limit: Duration,
    left: Pin<Box<Sleep>>,
}

impl Idle {
    fn new(limit: Duration) -> Self {
        Idle { limit, left: Box::pin(tokio::time::sleep(limit)) }
    }

    /// Ready once it was silent for too long.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.left.as_mut().poll(context)
    }

    fn heard(&mut self) {
        self.left.as_mut().reset(Instant::now() + self.limit);
    }
}
