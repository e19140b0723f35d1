//! A request's body, which must keep coming.

use super::Door;
use crate::serve::telemetry::labels::Refusal;
use axum::body::{Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// A body that has some time, and more the more of it has come. Only time that was waited for it counts.
pub(super) struct Paced {
    body: Incoming,
    door: Arc<Door>,
    began: Instant,
    bytes: u64,
    ends: Pin<Box<Sleep>>,
    is_over: bool,
}

/// Why one ends before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum PacedError {
    /// It broke off.
    #[error(transparent)]
    Body(#[from] hyper::Error),
    /// It took too long.
    #[error("the request body did not come in time")]
    Late,
}

/// Whether a body took too long.
pub(in crate::serve::ingress) fn is_late(error: &(dyn Error + 'static)) -> bool {
    let mut chain = Some(error);
    while let Some(error) = chain {
        if matches!(error.downcast_ref(), Some(PacedError::Late)) {
            return true;
        }
        chain = error.source();
    }
    false
}

impl Paced {
    pub fn new(body: Incoming, door: Arc<Door>) -> Self {
        let began = Instant::now();
        let ends = Box::pin(tokio::time::sleep_until(began + door.guard.limits().body));
        Paced { body, door, began, bytes: 0, ends, is_over: false }
    }

    fn deadline(&self) -> Instant {
        let limits = self.door.guard.limits();
        let earned = Duration::from_millis(self.bytes.saturating_mul(1000) / limits.body_bytes_per_second_min);
        self.began + limits.body + earned
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = PacedError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, PacedError>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        if let Poll::Ready(polled) = Pin::new(&mut self.body).poll_frame(context) {
            if let Some(Ok(frame)) = &polled {
                self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            return Poll::Ready(polled.map(|frame| frame.map_err(PacedError::Body)));
        }
        while self.ends.as_mut().poll(context).is_ready() {
            let deadline = self.deadline();
            if deadline <= Instant::now() {
                self.is_over = true;
                self.door.refused(Refusal::BodyLate);
                return Poll::Ready(Some(Err(PacedError::Late)));
            }
            self.ends.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
