//! The one table from what the router says to what a caller is told.

use crate::routing::{LearnError, RouteError};
use crate::serve::admission::{Refused, Shed};
use crate::serve::upstream::ForwardError;
use tonic::{Code, Status};

/// The status of a prompt that could not be placed.
pub(super) fn of_route(error: &RouteError) -> Status {
    let code = match error {
        RouteError::UnknownModel { .. } => Code::NotFound,
        RouteError::NoneReady { .. } => Code::Unavailable,
        RouteError::EmptyPrompt | RouteError::PromptTooLong => Code::InvalidArgument,
        RouteError::TooManyInFlight { .. } | RouteError::Saturated { .. } | RouteError::Held { .. } => {
            Code::ResourceExhausted
        }
    };
    Status::new(code, error.to_string())
}

/// The status of a call that no instance answered.
pub(super) fn of_forward(error: &ForwardError) -> Status {
    match error {
        ForwardError::Route(error) => of_route(error),
        ForwardError::Shed(shed) => of_shed(shed),
        ForwardError::Stopping => Status::unavailable(error.to_string()),
        ForwardError::Unreachable => Status::unavailable(error.to_string()),
        ForwardError::Late => Status::deadline_exceeded(error.to_string()),
    }
}

/// The status of a prompt that did not come to be placed.
pub(super) fn of_refused(refused: &Refused) -> Status {
    match refused {
        Refused::Route(error) => of_route(error),
        Refused::Shed(shed) => of_shed(shed),
        Refused::Stopping => Status::unavailable("the router is stopping"),
    }
}

/// With the pushback that gRPC's own retries heed (gRFC A6).
fn of_shed(shed: &Shed) -> Status {
    let mut status = Status::resource_exhausted(shed.to_string());
    let milliseconds = u64::try_from(shed.retry_after.as_millis()).unwrap_or(u64::MAX);
    status.metadata_mut().insert("grpc-retry-pushback-ms", milliseconds.into());
    status
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
