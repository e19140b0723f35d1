//! What is measured of each instance.

use super::declaration::Metric;
use super::labels::{
    EventKind, Failure, Label, LoadRead, OrphanFate, ReplayOutcome, Reported, SkipReason, Stage, State, StatusClass,
    Verdict,
};
use super::registry::{Counter, Gauge, PerLabel, Registry};
use super::totals::{Cached, Compared};
use crate::routing::{Availability, Decision, InstanceState};

/// One instance's metrics.
pub(crate) struct InstanceMetrics {
    pub(super) name: String,
    /// See [`Metric::InstanceKnowledge`].
    pub knowledge: PerLabel<State, Gauge>,
    /// See [`Metric::InstanceCachedBlocks`].
    pub cached_blocks: Gauge,
    /// See [`Metric::KvEventsConnected`].
    pub connected: Gauge,
    /// See [`Metric::KvEventBatches`].
    pub batches: Counter,
    /// See [`Metric::KvEventLag`].
    pub lag: Gauge,
    /// See [`Metric::KvEvents`].
    pub events: PerLabel<EventKind, Counter>,
    /// See [`Metric::KvEventsSkipped`].
    pub skipped: PerLabel<SkipReason, Counter>,
    /// See [`Metric::KvEventOrphans`].
    pub orphans: PerLabel<OrphanFate, Counter>,
    /// See [`Metric::KvEventOrphanBlocks`].
    pub orphan_blocks: Gauge,
    /// See [`Metric::KvEventGaps`].
    pub gaps: Counter,
    /// See [`Metric::KvEventRestarts`].
    pub restarts: Counter,
    /// See [`Metric::KvEventDecodeErrors`].
    pub decode_errors: Counter,
    /// See [`Metric::KvEventReplays`].
    pub replays: PerLabel<ReplayOutcome, Counter>,
    /// See [`Metric::KvEventReplayedBatches`].
    pub replayed_batches: Counter,
    /// See [`Metric::UpstreamRetries`].
    pub retries: Counter,
    /// See [`Metric::UpstreamFailures`].
    pub failures: PerLabel<Failure, Counter>,
    /// See [`Metric::InstanceReady`].
    pub ready: Gauge,
    /// See [`Metric::InstanceBreaker`].
    pub breaker: Gauge,
    /// See [`Metric::InstanceResponses`].
    pub responses: PerLabel<StatusClass, Counter>,
    /// See [`Metric::ReportedCachedTokens`].
    pub reported_cached_tokens: Counter,
    requests: PerLabel<Stage, Gauge>,
    /// See [`Metric::InstanceAssigned`].
    pub assigned: Counter,
    prefill_wait: Gauge,
    predictions: PerLabel<Verdict, Counter>,
    predicted_tokens: Counter,
    pub(super) delivered_tokens: Counter,
    compared_prompt_tokens: Counter,
    compared_best_tokens: Counter,
    /// See [`Metric::LoadReads`].
    pub load_reads: PerLabel<LoadRead, Counter>,
    /// See [`Metric::LoadAge`].
    pub load_age: Gauge,
    /// See [`Metric::LoadReported`].
    pub load_reported: PerLabel<Reported, Gauge>,
    /// See [`Metric::LoadForeign`].
    pub load_foreign: Gauge,
    /// See [`Metric::LoadCacheUsage`].
    pub load_cache_usage: Gauge,
    /// See [`Metric::InstanceCacheBlocks`].
    pub cache_blocks_max: Gauge,
    /// See [`Metric::InstanceSaturated`].
    pub saturated: Gauge,
}

