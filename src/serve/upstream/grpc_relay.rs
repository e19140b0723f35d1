//! A gRPC answer on its way back: each chunk as it comes, trailers too, and what it tells as facts.

use super::answer::{Answer, Break, Next, Usage};
use super::grpc::{self, Observer};
use crate::config::Protocol;
use crate::serve::telemetry::labels::Failure;
use axum::body::{Bytes, HttpBody};
use axum::http::HeaderMap;
use axum::http::response::Parts;
use hyper::body::Frame;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;
use tonic::{Code, Status};

/// A body that is passed on. Dropping it before its end abandons the call, at the instance and in the router.
pub(super) struct GrpcRelay {
    answer: Answer,
    observer: Observer,
    deadline: Option<Instant>,
}

impl GrpcRelay {
    pub fn new(mut answer: Answer, protocol: Protocol, deadline: Option<Instant>, head: &Parts) -> Self {
        // A head without a body tells its status by itself; what it says of the instance was seen to when it came.
        if grpc::code(&head.headers).is_some_and(|code| code != Code::Ok) {
            answer.unbook();
        }
        GrpcRelay { answer, observer: Observer::new(protocol), deadline }
    }

    fn saw(&mut self, chunk: &[u8]) {
        self.observer.saw(chunk);
        if self.observer.has_tokens() {
            self.answer.token();
        }
    }

    fn ended(&mut self, trailers: &HeaderMap) {
        self.answer.close();
        let (output_tokens, cached_tokens) = (self.observer.output_tokens(), self.observer.cached_tokens());
        let code = grpc::code(trailers);
        self.answer.settle(Usage { output_tokens, cached_tokens }, code == Some(Code::Ok));
        if code.is_some_and(grpc::is_fault) {
            self.answer.failed(Failure::Status);
        }
    }

    /// The instance hung up within its answer, or was silent for too long; the client is told in a way that it expects.
    fn broke_off(&mut self, why: &Break) -> Frame<Bytes> {
        let status = if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            // Some servers hang up then, and are right.
            self.answer.unbook();
            Status::deadline_exceeded("the deadline passed within the answer")
        } else {
            self.answer.broke(why);
            Status::unavailable(why.to_string())
        };
        let mut trailers = HeaderMap::new();
        status.add_header(&mut trailers).expect("the message is plain ASCII");
        Frame::trailers(trailers)
    }
}

impl HttpBody for GrpcRelay {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.answer.poll(context).map(|next| match next {
            Next::Frame(frame) => {
                if let Some(chunk) = frame.data_ref() {
                    self.saw(chunk);
                } else if let Some(trailers) = frame.trailers_ref() {
                    self.ended(trailers);
                }
                Some(Ok(frame))
            }
            Next::Broken(why) => Some(Ok(self.broke_off(&why))),
            Next::End => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.answer.body().is_none_or(HttpBody::is_end_stream)
    }
}

impl Drop for GrpcRelay {
    fn drop(&mut self) {
        // What was generated counts, read or not.
        self.answer.spend(self.observer.output_tokens());
    }
}
