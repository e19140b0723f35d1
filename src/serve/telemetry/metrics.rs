//! One app's metrics, each registered as it is declared.
//!
//! Each app has a registry of its own, so that several can run in one process, and takes its handles from it once.

use super::declaration::Metric;
use super::instance::InstanceMetrics;
use super::labels::{
    Answer, ByLoad, Call, Certificate, Class, DiscoveryOutcome, End, Guess, Label, LearnProblem, Listener, Material,
    Of, Outcome, Recording, Refusal, Reload, ReloadOutcome, ShedReason, SourceKind, SpanFate, StatusClass, WaitEnd,
};
use super::process::Process;
use super::registry::{Counter, Gauge, Histogram, PerLabel, Registry};
use super::totals::{Cached, Compared, Totals};
use crate::routing::admission::{Priority, Queued};
use crate::routing::index::IndexStats;
use crate::routing::{self, Fact, InstanceId, RequestId};
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::sync::Arc;

/// One app's metrics.
pub(crate) struct Metrics {
    registry: Registry,
    process: Option<Process>,
    decisions: PerLabel<Outcome, Counter>,
    prompt_tokens: Counter,
    overlap_tokens: PerLabel<Of, Counter>,
    decision_seconds: Histogram,
    /// See [`Metric::TokenizeSeconds`].
    pub tokenize_seconds: Histogram,
    learn_errors: PerLabel<LearnProblem, Counter>,
    in_flight: Gauge,
    index_blocks: Gauge,
    index_entries: Gauge,
    index_bytes: Gauge,
    ttft: Histogram,
    request_seconds: PerLabel<End, Histogram>,
    http_first_byte: PerLabel<Call, Histogram>,
    http_responses: Vec<PerLabel<StatusClass, Counter>>,
    /// See [`Metric::HttpRequests`].
    pub answers: PerLabel<Answer, Counter>,
    /// See [`Metric::GrpcRequests`].
    pub grpc_answers: PerLabel<Answer, Counter>,
    /// See [`Metric::RoutedByLoad`].
    pub by_load: PerLabel<ByLoad, Counter>,
    /// See [`Metric::GuessedLookups`].
    pub guesses: PerLabel<Guess, Counter>,
    /// See [`Metric::RecorderRequests`].
    pub recorder_requests: PerLabel<Recording, Counter>,
    /// See [`Metric::RecorderFiles`].
    pub recorder_files: Counter,
    pub watchers_lost: Counter,
    refusals: Vec<PerLabel<Refusal, Counter>>,
    security_reloads: Vec<PerLabel<Reload, Counter>>,
    certificate_expiry: PerLabel<Certificate, Gauge>,
    /// See [`Metric::RecorderHeldBytes`].
    pub recorder_held_bytes: Gauge,
    /// See [`Metric::QueueWait`].
    pub queue_wait: PerLabel<WaitEnd, Histogram>,
    /// See [`Metric::HeldSeconds`].
    pub held_seconds: Histogram,
    held: PerLabel<Class, Gauge>,
    /// See [`Metric::Shed`].
    pub shed: PerLabel<ShedReason, Counter>,
    queued: PerLabel<Class, Gauge>,
    queued_tokens: PerLabel<Class, Gauge>,
    queued_bytes: PerLabel<Class, Gauge>,
    /// See [`Metric::TraceSpans`].
    pub spans: Arc<PerLabel<SpanFate, Counter>>,
    reloads: PerLabel<ReloadOutcome, Counter>,
    reload_ok: Gauge,
    discovery_updates: Vec<PerLabel<DiscoveryOutcome, Counter>>,
    discovery_instances: PerLabel<SourceKind, Gauge>,
    discovery_failing: PerLabel<SourceKind, Gauge>,
    /// See [`Metric::FleetProblems`].
    pub fleet_problems: Gauge,
    /// By position; many places, few of them taken.
    instances: Box<[RwLock<Option<Arc<InstanceMetrics>>>]>,
    named: Mutex<Named>,
}

