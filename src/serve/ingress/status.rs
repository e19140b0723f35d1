//! The one table from what the router says to what a caller is told.

use crate::routing::{LearnError, RouteError};
use crate::serve::upstream::ForwardError;
use tonic::{Code, Status};

/// The status of a prompt that could not be placed.
pub(super) fn of_route(error: &RouteError) -> Status {
    let code = match error {
        RouteError::UnknownModel { .. } => Code::NotFound,
        RouteError::NoneReady { .. } => Code::Unavailable,
        RouteError::EmptyPrompt | RouteError::PromptTooLong => Code::InvalidArgument,
        RouteError::TooManyInFlight { .. } => Code::ResourceExhausted,
    };
    Status::new(code, error.to_string())
}

/// The status of a call that no instance answered.
pub(super) fn of_forward(error: &ForwardError) -> Status {
    match error {
        ForwardError::Route(error) => of_route(error),
        ForwardError::Unreachable => Status::unavailable(error.to_string()),
        ForwardError::Late => Status::deadline_exceeded(error.to_string()),
    }
}

/// The status of a report about a request that could not be taken in.
pub(super) fn of_learn(error: &LearnError) -> Status {
    match error {
        LearnError::UnknownRequest { .. } => Status::new(Code::NotFound, error.to_string()),
        // No report of a caller leads here, so what went wrong is ours and stays here.
        LearnError::AlreadyJoined { .. }
        | LearnError::OutOfRange { .. }
        | LearnError::UnknownInstance { .. }
        | LearnError::Index(_) => {
            tracing::error!(%error, "a caller's report met an error that it cannot cause");
            Status::new(Code::Internal, "internal error")
        }
    }
}
