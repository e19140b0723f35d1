//! What those are told who may not come in, in the shape that their clients expect.

use crate::serve::ingress::http::error_answer;
use crate::serve::telemetry::labels::{Listener, Refusal};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use std::time::Duration;
use tonic::{Code, Status};

/// A request that may not come in.
#[derive(Debug)]
pub(super) struct Refused {
    /// Why.
    pub why: Refusal,
    /// When it may be tried again, where that is known.
    after: Option<Duration>,
}

impl Refused {
    /// Nobody knows until when.
    pub fn now(why: Refusal) -> Self {
        Refused { why, after: None }
    }

    /// Until then.
    pub fn until(why: Refusal, after: Duration) -> Self {
        Refused { why, after: Some(after) }
    }

    /// The answer, to a gRPC call or to another one.
    pub fn answer(&self, listener: Listener, is_grpc: bool) -> Response {
        let (status, kind, code, message) = self.why.told();
        let mut response = match is_grpc {
            true => Status::new(code, message).into_http(),
            false => error_answer(status, kind, None, message.to_owned()),
        };
        if status == StatusCode::UNAUTHORIZED {
            let scheme = match listener {
                Listener::Grpc | Listener::Http => "Bearer",
                // What browsers ask their users by.
                Listener::Admin => "Basic realm=\"warmpath: the key is the password\", charset=\"UTF-8\"",
            };
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
        }
        if status == StatusCode::TOO_MANY_REQUESTS {
            // Whole seconds, rounded up, so that whoever obeys is let in.
            let seconds = self.after.map_or(1, |after| after.as_secs_f64().ceil().max(1.0) as u64);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl Refusal {
    /// Status, type, gRPC code and words.
    fn told(self) -> (StatusCode, &'static str, Code, &'static str) {
        const UNAUTHORIZED: (StatusCode, &str, Code) =
            (StatusCode::UNAUTHORIZED, "AuthenticationError", Code::Unauthenticated);
        const TOO_MANY: (StatusCode, &str, Code) =
            (StatusCode::TOO_MANY_REQUESTS, "RateLimitError", Code::ResourceExhausted);
        let ((status, kind, code), message) = match self {
            Refusal::KeyMissing => (UNAUTHORIZED, "there is no API key; send Authorization: Bearer KEY"),
            Refusal::KeyUnknown => (UNAUTHORIZED, "the API key is not known"),
            Refusal::RequestRate => (TOO_MANY, "this API key sends more requests than it may"),
            Refusal::TokenRate => (TOO_MANY, "this API key uses more tokens a minute than it may"),
            Refusal::Concurrency => (TOO_MANY, "this API key has as many requests under way as it may"),
            Refusal::Headers => {
                let kind = (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "BadRequestError", Code::ResourceExhausted);
                (kind, "the request has more or longer headers than are taken")
            }
            Refusal::BodyBytes
            | Refusal::BodyLate
            | Refusal::PromptTokens
            | Refusal::Connections
            | Refusal::Handshake
            | Refusal::HeaderLate
            | Refusal::Unread => unreachable!("{self:?} is not refused at the door"),
        };
        (status, kind, code, message)
    }
}
