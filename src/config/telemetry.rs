//! What is told of the router's work, besides metrics: logs and traces.

/// What is logged, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Logs {
    /// How a line looks.
    pub format: LogFormat,
    /// Whether each request is a line.
    pub requests: bool,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// All of them.
    pub const ALL: [LogFormat; 2] = [LogFormat::Text, LogFormat::Json];

    /// As it is configured.
    pub fn name(self) -> &'static str {
        match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
    }
}

/// Where traces are sent: OTLP over gRPC.
#[derive(Clone, Debug, PartialEq)]
pub struct Tracing {
    /// The collector, `http://host:port`.
    pub endpoint: String,
    /// The share of requests that is traced where the client does not say, from 0 to 1.
    pub sample_ratio: f64,
    /// Spans that wait to be sent, at most.
    pub queue_spans_max: usize,
    /// What the router is called there.
    pub service_name: String,
}
