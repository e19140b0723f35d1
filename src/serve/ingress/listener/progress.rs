//! What a connection's other end has done so far, and since when it should have done something.

use super::answer::{Answer, Answered};
use crate::config::Limits;
use crate::serve::tls::Stream;
use axum::body::Body;
use parking_lot::Mutex;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// How HTTP/2 begins (RFC 9113, 3.4). No request of HTTP/1 does.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Of one connection.
pub(super) struct Progress(Mutex<State>);

struct State {
    /// `None` before anything came.
    is_http2: Option<bool>,
    is_first: bool,
    /// How much of the preface came.
    preface: usize,
    open: usize,
    /// Since when no request is open.
    idle: Instant,
    /// Since when, with no request open, something came.
    head: Option<Instant>,
    /// Since when nothing can be written.
    blocked: Option<Instant>,
    answers: Vec<Weak<Answer>>,
}

/// How it stands.
pub(super) enum Look {
    /// So many of its answers were let go of; the connection is all right.
    Fine {
        unread: usize,
    },
    Idle,
    /// A head, or the first request, took too long.
    Late,
    /// What is written is not taken.
    Unread,
}

/// A request, until its answer is over.
pub(super) struct UnderWay(Arc<Progress>);

impl Progress {
    pub fn new() -> Self {
        Progress(Mutex::new(State {
            is_http2: None,
            is_first: true,
            preface: 0,
            open: 0,
            idle: Instant::now(),
            head: None,
            blocked: None,
            answers: Vec::new(),
        }))
    }

    /// A request's head came.
    pub fn begins(self: &Arc<Self>) -> UnderWay {
        let mut state = self.0.lock();
        (state.is_first, state.head) = (false, None);
        state.open += 1;
        UnderWay(Arc::clone(self))
    }

    /// Looks whether anything takes longer than it may.
    pub fn look(&self, limits: &Limits) -> Look {
        let now = Instant::now();
        let over = |since: Instant, limit: Duration| now.duration_since(since) >= limit;
        let mut state = self.0.lock();
        if state.blocked.is_some_and(|since| over(since, limits.write)) {
            return Look::Unread;
        }
        if state.open == 0 {
            // HTTP/2 has other things to say than requests, and clients connect before they have any.
            let is_http2 = state.is_http2 == Some(true) && state.preface >= PREFACE.len();
            let since = if state.is_first { Some(state.idle) } else { state.head };
            if !is_http2 && since.is_some_and(|since| over(since, limits.header)) {
                return Look::Late;
            }
            if over(state.idle, limits.idle) {
                return Look::Idle;
            }
        }
        state.answers.retain(|answer| answer.strong_count() > 0);
        let answers: Vec<Arc<Answer>> = state.answers.iter().filter_map(Weak::upgrade).collect();
        drop(state);
        let moment = now.checked_sub(limits.write);
        let unread = answers.iter().filter(|answer| moment.is_some_and(|moment| answer.let_go(moment))).count();
        Look::Fine { unread }
    }

    fn came(&self, bytes: &[u8]) {
        let mut state = self.0.lock();
        if state.is_http2.is_none() {
            state.is_http2 = Some(bytes.iter().zip(PREFACE).all(|(came, preface)| came == preface));
        }
        state.preface = (state.preface + bytes.len()).min(PREFACE.len());
        if state.open == 0 && state.head.is_none() {
            state.head = Some(Instant::now());
        }
    }

    fn wrote<T>(&self, polled: Poll<T>) -> Poll<T> {
        let mut state = self.0.lock();
        match polled {
            Poll::Ready(_) => state.blocked = None,
            Poll::Pending => _ = state.blocked.get_or_insert_with(Instant::now),
        }
        polled
    }
}

impl UnderWay {
    /// Its answer begins.
    pub fn answered(self, body: Body) -> Answered {
        Answered::new(body, self)
    }

    /// What is to be looked at.
    pub fn tell(&self, answer: &Arc<Answer>) {
        let mut state = self.0.0.lock();
        // Those that are over are many only where nobody looked for long.
        if state.answers.len() > 2 * state.open {
            state.answers.retain(|answer| answer.strong_count() > 0);
        }
        state.answers.push(Arc::downgrade(answer));
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        state.open -= 1;
        if state.open == 0 {
            (state.idle, state.head) = (Instant::now(), None);
        }
    }
}

/// A connection that tells its progress.
pub(super) struct Watched {
    stream: Stream,
    progress: Arc<Progress>,
}

impl Watched {
    pub fn new(stream: Stream, progress: Arc<Progress>) -> Self {
        Watched { stream, progress }
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, into);
        let came = &into.filled()[before..];
        if !came.is_empty() {
            self.progress.came(came);
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.progress.wrote(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.progress.wrote(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        // What TLS keeps may still have to be written.
        match polled {
            Poll::Pending => self.progress.wrote(polled),
            Poll::Ready(_) => polled,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(context);
        self.progress.wrote(polled)
    }
}