/// Instances by name.
#[derive(Default)]
struct Named {
    /// One that comes back elsewhere under its old name goes on with what was counted of it.
    known: HashMap<String, Arc<InstanceMetrics>>,
    /// What was counted of those that are known no more.
    gone: Compared,
}

/// A decision, as the metrics see it.
pub(crate) struct Routed {
    pub prompt_tokens: u32,
    pub overlap_tokens: u32,
    pub best_overlap_tokens: u32,
}

/// How far a routed request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    FirstToken,
    Ended(End),
}

impl Progress {
    /// What a fact says of a routed request, if it is about one.
    pub fn of(fact: &Fact<'_>) -> Option<(RequestId, Progress)> {
        match *fact {
            Fact::FirstToken { request } => Some((request, Progress::FirstToken)),
            Fact::Finished { request, .. } => Some((request, Progress::Ended(End::Finished))),
            Fact::Abandoned { request } => Some((request, Progress::Ended(End::Abandoned))),
            Fact::Joined { .. }
            | Fact::Stepped { .. }
            | Fact::Changed { .. }
            | Fact::Left { .. }
            | Fact::Known { .. }
            | Fact::Stored { .. }
            | Fact::Copied { .. }
            | Fact::GroupStored { .. }
            | Fact::GroupRemoved { .. }
            | Fact::Removed { .. }
            | Fact::Cleared { .. }
            | Fact::Reported { .. }
            | Fact::Sized { .. }
            | Fact::Delivered { .. }
            | Fact::TimePassed
            | Fact::Ruled { .. } => None,
        }
    }
}

