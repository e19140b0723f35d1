//! What goes with a forwarded request from its first byte to the last one of its answer: its id, its span, its line in the log.
//!
//! The id is the client's `x-request-id` where that is one, made here otherwise; the instance is told it, and the client. Nothing
//! of what a request says is logged or told to a collector: no body, no query, no header but the id.

use super::caller::Caller;
use super::guard::is_grpc;
use super::http::api::Api;
use crate::serve::core::Core;
use crate::serve::telemetry::labels::{Call, Label};
use crate::serve::telemetry::spans::RequestSpan;
use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use opentelemetry::KeyValue;
use std::fmt::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tracing::Instrument;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Who answered; see `upstream::headers`.
const INSTANCE: &str = "x-warmpath-instance";
/// A longer id is none.
const ID_BYTES_MAX: usize = 128;

/// A request's span, among its extensions.
#[derive(Clone)]
pub(in crate::serve) struct Traced(pub RequestSpan);

/// These routes, with ids, spans and lines.
pub(in crate::serve) fn layer(routes: Router, core: Arc<Core>) -> Router {
    routes.layer(from_fn_with_state(core, trace))
}

async fn trace(State(core): State<Arc<Core>>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let id = identify(request.headers_mut());
    let api = Api::of(request.method(), request.uri().path());
    let call = if is_grpc(request.headers()) { "grpc" } else { Call::from(api).name() };
    let span = core.spans().map(|spans| {
        let attributes = vec![
            KeyValue::new("http.request.method", request.method().as_str().to_owned()),
            KeyValue::new("url.path", request.uri().path().to_owned()),
            KeyValue::new("warmpath.request_id", id.to_str().unwrap_or_default().to_owned()),
        ];
        spans.begin(call, request.headers(), attributes)
    });
    if let Some(span) = &span {
        request.extensions_mut().insert(Traced(span.clone()));
    }
    let caller = request.extensions().get::<Caller>().cloned();
    let around = tracing::debug_span!("request", id = id.to_str().unwrap_or_default());
    let mut response = next.run(request).instrument(around).await;
    let status = response.status().as_u16();
    // As the guard behind this found, or else by the certificate.
    let caller = response.extensions().get::<Caller>().cloned().or(caller).unwrap_or_default();
    response.headers_mut().insert(REQUEST_ID, id.clone());
    let span = span.filter(RequestSpan::is_sampled);
    if let Some(span) = &span {
        span.answered(status);
        // Of a call that failed at once it is among the headers.
        tell_code(span, response.headers());
    }
    let is_logged = core.logs().requests;
    if span.is_none() && !is_logged {
        return response;
    }
    let instance = response.headers().get(INSTANCE).cloned();
    let line = is_logged.then_some(Line { id, call, caller, status, instance, began });
    response.map(|body| Body::new(Ending { body, span, line, is_over: false }))
}

/// The id that a request came with, or a new one, which it is given.
fn identify(headers: &mut HeaderMap) -> HeaderValue {
    let is_id =
        |id: &HeaderValue| !id.is_empty() && id.len() <= ID_BYTES_MAX && id.as_bytes().iter().all(u8::is_ascii_graphic);
    if let Some(id) = headers.get(REQUEST_ID).filter(|id| is_id(id)) {
        return id.clone();
    }
    let mut random = [0u8; 16];
    // Ids need not be secret; without chance they are told apart by nothing, but requests go on.
    let _ = getrandom::fill(&mut random);
    let mut id = String::with_capacity(32);
    random.iter().for_each(|byte| write!(id, "{byte:02x}").expect("a string takes all"));
    let id = HeaderValue::try_from(id).expect("hexadecimal digits are a header's value");
    headers.insert(REQUEST_ID, id.clone());
    id
}

fn tell_code(span: &RequestSpan, headers: &HeaderMap) {
    if let Some(code) = headers.get("grpc-status").and_then(|code| code.to_str().ok()) {
        span.tell("rpc.grpc.status_code", code.to_owned());
    }
}

/// What is logged of a request once it is over.
struct Line {
    id: HeaderValue,
    call: &'static str,
    caller: Caller,
    status: u16,
    instance: Option<HeaderValue>,
    began: Instant,
}

/// An answer's body; when it is over, or nobody wants it any more, so is the request.
struct Ending {
    body: Body,
    span: Option<RequestSpan>,
    line: Option<Line>,
    is_over: bool,
}

impl HttpBody for Ending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(span), Some(trailers)) = (&self.span, frame.trailers_ref()) {
                    tell_code(span, trailers);
                }
                self.is_over = self.body.is_end_stream();
            }
            Poll::Ready(None) => self.is_over = true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let whole = self.is_over || self.body.is_end_stream();
        if let Some(span) = self.span.take()
            && !whole
        {
            span.tell("warmpath.broken_off", true);
        }
        if let Some(Line { id, call, caller, status, instance, began }) = self.line.take() {
            let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
            tracing::info!(
                request_id = text(&id),
                call,
                caller = &*caller.name,
                status,
                instance = instance.as_ref().map(text).unwrap_or_default(),
                seconds = began.elapsed().as_secs_f64(),
                whole,
                "request"
            );
        }
    }
}
