//! Why the router says no. One enum a door.

use super::decision::RequestId;
use super::fact::InstanceId;
use super::index::IndexError;
use std::time::Duration;

/// Why a request could not be placed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// No instance serves the model.
    #[error("no instance serves model {model:?}")]
    UnknownModel {
        /// What was asked for.
        model: String,
    },
    /// Instances serve the model, but none takes requests now.
    #[error("none of the {instances} instances that serve model {model:?} takes requests now")]
    NoneReady {
        /// What was asked for.
        model: String,
        /// How many serve it.
        instances: usize,
    },
    /// Instances take requests, but each has as much as it should be given.
    #[error("all instances that may take the request are saturated")]
    Saturated {
        /// Its own prefill where most of it is cached, by estimate; zero where nothing is held, and who comes first goes first.
        prefill: Duration,
    },
    /// Whoever would get it has enough to do for now. It is to be tried again, and is placed at the latest when it has waited
    /// for [`HOLD_MAX`](super::HOLD_MAX).
    #[error("the request is held for a moment")]
    Held {
        /// Its own prefill where most of it is cached, by estimate.
        prefill: Duration,
        /// By estimate there is room for it after so long.
        room_in: Duration,
    },
    /// The prompt has no tokens.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// The prompt is longer than can be counted.
    #[error("the prompt is longer than {} tokens", u32::MAX)]
    PromptTooLong,
    /// More requests are in flight than the router keeps account of.
    #[error("{limit} requests are in flight, which is the limit")]
    TooManyInFlight {
        /// The limit.
        limit: usize,
    },
}

/// Why a fact could not be taken in, wholly or in part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LearnError {
    /// The id is taken by another instance.
    #[error("{instance} is in the fleet already")]
    AlreadyJoined {
        /// Which.
        instance: InstanceId,
    },
    /// The id is beyond what a router can know.
    #[error("{instance} is out of range: a router knows {} instances at most", InstanceId::LIMIT)]
    OutOfRange {
        /// Which.
        instance: InstanceId,
    },
    /// No such instance.
    #[error("{instance} is not in the fleet")]
    UnknownInstance {
        /// Which.
        instance: InstanceId,
    },
    /// The request ended already, or was never placed, or its instance left.
    #[error("request {} is not in flight", request.0)]
    UnknownRequest {
        /// Which.
        request: RequestId,
    },
    /// A fact about blocks did not fit what the index knows.
    #[error(transparent)]
    Index(#[from] IndexError),
}
