//! An answer's body on its way back: each chunk as it comes, and what it tells as facts.

use super::Placed;
use super::observer::Observer;
use crate::routing::{Decision, InstanceId};
use crate::serve::core::Core;
use crate::serve::ingress::http::responses::Makers;
use crate::serve::ingress::traced::Traced;
use crate::serve::telemetry::labels::Failure;
use crate::serve::ticket::Ticket;
use axum::body::{Bytes, HttpBody};
use axum::http::header;
use axum::http::response::Parts;
use hyper::body::{Frame, Incoming, SizeHint};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// A body that is passed on. Dropping it before its end abandons the request, at the instance and in the router.
pub(super) struct Relay {
    core: Arc<Core>,
    instance: InstanceId,
    /// `None` once it ended.
    body: Option<Incoming>,
    observer: Observer,
    ticket: Option<Ticket>,
    /// What was predicted to be cached, where that was looked up.
    predicted: Option<Decision>,
    is_ok: bool,
    is_stream: bool,
    makers: Option<Arc<Makers>>,
    idle: Option<Idle>,
    span: Option<Traced>,
}

/// How long an answer may be silent, and how much of that is left.
pub(super) struct Idle {
    limit: Duration,
    left: Pin<Box<Sleep>>,
}

impl Idle {
    pub fn new(limit: Duration) -> Self {
        Idle { limit, left: Box::pin(tokio::time::sleep(limit)) }
    }

    /// Ready once it was silent for too long.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.left.as_mut().poll(context)
    }

    pub fn heard(&mut self) {
        self.left.as_mut().reset(Instant::now() + self.limit);
    }
}

/// Why an answer did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum RelayError {
    /// The instance broke it off.
    #[error("the instance broke off its answer")]
    Body(#[source] hyper::Error),
    /// The instance was silent for longer than it may be.
    #[error("the instance was silent for too long")]
    Silent,
}

/// How a stream ends whose engine died, in the words of vLLM's own server. The blank line ends what was cut off.
const BROKEN_OFF: &[u8] = b"\n\ndata: {\"error\": {\"message\": \"the instance broke off its answer\", \"type\": \
    \"InternalServerError\", \"param\": null, \"code\": 500}}\n\ndata: [DONE]\n\n";

impl Relay {
    pub fn new(core: Arc<Core>, placed: Placed, head: &Parts, body: Incoming) -> Self {
        let Placed { instance, decision, ticket } = placed;
        let kind = head.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let mut relay = Relay {
            core,
            instance,
            body: Some(body),
            observer: Observer::default(),
            ticket,
            predicted: decision,
            is_ok: head.status.is_success(),
            is_stream: kind.starts_with("text/event-stream"),
            makers: None,
            idle: None,
            span: None,
        };
        relay.end_if_over();
        relay
    }

    /// Lets it be silent no longer than this.
    pub fn with_idle(mut self, limit: Option<Duration>) -> Self {
        self.idle = limit.map(Idle::new);
        self
    }

    /// Tells who made a response that it begins with.
    pub fn with_makers(mut self, makers: &Arc<Makers>) -> Self {
        self.makers = Some(Arc::clone(makers));
        self
    }

    /// Tells a span what the answer told.
    pub fn with_span(mut self, span: Option<Traced>) -> Self {
        self.span = span.filter(|Traced(span)| span.is_sampled());
        self
    }

    fn saw(&mut self, chunk: &[u8]) {
        if !self.is_ok {
            return;
        }
        self.observer.saw(chunk);
        if let (Some(makers), Some(id)) = (&self.makers, self.observer.response_id()) {
            makers.made(id, self.instance);
            self.makers = None;
        }
        if let Some(ticket) = &mut self.ticket
            // Comments that keep a stream alive are no tokens.
            && (!self.is_stream || self.observer.has_events())
        {
            ticket.first_token();
        }
    }

    /// A server need not ask again once a body says that it is over.
    fn end_if_over(&mut self) {
        if self.body.as_ref().is_some_and(HttpBody::is_end_stream) {
            self.end();
        }
    }

    fn end(&mut self) {
        self.body = None;
        self.settle();
    }

    /// It broke off, or was silent for too long.
    fn broke_off(&mut self, failure: Failure) -> Option<Frame<Bytes>> {
        self.body = None;
        // It is over at the instance; what became of it is no success.
        self.ticket = None;
        self.core.metrics().instance(self.instance.index()).failures.of(failure).increment(1);
        self.core.failed_at(self.instance);
        let owes_words = self.is_stream && self.is_ok && !self.observer.is_done();
        owes_words.then(|| Frame::data(Bytes::from_static(BROKEN_OFF)))
    }

    fn settle(&mut self) {
        let ticket = self.ticket.take();
        if let Some(Traced(span)) = self.span.take() {
            span.tell("warmpath.output_tokens", i64::from(self.observer.output_tokens()));
            if let Some(cached_tokens) = self.observer.cached_tokens() {
                span.tell("warmpath.cached_tokens", i64::from(cached_tokens));
            }
        }
        if let Some(cached_tokens) = self.observer.cached_tokens() {
            let metrics = self.core.metrics().instance(self.instance.index());
            metrics.reported_cached_tokens.increment(cached_tokens.into());
            if let (Some(predicted), Some(ticket)) = (&self.predicted, &ticket) {
                metrics.delivered(predicted, cached_tokens);
                ticket.delivered(cached_tokens);
            }
        }
        if let Some(ticket) = ticket
            && self.is_ok
        {
            ticket.finish(self.observer.output_tokens());
        }
    }
}

impl HttpBody for Relay {
    type Data = Bytes;
    type Error = RelayError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RelayError>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let Poll::Ready(polled) = Pin::new(body).poll_frame(context) else {
            let silent = self.idle.as_mut().map_or(Poll::Pending, |idle| idle.poll(context));
            return silent.map(|()| Some(self.broke_off(Failure::Late).ok_or(RelayError::Silent)));
        };
        if let Some(idle) = &mut self.idle {
            idle.heard();
        }
        Poll::Ready(match polled {
            Some(Ok(frame)) => {
                if let Some(chunk) = frame.data_ref() {
                    self.saw(chunk);
                }
                self.end_if_over();
                Some(Ok(frame))
            }
            Some(Err(error)) => Some(self.broke_off(Failure::Body).ok_or(RelayError::Body(error))),
            None => {
                self.end();
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            // The words for a stream that broke off may have to be added.
            Some(_) if self.is_stream => SizeHint::default(),
            Some(body) => body.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Some clients hang up as soon as they have read that the stream is over.
        if self.observer.is_done() && self.ticket.is_some() {
            self.settle();
        }
    }
}
