//! Every metric, declared once: its name, how it is kept, its unit, its help.

use metrics::Unit;

/// What there is to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Metric {
    RouteDecisions,
    PromptTokens,
    OverlapTokens,
    DecisionSeconds,
    RequestsInFlight,
    LearnErrors,
    IndexBlocks,
    IndexEntries,
    InstanceKnowledge,
    InstanceCachedBlocks,
    KvEventsConnected,
    KvEventBatches,
    KvEvents,
    KvEventsSkipped,
    KvEventOrphans,
    KvEventGaps,
    KvEventRestarts,
    KvEventDecodeErrors,
    KvEventReplays,
    KvEventReplayedBatches,
    HttpRequests,
    GrpcRequests,
    RoutedByLoad,
    UpstreamRetries,
    UpstreamFailures,
    InstanceReady,
    ReportedCachedTokens,
}

/// How a metric is kept.
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram(&'static [f64]),
}

/// Seconds: a decision takes microseconds, and what takes a tenth of a second is broken.
const DECISION_BUCKETS: &[f64] = &[2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 1e-1];

impl Metric {
    /// All of them.
    pub const ALL: [Metric; 27] = [
        Metric::RouteDecisions,
        Metric::PromptTokens,
        Metric::OverlapTokens,
        Metric::DecisionSeconds,
        Metric::RequestsInFlight,
        Metric::LearnErrors,
        Metric::IndexBlocks,
        Metric::IndexEntries,
        Metric::InstanceKnowledge,
        Metric::InstanceCachedBlocks,
        Metric::KvEventsConnected,
        Metric::KvEventBatches,
        Metric::KvEvents,
        Metric::KvEventsSkipped,
        Metric::KvEventOrphans,
        Metric::KvEventGaps,
        Metric::KvEventRestarts,
        Metric::KvEventDecodeErrors,
        Metric::KvEventReplays,
        Metric::KvEventReplayedBatches,
        Metric::HttpRequests,
        Metric::GrpcRequests,
        Metric::RoutedByLoad,
        Metric::UpstreamRetries,
        Metric::UpstreamFailures,
        Metric::InstanceReady,
        Metric::ReportedCachedTokens,
    ];

    /// Name, kind, unit and help.
    pub const fn declaration(self) -> (&'static str, Kind, Unit, &'static str) {
        match self {
            Metric::RouteDecisions => {
                ("warmpath_route_decisions_total", Kind::Counter, Unit::Count, "Route calls by how they ended.")
            }
            Metric::PromptTokens => {
                ("warmpath_prompt_tokens_total", Kind::Counter, Unit::Count, "Prompt tokens of routed requests.")
            }
            Metric::OverlapTokens => (
                "warmpath_overlap_tokens_total",
                Kind::Counter,
                Unit::Count,
                "Prompt tokens that the index knew to be cached, at the chosen instance and at the one with most.",
            ),
            Metric::DecisionSeconds => (
                "warmpath_decision_seconds",
                Kind::Histogram(DECISION_BUCKETS),
                Unit::Seconds,
                "Time to decide, from the parsed request to the booked decision.",
            ),
            Metric::RequestsInFlight => {
                ("warmpath_requests_in_flight", Kind::Gauge, Unit::Count, "Requests placed and not ended.")
            }
            Metric::LearnErrors => (
                "warmpath_learn_errors_total",
                Kind::Counter,
                Unit::Count,
                "Facts that could not be taken in, wholly or in part, by why.",
            ),
            Metric::IndexBlocks => ("warmpath_index_blocks", Kind::Gauge, Unit::Count, "Distinct blocks in the index."),
            Metric::IndexEntries => {
                ("warmpath_index_entries", Kind::Gauge, Unit::Count, "(block, instance) pairs in the index.")
            }
            Metric::InstanceKnowledge => (
                "warmpath_instance_knowledge",
                Kind::Gauge,
                Unit::Count,
                "1 for the state that says how far the index is to be believed about an instance, 0 for the others.",
            ),
            Metric::InstanceCachedBlocks => (
                "warmpath_instance_cached_blocks",
                Kind::Gauge,
                Unit::Count,
                "Distinct blocks that the index believes an instance to hold.",
            ),
            Metric::KvEventsConnected => (
                "warmpath_kv_events_connected",
                Kind::Gauge,
                Unit::Count,
                "1 while subscribed to an instance's cache events, else 0.",
            ),
            Metric::KvEventBatches => {
                ("warmpath_kv_event_batches_total", Kind::Counter, Unit::Count, "Batches of cache events that came.")
            }
            Metric::KvEvents => (
                "warmpath_kv_events_total",
                Kind::Counter,
                Unit::Count,
                "Cache events told to the router, by what they say.",
            ),
            Metric::KvEventsSkipped => {
                ("warmpath_kv_events_skipped_total", Kind::Counter, Unit::Count, "Cache events left out, by why.")
            }
            Metric::KvEventOrphans => (
                "warmpath_kv_event_orphans_total",
                Kind::Counter,
                Unit::Count,
                "Stored blocks left out because what comes before them is not known.",
            ),
            Metric::KvEventGaps => (
                "warmpath_kv_event_gaps_total",
                Kind::Counter,
                Unit::Count,
                "Times that batches were found missing; the instance's blocks were forgotten.",
            ),
            Metric::KvEventRestarts => (
                "warmpath_kv_event_restarts_total",
                Kind::Counter,
                Unit::Count,
                "Times that an instance was found to count its batches anew; its blocks were forgotten.",
            ),
            Metric::KvEventDecodeErrors => (
                "warmpath_kv_event_decode_errors_total",
                Kind::Counter,
                Unit::Count,
                "Batches that could not be read; the instance's blocks were forgotten.",
            ),
            Metric::KvEventReplays => (
                "warmpath_kv_event_replays_total",
                Kind::Counter,
                Unit::Count,
                "Times that an instance was asked for the cache events that it published before, by how it went.",
            ),
            Metric::KvEventReplayedBatches => (
                "warmpath_kv_event_replayed_batches_total",
                Kind::Counter,
                Unit::Count,
                "Batches of cache events that came by replay.",
            ),
            Metric::HttpRequests => (
                "warmpath_http_requests_total",
                Kind::Counter,
                Unit::Count,
                "Requests to the OpenAI API, by what their answer began with.",
            ),
            Metric::GrpcRequests => (
                "warmpath_grpc_requests_total",
                Kind::Counter,
                Unit::Count,
                "Calls of vLLM's gRPC services, by what their answer began with.",
            ),
            Metric::RoutedByLoad => (
                "warmpath_routed_by_load_total",
                Kind::Counter,
                Unit::Count,
                "Forwarded requests whose prompt could not be looked up in the index, by why.",
            ),
            Metric::UpstreamRetries => (
                "warmpath_upstream_retries_total",
                Kind::Counter,
                Unit::Count,
                "Requests that were sent to another instance because this one did not take them.",
            ),
            Metric::UpstreamFailures => (
                "warmpath_upstream_failures_total",
                Kind::Counter,
                Unit::Count,
                "Forwarded requests that failed at an instance, by how.",
            ),
            Metric::InstanceReady => {
                ("warmpath_instance_ready", Kind::Gauge, Unit::Count, "1 while an instance takes requests, else 0.")
            }
            Metric::ReportedCachedTokens => (
                "warmpath_reported_cached_tokens_total",
                Kind::Counter,
                Unit::Count,
                "Prompt tokens that instances said, in forwarded answers, to have had cached.",
            ),
        }
    }
}
