//! A gRPC answer on its way back: each chunk as it comes, trailers too, and what it tells as facts.

use super::grpc::{self, Observer};
use super::relay::Idle;
use super::{Forward, Placed};
use crate::routing::{Decision, InstanceId};
use crate::serve::core::Core;
use crate::serve::ingress::guard::Entered;
use crate::serve::telemetry::labels::Failure;
use crate::serve::ticket::Ticket;
use axum::body::{Bytes, HttpBody};
use axum::http::HeaderMap;
use axum::http::response::Parts;
use hyper::body::{Frame, Incoming};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tonic::{Code, Status};

/// A body that is passed on. Dropping it before its end abandons the call, at the instance and in the router.
pub(super) struct GrpcRelay {
    core: Arc<Core>,
    instance: InstanceId,
    /// `None` once it ended.
    body: Option<Incoming>,
    observer: Observer,
    ticket: Option<Ticket>,
    /// What was predicted to be cached, where that was looked up.
    predicted: Option<Decision>,
    deadline: Option<Instant>,
    idle: Option<Idle>,
    entered: Option<Entered>,
}

impl GrpcRelay {
    pub fn new(core: Arc<Core>, placed: Placed, forward: &Forward<'_>, head: &Parts, body: Incoming) -> Self {
        let Placed { instance, decision, ticket } = placed;
        let mut relay = GrpcRelay {
            core,
            instance,
            body: Some(body),
            observer: Observer::new(forward.protocol),
            ticket,
            predicted: decision,
            deadline: forward.deadline,
            idle: None,
            entered: None,
        };
        // A head without a body tells its status by itself; what it says of the instance was seen to when it came.
        if grpc::code(&head.headers).is_some_and(|code| code != Code::Ok) {
            relay.ticket = None;
        }
        relay
    }

    /// Lets it be silent no longer than this.
    pub fn with_idle(mut self, limit: Option<Duration>) -> Self {
        self.idle = limit.map(Idle::new);
        self
    }

    /// Counts what is generated against the client's key.
    pub fn with_entered(mut self, entered: Entered) -> Self {
        self.entered = Some(entered);
        self
    }

    fn saw(&mut self, chunk: &[u8]) {
        self.observer.saw(chunk);
        if let Some(ticket) = &mut self.ticket
            && self.observer.has_tokens()
        {
            ticket.first_token();
        }
    }

    fn ended(&mut self, trailers: &HeaderMap) {
        let ticket = self.ticket.take();
        if let Some(cached_tokens) = self.observer.cached_tokens() {
            let metrics = self.core.metrics().instance(self.instance.index());
            metrics.reported_cached_tokens.increment(cached_tokens.into());
            if let (Some(predicted), Some(ticket)) = (&self.predicted, &ticket) {
                metrics.delivered(predicted, cached_tokens);
                ticket.delivered(cached_tokens);
            }
        }
        match grpc::code(trailers) {
            Some(Code::Ok) => {
                if let Some(ticket) = ticket {
                    ticket.finish(self.observer.output_tokens());
                }
            }
            Some(code) if grpc::is_fault(code) => self.failed(Failure::Status),
            Some(_) | None => {}
        }
    }

    fn failed(&mut self, failure: Failure) {
        self.core.metrics().instance(self.instance.index()).failures.of(failure).increment(1);
        self.core.failed_at(self.instance);
    }

    /// The instance hung up within its answer, or was silent for too long; the client is told in a way that it expects.
    fn broke_off(&mut self, failure: Failure) -> Frame<Bytes> {
        self.body = None;
        self.ticket = None;
        let status = if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            // Some servers hang up then, and are right.
            Status::deadline_exceeded("the deadline passed within the answer")
        } else {
            self.failed(failure);
            Status::unavailable("the instance broke off its answer")
        };
        let mut trailers = HeaderMap::new();
        status.add_header(&mut trailers).expect("the message is plain ASCII");
        Frame::trailers(trailers)
    }
}

impl HttpBody for GrpcRelay {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let Poll::Ready(polled) = Pin::new(body).poll_frame(context) else {
            let silent = self.idle.as_mut().map_or(Poll::Pending, |idle| idle.poll(context));
            return silent.map(|()| Some(Ok(self.broke_off(Failure::Late))));
        };
        if let Some(idle) = &mut self.idle {
            idle.heard();
        }
        Poll::Ready(match polled {
            Some(Ok(frame)) => {
                if let Some(chunk) = frame.data_ref() {
                    self.saw(chunk);
                } else if let Some(trailers) = frame.trailers_ref() {
                    self.ended(trailers);
                    self.body = None;
                }
                Some(Ok(frame))
            }
            Some(Err(_)) => Some(Ok(self.broke_off(Failure::Body))),
            None => {
                self.body = None;
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }
}

impl Drop for GrpcRelay {
    fn drop(&mut self) {
        // What was generated counts, read or not.
        if let Some(entered) = &self.entered {
            entered.spend(self.observer.output_tokens());
        }
    }
}
