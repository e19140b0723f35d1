//! Every metric, declared once: its name, how it is kept, its unit, its help.

/// What there is to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Metric {
    RouteDecisions,
    PromptTokens,
    OverlapTokens,
    DecisionSeconds,
    TokenizeSeconds,
    RequestsInFlight,
    LearnErrors,
    IndexBlocks,
    IndexEntries,
    InstanceKnowledge,
    InstanceCachedBlocks,
    KvEventsConnected,
    KvEventBatches,
    KvEventLag,
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
    WatchersLost,
    Refusals,
    SecurityReloads,
    CertificateExpiry,
    RoutedByLoad,
    GuessedLookups,
    UpstreamRetries,
    UpstreamFailures,
    InstanceReady,
    InstanceBreaker,
    InstanceInfo,
    InstanceResponses,
    ReportedCachedTokens,
    RecorderRequests,
    RecorderFiles,
    RecorderHeldBytes,
    RequestTtft,
    RequestSeconds,
    HttpResponses,
    HttpFirstByte,
    IndexBytes,
    InstanceRequests,
    InstanceAssigned,
    InstancePrefillWait,
    BuildInfo,
    RoutingInfo,
    ProcessCpu,
    ProcessResident,
    ProcessVirtual,
    ProcessOpenFds,
    ProcessMaxFds,
    ProcessThreads,
    ProcessStart,
    Predictions,
    PredictedTokens,
    DeliveredTokens,
    ComparedPromptTokens,
    ComparedBestTokens,
    KvEventOrphanBlocks,
    LoadReads,
    LoadAge,
    LoadReported,
    LoadForeign,
    LoadCacheUsage,
    InstanceCacheBlocks,
    InstanceSaturated,
    Held,
    HeldSeconds,
    Queued,
    QueuedTokens,
    QueuedBytes,
    QueueWait,
    Shed,
    ConfigReloads,
    ConfigLastReload,
    DiscoveryUpdates,
    DiscoveryInstances,
    DiscoveryFailing,
    FleetProblems,
    TraceSpans,
}

/// How a metric is kept.
pub(super) enum Kind {
    Counter,
    Gauge,
    /// Upper bounds, ascending.
    Histogram(&'static [f64]),
}

impl Kind {
    /// As Prometheus calls it.
    pub const fn name(&self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        }
    }
}

/// What one of a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Count,
    Seconds,
    Bytes,
}

impl Unit {
    /// As the documentation spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Unit::Count => "count",
            Unit::Seconds => "seconds",
            Unit::Bytes => "bytes",
        }
    }
}

/// Seconds: a decision takes microseconds, and what takes a tenth of a second is broken.
const DECISION_BUCKETS: &[f64] = &[2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 1e-1];

/// Seconds: words met before take microseconds, a long new text tens of milliseconds; what takes longer is waited for no more.
const TOKENIZE_BUCKETS: &[f64] = &[1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0];

/// Seconds: a cached prompt's first token takes some tens of milliseconds, a long queue's some tens of seconds.
const TTFT_BUCKETS: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Seconds: an embedding takes milliseconds, a long generation minutes.
const REQUEST_BUCKETS: &[f64] = &[0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];

