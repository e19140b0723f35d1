//! Label values. Every one is a variant here, so that no client can invent a time series.

use crate::config::Source;
use crate::routing::admission::Priority;
use crate::routing::index::IndexError;
use crate::routing::{Knowledge, LearnError, RouteError};
use crate::serve::ingress::http::api::Api;

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
        /// All that may take it have as much as they should be given; one that waits is told so again at each try.
        Saturated = "saturated",
        /// Whoever would get it has enough to do for now; told at each try, too.
        Held = "held",
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
        /// A medium that is not known here.
        Medium = "medium",
        /// A KV cache group that does not matter to a prompt's prefix, or of which it cannot be told.
        Group = "group",
        /// A key of a block that is not known here.
        Content = "content",
        /// A block size that is not the router's.
        BlockSize = "block_size",
        /// A type that is not known here.
        Unknown = "unknown",
    }
}

label! {
    /// What became of stored blocks whose parent is not known.
    OrphanFate "fate" {
        /// Set aside.
        Kept = "kept",
        /// Put in their place, once the parent came.
        Attached = "attached",
        /// Evicted or forgotten before the parent came, or too many.
        Dropped = "dropped",
    }
}

label! {
    /// How the cached tokens that an answer tells compare with the prediction.
    Verdict "delivered" {
        Equal = "equal",
        Less = "less",
        More = "more",
    }
}

label! {
    /// How a look at an instance's load went.
    LoadRead "outcome" {
        /// It said how loaded it is.
        Read = "read",
        /// It did not answer, or not well.
        Failed = "failed",
        /// Its answer does not say.
        Unreadable = "unreadable",
    }
}

