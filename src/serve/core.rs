//! The router with what serving adds to it: a clock, names, metrics.

use super::clock::Clock;
use super::health::{Check, Health};
use super::journal::Journal;
use super::recorder::Recording;
use super::telemetry::labels::{LearnProblem, LoadRead, Outcome, Reported as ReportedState};
use super::telemetry::metrics::{Metrics, Progress, Routed};
use crate::config::Config;
use crate::routing::{
    Availability, Decision, Fact, InstanceId, InstanceState, Knowledge, LearnError, Prompt, Reported, Request,
    RouteError, Router, Time,
};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// One router, shared by everything that serves it.
pub struct Core {
    router: Router,
    clock: Clock,
    members: Vec<Member>,
    metrics: Metrics,
    draining: AtomicBool,
    only_model: Option<String>,
    recording: Recording,
    journal: Journal,
    settings: Vec<(String, String)>,
}

/// A configured instance.
#[derive(Debug)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its base URL.
    pub url: String,
    /// Which of the data-parallel ranks behind that URL it is, where there are several.
    pub data_parallel_rank: Option<u32>,
    connected: AtomicBool,
    health: Mutex<Health>,
}

impl Member {
    /// Whether its cache events are subscribed to at the moment.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }
}

impl Core {
    /// A router that knows the configured instances, in the order of their ids.
    pub(super) fn new(config: &Config, recording: Recording) -> Result<Self, LearnError> {
        let core = Core {
            router: Router::new(config.routing),
            clock: Clock::start(),
            members: config.instances.iter().map(|instance| member(instance, &config.health)).collect(),
            metrics: Metrics::new(config.instances.iter().map(|instance| instance.name.as_str()), &config.routing),
            draining: AtomicBool::new(false),
            only_model: only_model(&config.instances),
            recording,
            journal: Journal::new(),
            settings: config.settings(),
        };
        for (position, instance) in config.instances.iter().enumerate() {
            let id = id(position);
            let knowledge = if instance.kv_events.is_some() { Knowledge::Degraded } else { Knowledge::Approximate };
            core.learn(Fact::Joined { instance: id, model: &instance.model, knowledge })?;
        }
        Ok(core)
    }

    /// Places a request now, and counts it.
    pub fn route(&self, request: &Request<'_>) -> Result<Decision, RouteError> {
        self.route_except(request, &[])
    }

    /// Places a request now, at none of `except`, and counts it.
    pub fn route_except(&self, request: &Request<'_>, except: &[InstanceId]) -> Result<Decision, RouteError> {
        let began = self.clock.now();
        let decided = self.router.route_except(request, except, began);
        let seconds = self.clock.now().since(began).as_secs_f64();
        match &decided {
            Ok(decision) => {
                self.recording.placed(request, decision, began);
                let routed = Routed {
                    prompt_tokens: decision.prompt_tokens,
                    overlap_tokens: decision.overlap_tokens,
                    best_overlap_tokens: decision.best_overlap_tokens,
                };
                self.metrics.decided(Outcome::Routed, Some(&routed), seconds);
                self.journal.decided(began, decision, is_known(&request.prompt));
            }
            Err(error) => self.metrics.decided(error.into(), None, seconds),
        }
        decided
    }

    /// Takes in a fact now, and counts what did not fit.
    pub fn learn(&self, fact: Fact<'_>) -> Result<(), LearnError> {
        let now = self.clock.now();
        self.recording.learnt(&fact, now);
        let stage = Progress::of(&fact);
        // Looked up first: the end of a request takes its booking with it.
        let booked = stage.and_then(|(request, _)| self.router.booked_at(request));
        let learned = self.router.learn(fact, now);
        if let (Ok(()), Some((request, progress)), Some(booked)) = (&learned, stage, booked) {
            let seconds = now.since(booked).as_secs_f64();
            self.metrics.progressed(progress, seconds);
            self.journal.progressed(request, progress, seconds);
        }
        if let Err(error) = &learned {
            self.metrics.learn_error(LearnProblem::from(error));
        }
        learned
    }

    /// An instance says how loaded it is.
    pub(super) fn reported(&self, instance: InstanceId, load: Reported) {
        let metrics = self.metrics.instance(instance.index());
        metrics.load_reads.of(LoadRead::Read).increment(1);
        metrics.load_reported.of(ReportedState::Running).set(load.running.into());
        metrics.load_reported.of(ReportedState::Waiting).set(load.waiting.into());
        metrics.load_cache_usage.set(load.cache_usage);
        self.learn(Fact::Reported { instance, load }).expect("configured instances never leave");
    }

    /// Whether an instance has requests of ours.
    pub(super) fn has_work(&self, instance: InstanceId) -> bool {
        self.router.requests_at(instance) > 0
    }

    /// The ready instance with least to do, of those that serve `model` where one is given; nothing is booked there.
    pub(super) fn least_loaded(&self, model: Option<&str>, except: &[InstanceId]) -> Result<InstanceId, RouteError> {
        let mut states = self.instances();
        states.retain(|state| model.is_none_or(|model| *state.model == *model));
        let instances = states.len();
        let unnamed = || model.unwrap_or_default().to_owned();
        if instances == 0 {
            return Err(RouteError::UnknownModel { model: unnamed() });
        }
        let free = states
            .iter()
            .filter(|state| state.availability == Availability::Ready && !except.contains(&state.instance));
        let least = free.min_by_key(|state| (state.load.order(), state.instance));
        least.map(|state| state.instance).ok_or_else(|| RouteError::NoneReady { model: unnamed(), instances })
    }

