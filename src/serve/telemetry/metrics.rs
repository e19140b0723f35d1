//! One app's metrics, each registered as it is declared.
//!
//! Each app has a recorder of its own, so that several can run in one process, and takes its handles from it once.

use super::declaration::{Kind, Metric};
use super::labels::{
    Answer, ByLoad, EventKind, Failure, Label, LearnProblem, Of, Outcome, ReplayOutcome, SkipReason, State,
};
use crate::routing::InstanceId;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use std::sync::OnceLock;

/// One app's metrics.
pub(crate) struct Metrics {
    handle: PrometheusHandle,
    decisions: PerLabel<Outcome, Counter>,
    prompt_tokens: Counter,
    overlap_tokens: PerLabel<Of, Counter>,
    decision_seconds: Histogram,
    learn_errors: PerLabel<LearnProblem, Counter>,
    in_flight: Gauge,
    index_blocks: Gauge,
    index_entries: Gauge,
    /// See [`Metric::HttpRequests`].
    pub answers: PerLabel<Answer, Counter>,
    /// See [`Metric::GrpcRequests`].
    pub grpc_answers: PerLabel<Answer, Counter>,
    /// See [`Metric::RoutedByLoad`].
    pub by_load: PerLabel<ByLoad, Counter>,
    registry: Registry,
    /// By position; many places, few of them taken.
    instances: Box<[OnceLock<Box<InstanceMetrics>>]>,
}

/// What is measured of each instance.
pub(crate) struct InstanceMetrics {
    /// See [`Metric::InstanceKnowledge`].
    pub knowledge: PerLabel<State, Gauge>,
    /// See [`Metric::InstanceCachedBlocks`].
    pub cached_blocks: Gauge,
    /// See [`Metric::KvEventsConnected`].
    pub connected: Gauge,
    /// See [`Metric::KvEventBatches`].
    pub batches: Counter,
    /// See [`Metric::KvEvents`].
    pub events: PerLabel<EventKind, Counter>,
    /// See [`Metric::KvEventsSkipped`].
    pub skipped: PerLabel<SkipReason, Counter>,
    /// See [`Metric::KvEventOrphans`].
    pub orphans: Counter,
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
    /// See [`Metric::ReportedCachedTokens`].
    pub reported_cached_tokens: Counter,
}

impl InstanceMetrics {
    fn new(registry: &Registry, name: &str) -> Self {
        InstanceMetrics {
            knowledge: registry.gauges(Metric::InstanceKnowledge, name),
            cached_blocks: registry.gauge(Metric::InstanceCachedBlocks, Some(name), None),
            connected: registry.gauge(Metric::KvEventsConnected, Some(name), None),
            batches: registry.counter(Metric::KvEventBatches, Some(name), None),
            events: registry.counters(Metric::KvEvents, Some(name)),
            skipped: registry.counters(Metric::KvEventsSkipped, Some(name)),
            orphans: registry.counter(Metric::KvEventOrphans, Some(name), None),
            gaps: registry.counter(Metric::KvEventGaps, Some(name), None),
            restarts: registry.counter(Metric::KvEventRestarts, Some(name), None),
            decode_errors: registry.counter(Metric::KvEventDecodeErrors, Some(name), None),
            replays: registry.counters(Metric::KvEventReplays, Some(name)),
            replayed_batches: registry.counter(Metric::KvEventReplayedBatches, Some(name), None),
            retries: registry.counter(Metric::UpstreamRetries, Some(name), None),
            failures: registry.counters(Metric::UpstreamFailures, Some(name)),
            ready: registry.gauge(Metric::InstanceReady, Some(name), None),
            reported_cached_tokens: registry.counter(Metric::ReportedCachedTokens, Some(name), None),
        }
    }
}

/// A decision, as the metrics see it.
pub(crate) struct Routed {
    pub prompt_tokens: u32,
    pub overlap_tokens: u32,
    pub best_overlap_tokens: u32,
}

impl Metrics {
    /// The metrics of an app whose instances have these names, by position.
    pub fn new<'a>(instances: impl IntoIterator<Item = &'a str>) -> Self {
        let registry = Registry::new();
        let metrics = Metrics {
            handle: registry.recorder.handle(),
            decisions: registry.counters(Metric::RouteDecisions, None),
            prompt_tokens: registry.counter(Metric::PromptTokens, None, None),
            overlap_tokens: registry.counters(Metric::OverlapTokens, None),
            decision_seconds: registry.histogram(Metric::DecisionSeconds),
            learn_errors: registry.counters(Metric::LearnErrors, None),
            in_flight: registry.gauge(Metric::RequestsInFlight, None, None),
            index_blocks: registry.gauge(Metric::IndexBlocks, None, None),
            index_entries: registry.gauge(Metric::IndexEntries, None, None),
            answers: registry.counters(Metric::HttpRequests, None),
            grpc_answers: registry.counters(Metric::GrpcRequests, None),
            by_load: registry.counters(Metric::RoutedByLoad, None),
            registry,
            instances: (0..InstanceId::LIMIT).map(|_| OnceLock::new()).collect(),
        };
        for (position, name) in instances.into_iter().enumerate() {
            metrics.join(position, name);
        }
        metrics
    }

    /// From here on an instance is measured; the position is its own for good.
    pub fn join(&self, position: usize, name: &str) {
        self.instances[position].get_or_init(|| Box::new(InstanceMetrics::new(&self.registry, name)));
    }

    /// Counts a `Route` call.
    pub fn decided(&self, outcome: Outcome, routed: Option<&Routed>, seconds: f64) {
        self.decisions.of(outcome).increment(1);
        self.decision_seconds.record(seconds);
        if let Some(routed) = routed {
            self.prompt_tokens.increment(routed.prompt_tokens.into());
            self.overlap_tokens.of(Of::Chosen).increment(routed.overlap_tokens.into());
            self.overlap_tokens.of(Of::Best).increment(routed.best_overlap_tokens.into());
        }
    }

    /// Counts a fact that could not be taken in.
    pub fn learn_error(&self, kind: LearnProblem) {
        self.learn_errors.of(kind).increment(1);
    }

    /// The metrics of the instance at a position.
    pub fn instance(&self, position: usize) -> &InstanceMetrics {
        self.instances[position].get().expect("an instance is measured from when it joins")
    }

    /// Sets what is looked up only when someone asks.
    pub fn totals(&self, in_flight: usize, index_blocks: usize, index_entries: usize) {
        self.in_flight.set(in_flight as f64);
        self.index_blocks.set(index_blocks as f64);
        self.index_entries.set(index_entries as f64);
    }

    /// All of it, in Prometheus's text format.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Folds what histograms collected, so that memory does not grow while nobody asks. To be called every few seconds.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