impl InstanceMetrics {
    /// Of an instance of that name.
    pub(super) fn new(registry: &Registry, name: &str) -> Self {
        InstanceMetrics {
            name: name.to_owned(),
            knowledge: registry.gauges(Metric::InstanceKnowledge, name),
            cached_blocks: registry.gauge(Metric::InstanceCachedBlocks, Some(name), None),
            connected: registry.gauge(Metric::KvEventsConnected, Some(name), None),
            batches: registry.counter(Metric::KvEventBatches, Some(name), None),
            lag: registry.gauge(Metric::KvEventLag, Some(name), None),
            breaker: registry.gauge(Metric::InstanceBreaker, Some(name), None),
            responses: registry.counters(Metric::InstanceResponses, Some(name)),
            events: registry.counters(Metric::KvEvents, Some(name)),
            skipped: registry.counters(Metric::KvEventsSkipped, Some(name)),
            orphans: registry.counters(Metric::KvEventOrphans, Some(name)),
            orphan_blocks: registry.gauge(Metric::KvEventOrphanBlocks, Some(name), None),
            gaps: registry.counter(Metric::KvEventGaps, Some(name), None),
            restarts: registry.counter(Metric::KvEventRestarts, Some(name), None),
            decode_errors: registry.counter(Metric::KvEventDecodeErrors, Some(name), None),
            replays: registry.counters(Metric::KvEventReplays, Some(name)),
            replayed_batches: registry.counter(Metric::KvEventReplayedBatches, Some(name), None),
            retries: registry.counter(Metric::UpstreamRetries, Some(name), None),
            failures: registry.counters(Metric::UpstreamFailures, Some(name)),
            ready: registry.gauge(Metric::InstanceReady, Some(name), None),
            reported_cached_tokens: registry.counter(Metric::ReportedCachedTokens, Some(name), None),
            requests: registry.gauges(Metric::InstanceRequests, name),
            assigned: registry.counter(Metric::InstanceAssigned, Some(name), None),
            prefill_wait: registry.gauge(Metric::InstancePrefillWait, Some(name), None),
            predictions: registry.counters(Metric::Predictions, Some(name)),
            predicted_tokens: registry.counter(Metric::PredictedTokens, Some(name), None),
            delivered_tokens: registry.counter(Metric::DeliveredTokens, Some(name), None),
            compared_prompt_tokens: registry.counter(Metric::ComparedPromptTokens, Some(name), None),
            compared_best_tokens: registry.counter(Metric::ComparedBestTokens, Some(name), None),
            load_reads: registry.counters(Metric::LoadReads, Some(name)),
            load_age: registry.gauge(Metric::LoadAge, Some(name), None),
            load_reported: registry.gauges(Metric::LoadReported, name),
            load_foreign: registry.gauge(Metric::LoadForeign, Some(name), None),
            load_cache_usage: registry.gauge(Metric::LoadCacheUsage, Some(name), None),
            saturated: registry.gauge(Metric::InstanceSaturated, Some(name), None),
            cache_blocks_max: registry.gauge(Metric::InstanceCacheBlocks, Some(name), None),
        }
    }

    /// Compares what was predicted to be cached with what was.
    pub fn delivered(&self, predicted: &Decision, cached_tokens: u32) {
        let verdict = match cached_tokens.cmp(&predicted.overlap_tokens) {
            std::cmp::Ordering::Equal => Verdict::Equal,
            std::cmp::Ordering::Less => Verdict::Less,
            std::cmp::Ordering::Greater => Verdict::More,
        };
        self.predictions.of(verdict).increment(1);
        self.predicted_tokens.increment(predicted.overlap_tokens.into());
        self.delivered_tokens.increment(cached_tokens.into());
        self.compared_prompt_tokens.increment(predicted.prompt_tokens.into());
        self.compared_best_tokens.increment(predicted.best_overlap_tokens.into());
    }

    /// What was compared so far.
    pub(super) fn compared(&self) -> Compared {
        Compared {
            predicted: Cached {
                prompt_tokens: self.compared_prompt_tokens.get(),
                best_tokens: self.compared_best_tokens.get(),
                chosen_tokens: self.predicted_tokens.get(),
            },
            delivered_tokens: self.delivered_tokens.get(),
        }
    }

    /// Sets what is looked up only when someone asks.
    pub fn totals(&self, state: &InstanceState, cached_blocks: usize) {
        let load = &state.load;
        self.knowledge.only(state.knowledge.into());
        self.ready.set(if state.availability == Availability::Ready { 1.0 } else { 0.0 });
        self.cached_blocks.set(cached_blocks as f64);
        self.requests.of(Stage::Prefill).set(load.prefill_requests.into());
        self.requests.of(Stage::Decode).set(load.decode_requests.into());
        self.prefill_wait.set(load.prefill_wait_seconds);
    }

    /// The instance is in the fleet no more: nothing stands of it but what was counted.
    pub fn left(&self) {
        State::ALL.iter().for_each(|&state| self.knowledge.of(state).set(0.0));
        Stage::ALL.iter().for_each(|&stage| self.requests.of(stage).set(0.0));
        for gauge in [
            &self.ready,
            &self.breaker,
            &self.lag,
            &self.connected,
            &self.cached_blocks,
            &self.prefill_wait,
            &self.orphan_blocks,
        ] {
            gauge.set(0.0);
        }
    }
}