    /// Whether an instance is configured to serve this model.
    pub(super) fn serves(&self, model: &str) -> bool {
        self.router.serves(model)
    }

    /// The model of the fleet, where every instance serves the same one.
    pub(super) fn only_model(&self) -> Option<&str> {
        self.only_model.as_deref()
    }

    /// A check of an instance was made.
    pub(super) fn checked(&self, instance: InstanceId, check: Check) {
        self.change_health(instance, |health, now| health.checked(now, check));
    }

    /// A request failed at an instance in a way that is the instance's fault.
    pub(super) fn failed_at(&self, instance: InstanceId) {
        self.change_health(instance, Health::failed);
    }

    /// A request was answered by an instance.
    pub(super) fn succeeded_at(&self, instance: InstanceId) {
        self.change_health(instance, |health, _| health.succeeded());
    }

    /// Time went by, for every instance's health and every lease.
    pub(super) fn time_passed(&self) {
        for position in 0..self.members.len() {
            self.change_health(id(position), Health::passed);
        }
        self.learn(Fact::TimePassed).expect("time can always pass");
        self.recording.look();
    }

    fn change_health(&self, instance: InstanceId, change: impl FnOnce(&mut Health, Time)) {
        let member = self.member(instance);
        // Told under the lock, so that what is told last is what is so.
        let mut health = member.health.lock();
        let before = health.availability();
        change(&mut health, self.clock.now());
        let availability = health.availability();
        if availability == before {
            return;
        }
        if availability == Availability::Down {
            tracing::warn!(instance = member.name, "it does not answer as it should: no requests go there");
        } else {
            tracing::info!(instance = member.name, ?availability, "its availability changed");
        }
        self.learn(Fact::Changed { instance, availability }).expect("configured instances never leave");
    }

    /// The router itself, to look at.
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// The configured instances, by id.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// A configured instance.
    pub fn member(&self, instance: InstanceId) -> &Member {
        &self.members[instance.index()]
    }

    /// Every instance as it stands now, by id.
    pub fn instances(&self) -> Vec<InstanceState> {
        self.router.instances(self.clock.now())
    }

    /// What happened lately.
    pub(super) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Ends a step of the journal's history.
    pub(super) fn step(&self) {
        self.journal.step(self.clock.now(), self.metrics.read(self.router.in_flight()));
    }

    /// The configuration in force, line by line.
    pub(super) fn settings(&self) -> &[(String, String)] {
        &self.settings
    }

    /// Time since it was made.
    pub(super) fn now(&self) -> Time {
        self.clock.now()
    }

    /// How long ago an instance last said how loaded it is.
    pub fn load_age(&self, state: &InstanceState) -> Option<Duration> {
        state.load.reported_at.map(|at| self.clock.now().since(at))
    }

    /// Every metric, in Prometheus's text format.
    pub fn render_metrics(&self) -> String {
        self.metrics.totals(self.router.in_flight(), &self.router.index_stats());
        for state in self.instances() {
            let metrics = self.metrics.instance(state.instance.index());
            metrics.totals(&state, self.router.cached_blocks(state.instance));
            metrics.cache_blocks_max.set(self.router.approximate_blocks_max(state.instance) as f64);
            metrics.load_foreign.set(state.load.foreign_requests.into());
            metrics.load_age.set(self.load_age(&state).map_or(f64::INFINITY, |age| age.as_secs_f64()));
        }
        self.recording.totals(&self.metrics);
        self.metrics.render()
    }

    /// Whether new requests are still welcome.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// What is recorded, if anything.
    pub(super) fn recording(&self) -> &Recording {
        &self.recording
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(super) fn set_connected(&self, instance: InstanceId, connected: bool) {
        self.member(instance).connected.store(connected, Ordering::Relaxed);
        self.metrics.instance(instance.index()).connected.set(if connected { 1.0 } else { 0.0 });
    }
}

/// Whether a prompt's content can be looked up, and not only its length.
fn is_known(prompt: &Prompt<'_>) -> bool {
    match prompt {
        Prompt::Tokens(_) => true,
        Prompt::Blocks { contents, .. } | Prompt::Guessed { contents, .. } => !contents.is_empty(),
    }
}

fn only_model(instances: &[crate::config::Instance]) -> Option<String> {
    let (first, others) = instances.split_first()?;
    others.iter().all(|other| other.model == first.model).then(|| first.model.clone())
}

/// Beyond u16 the saturated id is out of the router's range, and is refused as such.
fn id(position: usize) -> InstanceId {
    InstanceId(u16::try_from(position).unwrap_or(u16::MAX))
}

fn member(instance: &crate::config::Instance, health: &crate::config::Health) -> Member {
    Member {
        name: instance.name.clone(),
        url: instance.url.clone(),
        data_parallel_rank: instance.data_parallel_rank,
        connected: AtomicBool::new(false),
        health: Mutex::new(Health::new(health.failures_max, health.interval.is_some())),
    }
}
