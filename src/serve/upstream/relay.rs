//! An answer's body on its way back over HTTP: each chunk as it comes, and what it tells as facts.

use super::answer::{Answer, Break, Next, Usage};
use super::observer::Observer;
use crate::serve::ingress::http::api::Api;
use crate::serve::ingress::http::responses::Makers;
use axum::body::{Bytes, HttpBody};
use axum::http::header;
use axum::http::response::Parts;
use hyper::body::{Frame, SizeHint};
use serde_json::json;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A body that is passed on. Dropping it before its end abandons the request, at the instance and in the router.
pub(super) struct Relay {
    answer: Answer,
    observer: Observer,
    api: Api,
    is_ok: bool,
    is_stream: bool,
    makers: Option<Arc<Makers>>,
}

impl Relay {
    pub fn new(answer: Answer, api: Api, head: &Parts, makers: &Arc<Makers>) -> Self {
        let kind = head.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let mut relay = Relay {
            answer,
            observer: Observer::default(),
            api,
            is_ok: head.status.is_success(),
            is_stream: kind.starts_with("text/event-stream"),
            makers: Some(Arc::clone(makers)),
        };
        relay.end_if_over();
        relay
    }

    fn saw(&mut self, chunk: &[u8]) {
        if !self.is_ok {
            return;
        }
        self.observer.saw(chunk);
        if let (Some(makers), Some(id)) = (&self.makers, self.observer.response_id()) {
            makers.made(id, self.answer.member());
            self.makers = None;
        }
        // Comments that keep a stream alive are no tokens.
        if !self.is_stream || self.observer.has_events() {
            self.answer.token();
        }
    }

    /// A server need not ask again once a body says that it is over.
    fn end_if_over(&mut self) {
        if self.answer.body().is_some_and(HttpBody::is_end_stream) {
            self.answer.close();
            self.settle();
        }
    }

    fn settle(&mut self) {
        let (output_tokens, cached_tokens) = (self.observer.output_tokens(), self.observer.cached_tokens());
        self.answer.settle(Usage { output_tokens, cached_tokens }, self.is_ok);
    }

    /// A stream that broke off ends in words.
    fn broke_off(&mut self, why: Break) -> Result<Frame<Bytes>, Break> {
        self.answer.broke(&why);
        let owes_words = self.is_stream && self.is_ok && !self.observer.is_done();
        if owes_words { Ok(Frame::data(last_words(self.api, &why))) } else { Err(why) }
    }
}

/// How a stream ends whose engine died, in the words of vLLM's own server: Anthropic's clients hear only events with a name.
/// The blank line ends what was cut off.
fn last_words(api: Api, why: &Break) -> Bytes {
    match api {
        Api::Messages => {
            let error = json!({"type": "error", "error": {"type": "internal_error", "message": why.to_string()}});
            format!("\n\nevent: error\ndata: {error}\n\n")
        }
        Api::Completions
        | Api::Chat
        | Api::Responses
        | Api::Embeddings
        | Api::Generate
        | Api::Tokenize
        | Api::Models
        | Api::Other => {
            let said = json!({"message": why.to_string(), "type": "InternalServerError", "param": null, "code": 500});
            format!("\n\ndata: {}\n\ndata: [DONE]\n\n", json!({ "error": said }))
        }
    }
    .into()
}

impl HttpBody for Relay {
    type Data = Bytes;
    type Error = Break;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Break>>> {
        if self.is_end_stream() {
            return Poll::Ready(None);
        }
        self.answer.poll(context).map(|next| match next {
            Next::Frame(frame) => {
                if let Some(chunk) = frame.data_ref() {
                    self.saw(chunk);
                }
                self.end_if_over();
                Some(Ok(frame))
            }
            Next::Broken(why) => Some(self.broke_off(why)),
            Next::End => {
                self.settle();
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.answer.body().is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.answer.body() {
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
        if self.observer.is_done() && self.answer.is_booked() {
            self.settle();
        }
        // What was generated counts, read or not.
        if self.is_ok {
            self.answer.spend(self.observer.output_tokens());
        }
    }
}