label! {
    /// Requests at an instance, by what becomes of them there.
    Reported "state" {
        Running = "running",
        Waiting = "waiting",
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
        /// Ours: no instance could be reached, or it broke off before it answered, or it took too long.
        Unreachable = "unreachable",
        /// Ours: no instance takes requests now.
        NoneReady = "none_ready",
        /// Ours: all instances are saturated, and it could not wait, or not that long.
        Shed = "shed",
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
    /// Which call of the OpenAI API.
    Call "call" {
        Completions = "completions",
        Chat = "chat",
        Responses = "responses",
        Messages = "messages",
        Embeddings = "embeddings",
        Generate = "generate",
        Tokenize = "tokenize",
        Models = "models",
        Other = "other",
    }
}

label! {
    /// The class of an HTTP status.
    StatusClass "status" {
        Success = "2xx",
        Redirect = "3xx",
        ClientError = "4xx",
        ServerError = "5xx",
    }
}

label! {
    /// How a routed request ended.
    End "end" {
        Finished = "finished",
        /// Refused, failed, cancelled, or its caller went away.
        Abandoned = "abandoned",
    }
}

label! {
    /// What a request in flight waits for.
    Stage "stage" {
        /// Its first token.
        Prefill = "prefill",
        /// Its last one.
        Decode = "decode",
    }
}

label! {
    /// Why a prompt could not be looked up in the index.
    ByLoad "reason" {
        /// It is a text, and was not tokenized in time.
        Late = "late",
        /// It is cut by the engine, or is a mixture.
        Content = "content",
        /// The path, or the body, holds no prompt that is known here.
        NoPrompt = "no_prompt",
    }
}

label! {
    /// Why a prompt was not looked up by all of its tokens.
    Guess "why" {
        /// By its bytes: there is no tokenizer for the model.
        NoTokenizer = "no_tokenizer",
        /// By its bytes: it holds more than text.
        Content = "content",
        /// By its bytes: the tokenizer, or the chat template, does not do it.
        Unsupported = "unsupported",
        /// By its longest one: it is several prompts.
        Batch = "batch",
    }
}

label! {
    /// What became of a request that was to be recorded.
    Recording "outcome" {
        Written = "written",
        /// Dropped: as much is held as may be.
        Full = "full",
        /// It took longer to end than those after it could wait.
        Late = "late",
        /// It did not end well.
        Unfinished = "unfinished",
        /// Prompt or output were empty.
        Empty = "empty",
        /// Its tokens are not known.
        Untokenized = "untokenized",
        /// Dropped: a file could not be written.
        Failed = "failed",
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
        /// It took longer than it may, to begin its answer or to go on with it.
        Late = "late",
    }
}

label! {
    /// How urgent a request is.
    Class "priority" {
        High = "high",
        Normal = "normal",
        Low = "low",
    }
}

label! {
    /// Where a connection came in.
    Listener "listener" {
        Http = "http",
        Grpc = "grpc",
        Admin = "admin",
    }
}

label! {
    /// How waiting for room ended.
    WaitEnd "end" {
        /// There was room.
        Admitted = "admitted",
        /// It waited as long as it may.
        Deadline = "deadline",
        /// Its caller held most of a full queue, and one with less came.
        Displaced = "displaced",
        /// The router is stopping.
        Stopping = "stopping",
        /// Its client went away.
        Left = "left",
        /// No instance that may take it is ready any more.
        Failed = "failed",
    }
}

label! {
    /// Why something was not taken from a client.
    Refusal "reason" {
        /// More connections than are taken.
        Connections = "connections",
        /// No TLS was agreed on, or the client's certificate does not do.
        Handshake = "handshake",
        /// A head, or the first request of a connection, took too long.
        HeaderLate = "header_late",
        /// More or longer headers than are taken.
        Headers = "headers",
        KeyMissing = "key_missing",
        KeyUnknown = "key_unknown",
        /// The key's requests a second are used up.
        RequestRate = "request_rate",
        /// The key's tokens a minute are.
        TokenRate = "token_rate",
        /// The key has as many requests under way as it may.
        Concurrency = "concurrency",
        /// A longer body than is taken.
        BodyBytes = "body_bytes",
        /// A body took too long.
        BodyLate = "body_late",
        /// More prompt tokens than are taken.
        PromptTokens = "prompt_tokens",
        /// An answer that nobody read.
        Unread = "unread",
    }
}

label! {
    /// What is read from files, and again when they change.
    Material "material" {
        HttpTls = "http_tls",
        GrpcTls = "grpc_tls",
        AdminTls = "admin_tls",
        UpstreamTls = "upstream_tls",
        Keys = "keys",
        ApiKeys = "api_keys",
    }
}

label! {
    /// What shows a certificate.
    Certificate "certificate" {
        Http = "http",
        Grpc = "grpc",
        Admin = "admin",
        /// To instances that ask for one.
        Upstream = "upstream",
    }
}

label! {
    /// How reading them again went.
    Reload "outcome" {
        Loaded = "loaded",
        /// What was in force before stays so.
        Failed = "failed",
    }
}

label! {
    /// Why a request was refused for want of room.
    ShedReason "reason" {
        /// Nothing more may wait in its class.
        Full = "full",
        /// It waited as long as it may.
        Deadline = "deadline",
        /// Its caller held most of a full queue, and one with less came.
        Displaced = "displaced",
        /// It waited when the router was told to stop.
        Stopping = "stopping",
    }
}

impl ShedReason {
    /// What an end that is a refusal counts as.
    pub fn of(end: WaitEnd) -> Option<Self> {
        match end {
            WaitEnd::Admitted | WaitEnd::Left | WaitEnd::Failed => None,
            WaitEnd::Deadline => Some(ShedReason::Deadline),
            WaitEnd::Displaced => Some(ShedReason::Displaced),
            WaitEnd::Stopping => Some(ShedReason::Stopping),
        }
    }
}

impl From<Priority> for Class {
    fn from(priority: Priority) -> Self {
        match priority {
            Priority::High => Class::High,
            Priority::Normal => Class::Normal,
            Priority::Low => Class::Low,
        }
    }
}

label! {
    /// What became of a span.
    SpanFate "outcome" {
        Sent = "sent",
        /// Too many waited.
        Dropped = "dropped",
        /// The collector did not take it.
        Failed = "failed",
    }
}

label! {
    /// How it went when the configuration was read again.
    ReloadOutcome "outcome" {
        Applied = "applied",
        /// It says what it said.
        Unchanged = "unchanged",
        /// It is not valid, or changes what cannot change: the one before stays.
        Refused = "refused",
    }
}

label! {
    /// What finds instances.
    SourceKind "source" {
        File = "file",
        Dns = "dns",
        Kubernetes = "kubernetes",
    }
}

label! {
    /// What a source of instances said.
    DiscoveryOutcome "outcome" {
        Found = "found",
        /// It suddenly finds none, and is not believed for a while.
        Empty = "empty",
        /// It could not be asked: what it found last stays.
        Failed = "failed",
    }
}

impl From<&Source> for SourceKind {
    fn from(source: &Source) -> Self {
        match source {
            Source::File { .. } => SourceKind::File,
            Source::Dns(_) => SourceKind::Dns,
            Source::Kubernetes(_) => SourceKind::Kubernetes,
        }
    }
}

impl StatusClass {
    /// The class that a status belongs to. There are no final statuses below 200, and none are known above 599.
    pub fn of(status: u16) -> Self {
        match status {
            ..300 => StatusClass::Success,
            300..400 => StatusClass::Redirect,
            400..500 => StatusClass::ClientError,
            500.. => StatusClass::ServerError,
        }
    }
}

impl From<Api> for Call {
    fn from(api: Api) -> Self {
        match api {
            Api::Completions => Call::Completions,
            Api::Chat => Call::Chat,
            Api::Responses => Call::Responses,
            Api::Messages => Call::Messages,
            Api::Embeddings => Call::Embeddings,
            Api::Generate => Call::Generate,
            Api::Tokenize => Call::Tokenize,
            Api::Models => Call::Models,
            Api::Other => Call::Other,
        }
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
            RouteError::Saturated { .. } => Outcome::Saturated,
            RouteError::Held { .. } => Outcome::Held,
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