impl Metrics {
    /// The metrics of an app whose instances have these names, by position.
    pub fn new<'a>(instances: impl IntoIterator<Item = &'a str>, routing: &routing::Config) -> Self {
        let registry = Registry::new();
        registry.info(Metric::BuildInfo, &[("version", env!("CARGO_PKG_VERSION"))]);
        let metrics = Metrics {
            process: Process::new(&registry),
            decisions: registry.counters(Metric::RouteDecisions, None),
            prompt_tokens: registry.counter(Metric::PromptTokens, None, None),
            overlap_tokens: registry.counters(Metric::OverlapTokens, None),
            decision_seconds: registry.histogram(Metric::DecisionSeconds, None),
            tokenize_seconds: registry.histogram(Metric::TokenizeSeconds, None),
            learn_errors: registry.counters(Metric::LearnErrors, None),
            in_flight: registry.gauge(Metric::RequestsInFlight, None, None),
            index_blocks: registry.gauge(Metric::IndexBlocks, None, None),
            index_entries: registry.gauge(Metric::IndexEntries, None, None),
            index_bytes: registry.gauge(Metric::IndexBytes, None, None),
            ttft: registry.histogram(Metric::RequestTtft, None),
            request_seconds: registry.histograms(Metric::RequestSeconds),
            http_first_byte: registry.histograms(Metric::HttpFirstByte),
            http_responses: Call::ALL.iter().map(|&call| registry.counters_of(Metric::HttpResponses, call)).collect(),
            answers: registry.counters(Metric::HttpRequests, None),
            grpc_answers: registry.counters(Metric::GrpcRequests, None),
            by_load: registry.counters(Metric::RoutedByLoad, None),
            guesses: registry.counters(Metric::GuessedLookups, None),
            recorder_requests: registry.counters(Metric::RecorderRequests, None),
            recorder_files: registry.counter(Metric::RecorderFiles, None, None),
            watchers_lost: registry.counter(Metric::WatchersLost, None, None),
            recorder_held_bytes: registry.gauge(Metric::RecorderHeldBytes, None, None),
            queue_wait: registry.histograms(Metric::QueueWait),
            held_seconds: registry.histogram(Metric::HeldSeconds, None),
            held: registry.gauges_of_all(Metric::Held),
            shed: registry.counters(Metric::Shed, None),
            queued: registry.gauges_of_all(Metric::Queued),
            queued_tokens: registry.gauges_of_all(Metric::QueuedTokens),
            queued_bytes: registry.gauges_of_all(Metric::QueuedBytes),
            refusals: Listener::ALL.iter().map(|&one| registry.counters_of(Metric::Refusals, one)).collect(),
            security_reloads: Material::ALL
                .iter()
                .map(|&one| registry.counters_of(Metric::SecurityReloads, one))
                .collect(),
            certificate_expiry: registry.gauges_of_all(Metric::CertificateExpiry),
            spans: Arc::new(registry.counters(Metric::TraceSpans, None)),
            reloads: registry.counters(Metric::ConfigReloads, None),
            reload_ok: registry.gauge(Metric::ConfigLastReload, None, None),
            discovery_updates: SourceKind::ALL
                .iter()
                .map(|&kind| registry.counters_of(Metric::DiscoveryUpdates, kind))
                .collect(),
            discovery_instances: registry.gauges_of_all(Metric::DiscoveryInstances),
            discovery_failing: registry.gauges_of_all(Metric::DiscoveryFailing),
            fleet_problems: registry.gauge(Metric::FleetProblems, None, None),
            instances: (0..InstanceId::LIMIT).map(|_| RwLock::default()).collect(),
            named: Mutex::default(),
            registry,
        };
        metrics.ruled(routing);
        for &certificate in Certificate::ALL {
            metrics.certificate_expires(certificate, None);
        }
        metrics.reload_ok.set(1.0);
        for (position, name) in instances.into_iter().enumerate() {
            metrics.join(position, name, "model");
        }
        metrics
    }

    /// From here on an instance is measured at this position. Whoever had it before is shown no more, unless he is elsewhere.
    pub fn join(&self, position: usize, name: &str, model: &str) {
        let Named { known, gone } = &mut *self.named.lock();
        let metrics = known.entry(name.to_owned());
        let metrics = Arc::clone(metrics.or_insert_with(|| Arc::new(InstanceMetrics::new(&self.registry, name))));
        self.registry.instance_info(Metric::InstanceInfo, name, model);
        let before = self.instances[position].write().replace(Arc::clone(&metrics));
        let Some(before) = before.filter(|before| !Arc::ptr_eq(before, &metrics)) else { return };
        let is_it = |other: &Arc<InstanceMetrics>| Arc::ptr_eq(other, &before);
        if self.instances.iter().all(|place| !place.read().as_ref().is_some_and(is_it)) {
            *gone = gone.plus(&before.compared());
            known.remove(&before.name);
            self.registry.forget(&before.name);
        }
    }

    /// Decisions are made so from here on.
    pub fn ruled(&self, routing: &routing::Config) {
        let block_size = routing.block_size.tokens().to_string();
        let labels = [("policy", routing.policy.name()), ("block_size", &block_size)];
        self.registry.info_in_place(Metric::RoutingInfo, &labels);
    }

    /// The metrics of a fleet of one, to be documented.
    pub fn example() -> Self {
        Metrics::new(["name"], &routing::Config::default())
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

    /// The configuration was read again.
    pub fn reloaded(&self, outcome: ReloadOutcome) {
        self.reloads.of(outcome).increment(1);
        self.reload_ok.set(if outcome == ReloadOutcome::Refused { 0.0 } else { 1.0 });
    }

    /// A source of instances said something.
    pub fn discovery_updates(&self, kind: SourceKind, outcome: DiscoveryOutcome) {
        self.discovery_updates[kind.position()].of(outcome).increment(1);
    }

    /// What the sources of a kind found all together, and how many of them are not believed.
    pub fn discovery(&self, kind: SourceKind, instances: usize, failing: usize) {
        self.discovery_instances.of(kind).set(instances as f64);
        self.discovery_failing.of(kind).set(failing as f64);
    }

    /// Counts a fact that could not be taken in.
    pub fn learn_error(&self, kind: LearnProblem) {
        self.learn_errors.of(kind).increment(1);
    }

    /// The metrics of the instance at a position.
    pub fn instance(&self, position: usize) -> Arc<InstanceMetrics> {
        self.instances[position].read().clone().expect("an instance is measured from when it joins")
    }

    /// A routed request came so far, so long after its decision.
    pub fn progressed(&self, progress: Progress, seconds: f64) {
        match progress {
            Progress::FirstToken => self.ttft.record(seconds),
            Progress::Ended(end) => self.request_seconds.of(end).record(seconds),
        }
    }

    /// An answer to a call of the OpenAI API began.
    pub fn responded(&self, call: Call, status: u16, seconds: f64) {
        self.http_responses[call.position()].of(StatusClass::of(status)).increment(1);
        self.http_first_byte.of(call).record(seconds);
    }

    /// Something was not taken from a client.
    pub fn refused(&self, listener: Listener, why: Refusal) {
        self.refusals[listener.position()].of(why).increment(1);
    }

    /// Files changed, and were read again.
    pub fn security_reloaded(&self, material: Material, outcome: Reload) {
        self.security_reloads[material.position()].of(outcome).increment(1);
    }

    /// When a certificate in use expires, in seconds since 1970; no number where none is in use.
    pub fn certificate_expires(&self, certificate: Certificate, at: Option<i64>) {
        self.certificate_expiry.of(certificate).set(at.map_or(f64::NAN, |at| at as f64));
    }

    /// Sets what is looked up only when someone asks.
    pub fn totals(&self, in_flight: usize, index: &IndexStats) {
        self.in_flight.set(in_flight as f64);
        self.index_blocks.set(index.blocks as f64);
        self.index_entries.set(index.entries as f64);
        self.index_bytes.set(index.bytes as f64);
        if let Some(process) = &self.process {
            process.look();
        }
    }

    /// Sets what waits in a class.
    pub fn queued(&self, priority: Priority, queued: Queued) {
        let class = Class::from(priority);
        self.queued.of(class).set(queued.requests as f64);
        self.held.of(class).set(queued.held as f64);
        self.queued_tokens.of(class).set(queued.tokens as f64);
        self.queued_bytes.of(class).set(queued.bytes as f64);
    }

    /// Requests refused so far for want of room.
    pub fn shed_so_far(&self) -> u64 {
        ShedReason::ALL.iter().map(|&reason| self.shed.of(reason).get()).sum()
    }

    /// What was counted so far.
    pub fn read(&self, in_flight: usize) -> Totals {
        Totals {
            requests: self.decisions.of(Outcome::Routed).get(),
            routed: Cached {
                prompt_tokens: self.prompt_tokens.get(),
                best_tokens: self.overlap_tokens.of(Of::Best).get(),
                chosen_tokens: self.overlap_tokens.of(Of::Chosen).get(),
            },
            compared: {
                let Named { known, gone } = &*self.named.lock();
                known.values().fold(*gone, |sum, instance| sum.plus(&instance.compared()))
            },
            in_flight: in_flight as u64,
            ttft: self.ttft.read(),
        }
    }

    /// All of it, in Prometheus's text format.
    pub fn render(&self) -> String {
        self.registry.render()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_place_is_given_away_is_shown_no_more_and_still_counted() {
        let metrics = Metrics::new(["a", "b"], &routing::Config::default());
        metrics.instance(0).delivered_tokens.increment(5);
        metrics.instance(1).delivered_tokens.increment(7);
        // One that moved keeps its series, as long as it is somewhere.
        metrics.join(2, "a", "model");
        metrics.join(0, "c", "other");
        let delivered = || metrics.read(0).compared.delivered_tokens;
        assert!(metrics.render().contains("{instance=\"a\"") && delivered() == 12);
        metrics.join(2, "d", "model");
        let page = metrics.render();
        assert!(!page.contains("instance=\"a\"") && page.contains("{instance=\"c\",model=\"other\"} 1"), "{page}");
        assert_eq!(delivered(), 12);
        // It comes back, and begins anew.
        metrics.join(3, "a", "model");
        assert!(metrics.render().contains("warmpath_delivered_tokens_total{instance=\"a\"} 0\n"));
    }

    #[test]
    fn every_declared_metric_is_rendered_with_help_and_names_are_unique() {
        let metrics = Metrics::new(["a", "b"], &routing::Config::default());
        metrics.decided(Outcome::Routed, None, 3e-6);
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