impl Metric {
    /// All of them.
    pub const ALL: &[Metric] = &[
        Metric::RouteDecisions,
        Metric::PromptTokens,
        Metric::OverlapTokens,
        Metric::DecisionSeconds,
        Metric::TokenizeSeconds,
        Metric::RequestsInFlight,
        Metric::LearnErrors,
        Metric::IndexBlocks,
        Metric::IndexEntries,
        Metric::InstanceKnowledge,
        Metric::InstanceCachedBlocks,
        Metric::KvEventsConnected,
        Metric::KvEventBatches,
        Metric::KvEventLag,
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
        Metric::WatchersLost,
        Metric::Refusals,
        Metric::SecurityReloads,
        Metric::CertificateExpiry,
        Metric::RoutedByLoad,
        Metric::GuessedLookups,
        Metric::UpstreamRetries,
        Metric::UpstreamFailures,
        Metric::InstanceReady,
        Metric::InstanceBreaker,
        Metric::InstanceInfo,
        Metric::InstanceResponses,
        Metric::ReportedCachedTokens,
        Metric::RecorderRequests,
        Metric::RecorderFiles,
        Metric::RecorderHeldBytes,
        Metric::RequestTtft,
        Metric::RequestSeconds,
        Metric::HttpResponses,
        Metric::HttpFirstByte,
        Metric::IndexBytes,
        Metric::InstanceRequests,
        Metric::InstanceAssigned,
        Metric::InstancePrefillWait,
        Metric::BuildInfo,
        Metric::RoutingInfo,
        Metric::ProcessCpu,
        Metric::ProcessResident,
        Metric::ProcessVirtual,
        Metric::ProcessOpenFds,
        Metric::ProcessMaxFds,
        Metric::ProcessThreads,
        Metric::ProcessStart,
        Metric::Predictions,
        Metric::PredictedTokens,
        Metric::DeliveredTokens,
        Metric::ComparedPromptTokens,
        Metric::ComparedBestTokens,
        Metric::KvEventOrphanBlocks,
        Metric::LoadReads,
        Metric::LoadAge,
        Metric::LoadReported,
        Metric::LoadForeign,
        Metric::LoadCacheUsage,
        Metric::InstanceCacheBlocks,
        Metric::InstanceSaturated,
        Metric::Held,
        Metric::HeldSeconds,
        Metric::Queued,
        Metric::QueuedTokens,
        Metric::QueuedBytes,
        Metric::QueueWait,
        Metric::Shed,
        Metric::ConfigReloads,
        Metric::ConfigLastReload,
        Metric::DiscoveryUpdates,
        Metric::DiscoveryInstances,
        Metric::DiscoveryFailing,
        Metric::FleetProblems,
        Metric::TraceSpans,
    ];

