//! An answer's body, which somebody must read.
//!
//! The connection asks for the next piece only when its client has room for it. Where it does not ask for long, what stands behind
//! the body is let go of: the instance's connection, the request in flight. The connection itself, on which others may be
//! answered, is left alone.

use super::progress::UnderWay;
use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::time::Instant;

/// A body on its way to a client. It counts as under way until it is dropped.
pub(super) struct Answered {
    answer: Arc<Answer>,
    _under_way: UnderWay,
}

/// What stands behind it.
pub(super) struct Answer(Mutex<Behind>);

struct Behind {
    /// `None` once it was let go of.
    body: Option<Body>,
    /// Since when the client has had a piece and did not ask for the next.
    given: Option<Instant>,
}

/// It was let go of.
#[derive(Debug, thiserror::Error)]
#[error("the client did not read its answer")]
struct Unread;

impl Answered {
    pub fn new(body: Body, under_way: UnderWay) -> Self {
        let answer = Arc::new(Answer(Mutex::new(Behind { body: Some(body), given: None })));
        under_way.tell(&answer);
        Answered { answer, _under_way: under_way }
    }
}

impl Answer {
    /// Lets go of it if nobody asked for the next piece since before `moment`; whether it did.
    pub fn let_go(&self, moment: Instant) -> bool {
        let mut behind = self.0.lock();
        let is_unread = behind.given.is_some_and(|given| given <= moment);
        let let_go = if is_unread { behind.body.take() } else { None };
        // What it holds may end much: not under the lock.
        drop(behind);
        let_go.is_some()
    }
}

impl HttpBody for Answered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut behind = self.answer.0.lock();
        behind.given = None;
        let Some(body) = &mut behind.body else {
            return Poll::Ready(Some(Err(axum::Error::new(Unread))));
        };
        let polled = Pin::new(&mut *body).poll_frame(context);
        if let Poll::Ready(Some(Ok(_))) = &polled
            && !body.is_end_stream()
        {
            behind.given = Some(Instant::now());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.answer.0.lock().body.as_ref().is_some_and(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.answer.0.lock().body.as_ref().map_or_else(SizeHint::default, HttpBody::size_hint)
    }
}