/// One metric for each value of a label.
pub(crate) struct PerLabel<L, M> {
    metrics: Vec<M>,
    label: std::marker::PhantomData<L>,
}

impl<L: Label, M> PerLabel<L, M> {
    fn new(metric: impl Fn(L) -> M) -> Self {
        PerLabel { metrics: L::ALL.iter().map(|&value| metric(value)).collect(), label: std::marker::PhantomData }
    }

    /// The one for this value.
    pub fn of(&self, value: L) -> &M {
        &self.metrics[value.position()]
    }
}

impl<L: Label> PerLabel<L, Gauge> {
    /// 1 for this value, 0 for the others.
    pub fn only(&self, value: L) {
        for (position, gauge) in self.metrics.iter().enumerate() {
            gauge.set(if position == value.position() { 1.0 } else { 0.0 });
        }
    }
}

/// Hands out metrics that are described, and of the kind that was declared.
struct Registry {
    recorder: PrometheusRecorder,
}

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

type Value = (&'static str, &'static str);

impl Registry {
    fn new() -> Self {
        let mut builder = PrometheusBuilder::new();
        for metric in Metric::ALL {
            if let (name, Kind::Histogram(buckets), ..) = metric.declaration() {
                let matcher = Matcher::Full(name.to_owned());
                builder = builder.set_buckets_for_metric(matcher, buckets).expect("declared buckets are not empty");
            }
        }
        let recorder = builder.build_recorder();
        for metric in Metric::ALL {
            let (name, kind, unit, help) = metric.declaration();
            let name = KeyName::from_const_str(name);
            match kind {
                Kind::Counter => recorder.describe_counter(name, Some(unit), help.into()),
                Kind::Gauge => recorder.describe_gauge(name, Some(unit), help.into()),
                Kind::Histogram(_) => recorder.describe_histogram(name, Some(unit), help.into()),
            }
        }
        Registry { recorder }
    }

    fn counter(&self, metric: Metric, instance: Option<&str>, value: Option<Value>) -> Counter {
        debug_assert!(matches!(metric.declaration().1, Kind::Counter));
        self.recorder.register_counter(&key(metric, instance, value), &METADATA)
    }

    fn gauge(&self, metric: Metric, instance: Option<&str>, value: Option<Value>) -> Gauge {
        debug_assert!(matches!(metric.declaration().1, Kind::Gauge));
        self.recorder.register_gauge(&key(metric, instance, value), &METADATA)
    }

    fn histogram(&self, metric: Metric) -> Histogram {
        debug_assert!(matches!(metric.declaration().1, Kind::Histogram(_)));
        self.recorder.register_histogram(&key(metric, None, None), &METADATA)
    }

    fn counters<L: Label>(&self, metric: Metric, instance: Option<&str>) -> PerLabel<L, Counter> {
        PerLabel::new(|value: L| self.counter(metric, instance, Some((L::NAME, value.name()))))
    }

    fn gauges<L: Label>(&self, metric: Metric, instance: &str) -> PerLabel<L, Gauge> {
        PerLabel::new(|value: L| self.gauge(metric, Some(instance), Some((L::NAME, value.name()))))
    }
}

fn key(metric: Metric, instance: Option<&str>, value: Option<Value>) -> Key {
    let instance = instance.map(|name| metrics::Label::new("instance", name.to_owned()));
    let value = value.map(|(name, value)| metrics::Label::new(name, value));
    Key::from_parts(metric.declaration().0, instance.into_iter().chain(value).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_declared_metric_is_rendered_with_help_and_names_are_unique() {
        let metrics = Metrics::new(["a", "b"]);
        metrics.decided(Outcome::Routed, None, 3e-6);
        metrics.totals(1, 2, 3);
        let text = metrics.render();
        let mut names = std::collections::HashSet::new();
        for metric in Metric::ALL {
            let (name, ..) = metric.declaration();
            assert!(names.insert(name), "{name} is declared twice");
            assert!(text.contains(&format!("# HELP {name} ")), "{name} is missing from\n{text}");
        }
        assert!(text.contains("warmpath_decision_seconds_bucket{le=\"0.000005\"} 1"), "{text}");
        assert!(text.contains("warmpath_instance_knowledge{instance=\"b\",state=\"blind\"} 0"), "{text}");
    }
}
