//! What a client is told when no instance answers it, in the shape that OpenAI's clients expect.

use crate::routing::RouteError;
use crate::serve::admission::BadPriority;
use crate::serve::telemetry::labels::{Answer, Refusal};
use crate::serve::upstream::ForwardError;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// Why a request got no answer from an instance.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The router is stopping.
    #[error("the router is stopping")]
    Draining,
    /// The body is longer than is taken.
    #[error("the request body is longer than {bytes_max} bytes")]
    BodyTooLong { bytes_max: usize },
    /// The body took too long to come.
    #[error("the request body did not come in time")]
    BodyLate,
    /// The body did not come to its end.
    #[error("the request body did not come whole")]
    BodyBroken,
    /// Its priority cannot be read.
    #[error(transparent)]
    Priority(#[from] BadPriority),
    /// It asks for more than one request may.
    #[error("the request has {tokens} prompt tokens, and no more than {tokens_max} are taken")]
    PromptTooLong { tokens: u32, tokens_max: u32 },
    /// It could not be forwarded.
    #[error(transparent)]
    Forward(#[from] ForwardError),
}

type Kind = (StatusCode, &'static str, Option<&'static str>);

const SATURATED: Kind = (StatusCode::TOO_MANY_REQUESTS, "TooManyRequestsError", None);

#[derive(Serialize)]
struct ErrorBody {
    error: ErrorInfo,
}

#[derive(Serialize)]
struct ErrorInfo {
    message: String,
    r#type: &'static str,
    param: Option<&'static str>,
    code: u16,
}

impl Error {
    /// How it is counted.
    pub fn answer(&self) -> Answer {
        match self {
            Error::BodyTooLong { .. }
            | Error::BodyLate
            | Error::BodyBroken
            | Error::PromptTooLong { .. }
            | Error::Priority(_) => Answer::BadBody,
            Error::Draining | Error::Forward(ForwardError::Stopping) => Answer::NoneReady,
            Error::Forward(ForwardError::Shed(_)) => Answer::Shed,
            Error::Forward(ForwardError::Unreachable | ForwardError::Late) => Answer::Unreachable,
            Error::Forward(ForwardError::Route(error)) => match error {
                RouteError::UnknownModel { .. } => Answer::UnknownModel,
                RouteError::NoneReady { .. } | RouteError::TooManyInFlight { .. } => Answer::NoneReady,
                RouteError::Saturated { .. } | RouteError::Held { .. } => Answer::Shed,
                RouteError::EmptyPrompt | RouteError::PromptTooLong => Answer::BadBody,
            },
        }
    }

    /// The limit that it went beyond.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Error::BodyTooLong { .. } => Some(Refusal::BodyBytes),
            Error::PromptTooLong { .. } => Some(Refusal::PromptTokens),
            // What is late was counted where that was found.
            Error::Draining | Error::BodyLate | Error::BodyBroken | Error::Priority(_) | Error::Forward(_) => None,
        }
    }

    /// Status, type and the parameter at fault.
    fn kind(&self) -> Kind {
        match self {
            Error::BodyTooLong { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "BadRequestError", None),
            Error::BodyLate => (StatusCode::REQUEST_TIMEOUT, "RequestTimeoutError", None),
            Error::BodyBroken => (StatusCode::BAD_REQUEST, "BadRequestError", None),
            Error::Priority(_) => (StatusCode::BAD_REQUEST, "BadRequestError", Some("priority")),
            Error::Forward(ForwardError::Shed(_)) => SATURATED,
            Error::PromptTooLong { .. } => (StatusCode::BAD_REQUEST, "BadRequestError", Some("prompt")),
            Error::Draining | Error::Forward(ForwardError::Stopping) => {
                (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableError", None)
            }
            Error::Forward(ForwardError::Unreachable) => (StatusCode::BAD_GATEWAY, "BadGatewayError", None),
            Error::Forward(ForwardError::Late) => (StatusCode::GATEWAY_TIMEOUT, "GatewayTimeoutError", None),
            Error::Forward(ForwardError::Route(error)) => match error {
                RouteError::UnknownModel { .. } => (StatusCode::NOT_FOUND, "NotFoundError", Some("model")),
                RouteError::NoneReady { .. } | RouteError::TooManyInFlight { .. } => {
                    (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableError", None)
                }
                RouteError::Saturated { .. } | RouteError::Held { .. } => SATURATED,
                RouteError::EmptyPrompt | RouteError::PromptTooLong => {
                    (StatusCode::BAD_REQUEST, "BadRequestError", Some("prompt"))
                }
            },
        }
    }
}

/// An error as OpenAI's clients expect it.
pub(in crate::serve::ingress) fn answer(
    status: StatusCode,
    r#type: &'static str,
    param: Option<&'static str>,
    message: String,
) -> Response {
    let body = ErrorBody { error: ErrorInfo { message, r#type, param, code: status.as_u16() } };
    (status, axum::Json(body)).into_response()
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, r#type, param) = self.kind();
        let message = match &self {
            // vLLM's own words, which clients may look for.
            Error::Forward(ForwardError::Route(RouteError::UnknownModel { model })) => {
                format!("The model `{model}` does not exist.")
            }
            error => error.to_string(),
        };
        let mut response = answer(status, r#type, param, message);
        let retry_after = match &self {
            Error::Forward(ForwardError::Shed(shed)) => Some(shed.seconds()),
            _ if status == StatusCode::SERVICE_UNAVAILABLE => Some(1),
            _ => None,
        };
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