    /// Its position in [`ALL`](Self::ALL).
    pub const fn position(self) -> usize {
        self as usize
    }

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
            Metric::TokenizeSeconds => (
                "warmpath_tokenize_seconds",
                Kind::Histogram(TOKENIZE_BUCKETS),
                Unit::Seconds,
                "Time that a request waited for the tokens of its text or chat, where the model has a tokenizer.",
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
                "Stored blocks of which it was not known what comes before them, by what became of them.",
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
            Metric::Refusals => (
                "warmpath_refusals_total",
                Kind::Counter,
                Unit::Count,
                "Connections, requests and answers that were ended for a limit or a key, by listener and why.",
            ),
            Metric::SecurityReloads => (
                "warmpath_security_reloads_total",
                Kind::Counter,
                Unit::Count,
                "Certificates and keys read again because their files changed, by how that went.",
            ),
            Metric::CertificateExpiry => (
                "warmpath_certificate_expiry_seconds",
                Kind::Gauge,
                Unit::Seconds,
                "When the first certificate of a chain in use expires, in seconds since 1970.",
            ),
            Metric::WatchersLost => (
                "warmpath_watchers_lost_total",
                Kind::Counter,
                Unit::Count,
                "Watchers of the fleet that were ended because they did not keep up.",
            ),
            Metric::RoutedByLoad => (
                "warmpath_routed_by_load_total",
                Kind::Counter,
                Unit::Count,
                "Forwarded requests whose prompt could not be looked up in the index, by why.",
            ),
            Metric::GuessedLookups => (
                "warmpath_guessed_lookups_total",
                Kind::Counter,
                Unit::Count,
                "Forwarded requests whose prompt was looked up otherwise than by all of its tokens, by why.",
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
            Metric::RecorderRequests => (
                "warmpath_recorder_requests_total",
                Kind::Counter,
                Unit::Count,
                "Placed requests by what became of them in the recording; none while nothing is recorded.",
            ),
            Metric::RecorderFiles => {
                ("warmpath_recorder_files_total", Kind::Counter, Unit::Count, "Files of recorded requests begun.")
            }
            Metric::RecorderHeldBytes => (
                "warmpath_recorder_held_bytes",
                Kind::Gauge,
                Unit::Bytes,
                "Memory of requests that wait to be recorded until they, and those before them, have ended.",
            ),
            Metric::RequestTtft => (
                "warmpath_request_ttft_seconds",
                Kind::Histogram(TTFT_BUCKETS),
                Unit::Seconds,
                "Time from the decision to the first token, or to the first byte of an answer that is not streamed.",
            ),
            Metric::RequestSeconds => (
                "warmpath_request_seconds",
                Kind::Histogram(REQUEST_BUCKETS),
                Unit::Seconds,
                "Time from the decision to the end of a routed request, by how it ended.",
            ),
            Metric::HttpResponses => (
                "warmpath_http_responses_total",
                Kind::Counter,
                Unit::Count,
                "Answers of the OpenAI API that began, by call and class of status.",
            ),
            Metric::HttpFirstByte => (
                "warmpath_http_first_byte_seconds",
                Kind::Histogram(REQUEST_BUCKETS),
                Unit::Seconds,
                "Time from a request's head to its answer's head, the reading of the body and retries included, by call.",
            ),
            Metric::IndexBytes => {
                ("warmpath_index_bytes", Kind::Gauge, Unit::Bytes, "Memory that the index takes, as it counts it.")
            }
            Metric::InstanceRequests => (
                "warmpath_instance_requests",
                Kind::Gauge,
                Unit::Count,
                "Requests in flight at an instance, waiting for their first token or past it.",
            ),
            Metric::InstanceAssigned => {
                ("warmpath_instance_assigned_total", Kind::Counter, Unit::Count, "Requests placed at an instance.")
            }
            Metric::InstancePrefillWait => (
                "warmpath_instance_prefill_wait_seconds",
                Kind::Gauge,
                Unit::Seconds,
                "Estimated time until an instance would begin a new request's prefill.",
            ),
            Metric::BuildInfo => ("warmpath_build_info", Kind::Gauge, Unit::Count, "1, with the version that runs."),
            Metric::RoutingInfo => {
                ("warmpath_routing_info", Kind::Gauge, Unit::Count, "1, with the policy and the block size in force.")
            }
            Metric::ProcessCpu => (
                "process_cpu_seconds_total",
                Kind::Counter,
                Unit::Seconds,
                "CPU time of the router's process, user and system.",
            ),
            Metric::ProcessResident => {
                ("process_resident_memory_bytes", Kind::Gauge, Unit::Bytes, "Memory of the process that is in RAM.")
            }
            Metric::ProcessVirtual => {
                ("process_virtual_memory_bytes", Kind::Gauge, Unit::Bytes, "Address space of the process.")
            }
            Metric::ProcessOpenFds => ("process_open_fds", Kind::Gauge, Unit::Count, "Open file descriptors."),
            Metric::ProcessMaxFds => {
                ("process_max_fds", Kind::Gauge, Unit::Count, "File descriptors that may be open at once.")
            }
            Metric::ProcessThreads => ("process_threads", Kind::Gauge, Unit::Count, "Threads of the process."),
            Metric::ProcessStart => (
                "process_start_time_seconds",
                Kind::Gauge,
                Unit::Seconds,
                "When the process started, in seconds since 1970.",
            ),
            Metric::Predictions => (
                "warmpath_predictions_total",
                Kind::Counter,
                Unit::Count,
                "Answers that said how many prompt tokens had been cached, by how that compares with what was predicted.",
            ),
            Metric::PredictedTokens => (
                "warmpath_predicted_tokens_total",
                Kind::Counter,
                Unit::Count,
                "Prompt tokens that were predicted to be cached, of the requests in warmpath_predictions_total.",
            ),
            Metric::DeliveredTokens => (
                "warmpath_delivered_tokens_total",
                Kind::Counter,
                Unit::Count,
                "Prompt tokens that had been cached, of the requests in warmpath_predictions_total.",
            ),
            Metric::ComparedPromptTokens => (
                "warmpath_compared_prompt_tokens_total",
                Kind::Counter,
                Unit::Count,
                "Prompt tokens of the requests in warmpath_predictions_total.",
            ),
            Metric::ComparedBestTokens => (
                "warmpath_compared_best_tokens_total",
                Kind::Counter,
                Unit::Count,
                "Prompt tokens predicted to be cached where most of them were, of the requests in warmpath_predictions_total.",
            ),
            Metric::KvEventOrphanBlocks => (
                "warmpath_kv_event_orphan_blocks",
                Kind::Gauge,
                Unit::Count,
                "Stored blocks that are kept aside until what comes before them is known.",
            ),
            Metric::LoadReads => (
                "warmpath_load_reads_total",
                Kind::Counter,
                Unit::Count,
                "Times that an instance was asked how loaded it is, by how it went.",
            ),
            Metric::LoadAge => (
                "warmpath_load_age_seconds",
                Kind::Gauge,
                Unit::Seconds,
                "Time since an instance last said how loaded it is; infinite before the first time.",
            ),
            Metric::LoadReported => (
                "warmpath_load_reported_requests",
                Kind::Gauge,
                Unit::Count,
                "Requests at an instance by its own word.",
            ),
            Metric::LoadForeign => (
                "warmpath_load_foreign_requests",
                Kind::Gauge,
                Unit::Count,
                "Requests at an instance by its own word beyond those that this router sent there.",
            ),
            Metric::LoadCacheUsage => (
                "warmpath_load_cache_usage",
                Kind::Gauge,
                Unit::Count,
                "The share of an instance's KV blocks that running requests use, by its own word, from 0 to 1.",
            ),
            Metric::InstanceCacheBlocks => (
                "warmpath_instance_cache_blocks_max",
                Kind::Gauge,
                Unit::Count,
                "Blocks that an instance without events is believed to hold at most; by its own word where it gives one.",
            ),
            Metric::InstanceSaturated => (
                "warmpath_instance_saturated",
                Kind::Gauge,
                Unit::Count,
                "1 while an instance has as much as it should be given, by [admission], else 0.",
            ),
            Metric::Held => (
                "warmpath_held_requests",
                Kind::Gauge,
                Unit::Count,
                "Of the requests that wait, those that are held for a moment by routing.hold_steps, though there is room.",
            ),
            Metric::HeldSeconds => (
                "warmpath_held_seconds",
                Kind::Histogram(TTFT_BUCKETS),
                Unit::Seconds,
                "Time for which requests were held that were placed then; those that were placed when they came are not in it.",
            ),
            Metric::Queued => (
                "warmpath_queued_requests",
                Kind::Gauge,
                Unit::Count,
                "Requests that wait for an instance to have room, by priority; held ones among them.",
            ),
            Metric::QueuedTokens => (
                "warmpath_queued_tokens",
                Kind::Gauge,
                Unit::Count,
                "Prompt tokens of the requests that wait for room.",
            ),
            Metric::QueuedBytes => {
                ("warmpath_queued_bytes", Kind::Gauge, Unit::Bytes, "Bodies of the requests that wait for room.")
            }
            Metric::QueueWait => (
                "warmpath_queue_wait_seconds",
                Kind::Histogram(TTFT_BUCKETS),
                Unit::Seconds,
                "Time that requests waited for an instance to have room, by how it ended; those that did not wait are not in it.",
            ),
            Metric::Shed => (
                "warmpath_shed_total",
                Kind::Counter,
                Unit::Count,
                "Requests that were refused because all instances that might take them were saturated, by why.",
            ),
            Metric::ConfigReloads => (
                "warmpath_config_reloads_total",
                Kind::Counter,
                Unit::Count,
                "Times that the configuration was read again, by how it went.",
            ),
            Metric::ConfigLastReload => (
                "warmpath_config_last_reload_ok",
                Kind::Gauge,
                Unit::Count,
                "Whether the configuration in force is the file's: 0 after the file was refused.",
            ),
            Metric::DiscoveryUpdates => (
                "warmpath_discovery_updates_total",
                Kind::Counter,
                Unit::Count,
                "What sources of instances said, by kind of source and what it was.",
            ),
            Metric::DiscoveryInstances => (
                "warmpath_discovery_instances",
                Kind::Gauge,
                Unit::Count,
                "Instances that sources of a kind found, as far as they are believed.",
            ),
            Metric::DiscoveryFailing => (
                "warmpath_discovery_failing",
                Kind::Gauge,
                Unit::Count,
                "Sources of a kind that cannot be asked, or suddenly find none: what they found last stays.",
            ),
            Metric::KvEventLag => (
                "warmpath_kv_event_lag_seconds",
                Kind::Gauge,
                Unit::Seconds,
                "Time from when an instance published its last batch of cache events, by its own clock, to when it was taken in here.",
            ),
            Metric::InstanceBreaker => (
                "warmpath_instance_breaker_open",
                Kind::Gauge,
                Unit::Count,
                "1 while failures in a row, of checks or of requests, keep requests from an instance, else 0.",
            ),
            Metric::InstanceInfo => (
                "warmpath_instance_info",
                Kind::Gauge,
                Unit::Count,
                "1, with the model that an instance serves: joined with the others, it tells them by model.",
            ),
            Metric::InstanceResponses => (
                "warmpath_instance_responses_total",
                Kind::Counter,
                Unit::Count,
                "Answers of an instance to requests that were forwarded over HTTP, by the class of their status.",
            ),
            Metric::FleetProblems => (
                "warmpath_fleet_problems",
                Kind::Gauge,
                Unit::Count,
                "Configured or discovered instances that could not be taken into the fleet; /status says which and why.",
            ),
            Metric::TraceSpans => (
                "warmpath_trace_spans_total",
                Kind::Counter,
                Unit::Count,
                "Spans of sampled requests, by what became of them.",
            ),
        }
    }
}
