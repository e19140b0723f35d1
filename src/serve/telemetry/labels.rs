//! Label values. Every one is a variant here, so that no client can invent a time series.

use crate::routing::index::IndexError;
use crate::routing::{Knowledge, LearnError, RouteError};

/// A label whose values are known ahead.
pub(crate) trait Label: Copy + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// All its values, in the order of their positions.
    const ALL: &'static [Self];
    /// How one is written.
    fn name(self) -> &'static str;
    /// Its position in `ALL`.
    fn position(self) -> usize;
}

/// Declares a label: its name, and each value with how it is written.
macro_rules! label {
    ($(#[$doc:meta])* $label:ident $name:literal { $($(#[$value_doc:meta])* $value:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum $label { $($(#[$value_doc])* $value,)+ }

        impl Label for $label {
            const NAME: &'static str = $name;
            const ALL: &'static [Self] = &[$($label::$value,)+];
            fn name(self) -> &'static str {
                match self { $($label::$value => $text,)+ }
            }
            fn position(self) -> usize {
                self as usize
            }
        }
    };
}

label! {
    /// How a call of `Route` ended.
    Outcome "outcome" {
        Routed = "routed",
        UnknownModel = "unknown_model",
        NoneReady = "none_ready",
        EmptyPrompt = "empty_prompt",
        PromptTooLong = "prompt_too_long",
        TooManyInFlight = "too_many_in_flight",
    }
}

label! {
    /// Whose overlap.
    Of "of" {
        Chosen = "chosen",
        Best = "best",
    }
}

label! {
    /// Why a fact could not be taken in.
    LearnProblem "kind" {
        AlreadyJoined = "already_joined",
        OutOfRange = "out_of_range",
        UnknownInstance = "unknown_instance",
        UnknownRequest = "unknown_request",
        UnknownParent = "unknown_parent",
        UnknownBlocks = "unknown_blocks",
        Mismatch = "mismatch",
        Full = "full",
    }
}

label! {
    /// What a cache event says.
    EventKind "kind" {
        Stored = "stored",
        Removed = "removed",
        Cleared = "cleared",
    }
}

label! {
    /// Why a cache event was left out.
    SkipReason "reason" {
        /// A tier other than GPU memory.
        Medium = "medium",
        /// A KV cache group other than the first one.
        Group = "group",
        /// Attention that is neither full nor MLA.
        Attention = "attention",
        /// Content that is more than tokens: images, prompt embeddings.
        Content = "content",
        /// A block size that is not the router's.
        BlockSize = "block_size",
        /// A type that is not known here.
        Unknown = "unknown",
    }
}

label! {
    /// How far the index is to be believed.
    State "state" {
        Exact = "exact",
        Degraded = "degraded",
        Approximate = "approximate",
        Blind = "blind",
    }
}

label! {
    /// What the answer to a forwarded request began with.
    Answer "answer" {
        /// An instance's answer, below 400; of gRPC, anything but an error.
        Forwarded = "forwarded",
        /// An instance's answer, 400 or above; of gRPC, an error.
        Refused = "refused",
        /// Ours: no instance could be reached, or it broke off before it answered.
        Unreachable = "unreachable",
        /// Ours: no instance takes requests now.
        NoneReady = "none_ready",
        /// Ours: no instance serves the model.
        UnknownModel = "unknown_model",
        /// Ours: the body is too long, or did not come.
        BadBody = "bad_body",
        /// Ours: the list of models.
        Models = "models",
        /// Ours: the health of the fleet.
        Health = "health",
        /// Ours: a method that is not offered for a whole fleet, or no such method.
        Unimplemented = "unimplemented",
    }
}

label! {
    /// Why a prompt could not be looked up in the index.
    ByLoad "reason" {
        /// It is a text, and there is no tokenizer for it.
        Text = "text",
        /// It is a text, and was not tokenized in time.
        Late = "late",
        /// It is several prompts.
        Batch = "batch",
        /// It holds more than tokens, or is cut by the engine.
        Content = "content",
        /// The path, or the body, holds no prompt that is known here.
        NoPrompt = "no_prompt",
    }
}

label! {
    /// How a replay of cache events ended.
    ReplayOutcome "outcome" {
        /// All that the cache holds is known.
        Complete = "complete",
        /// The publisher did not have all of it any more, or not all could be told.
        Partial = "partial",
        /// It could not be had.
        Failed = "failed",
    }
}

label! {
    /// How a forwarded request failed.
    Failure "kind" {
        /// No connection.
        Connect = "connect",
        /// The connection broke before there was an answer.
        Send = "send",
        /// It answered 503.
        Unavailable = "unavailable",
        /// It answered another 5xx.
        Status = "status",
        /// It broke off inside its answer.
        Body = "body",
    }
}

impl From<&RouteError> for Outcome {
    fn from(error: &RouteError) -> Self {
        match error {
            RouteError::UnknownModel { .. } => Outcome::UnknownModel,
            RouteError::NoneReady { .. } => Outcome::NoneReady,
            RouteError::EmptyPrompt => Outcome::EmptyPrompt,
            RouteError::PromptTooLong => Outcome::PromptTooLong,
            RouteError::TooManyInFlight { .. } => Outcome::TooManyInFlight,
        }
    }
}

impl From<&LearnError> for LearnProblem {
    fn from(error: &LearnError) -> Self {
        match error {
            LearnError::AlreadyJoined { .. } => LearnProblem::AlreadyJoined,
            LearnError::OutOfRange { .. } => LearnProblem::OutOfRange,
            LearnError::UnknownInstance { .. } => LearnProblem::UnknownInstance,
            LearnError::UnknownRequest { .. } => LearnProblem::UnknownRequest,
            LearnError::Index(IndexError::UnknownInstance { .. }) => LearnProblem::UnknownInstance,
            LearnError::Index(IndexError::UnknownParent { .. }) => LearnProblem::UnknownParent,
            LearnError::Index(IndexError::UnknownBlocks { .. }) => LearnProblem::UnknownBlocks,
            LearnError::Index(IndexError::Mismatch { .. }) => LearnProblem::Mismatch,
            LearnError::Index(IndexError::Full { .. }) => LearnProblem::Full,
        }
    }
}

impl From<Knowledge> for State {
    fn from(knowledge: Knowledge) -> Self {
        match knowledge {
            Knowledge::Exact => State::Exact,
            Knowledge::Degraded => State::Degraded,
            Knowledge::Approximate => State::Approximate,
            Knowledge::Blind => State::Blind,
        }
    }
}
