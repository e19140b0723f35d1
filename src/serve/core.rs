//! The router with what serving adds to it: a clock, names, metrics.

use super::admission::{Admission, makes_room};
use super::clock::Clock;
use super::health::{Check, Health};
use super::journal::Journal;
use super::members::{JoinError, Member, Members};
use super::news::News;
use super::recorder::Recording;
use super::status::{Found, Reloaded};
use super::telemetry::labels::{Label, LearnProblem, LoadRead, Outcome, ReloadOutcome, Reported as ReportedState};
use super::telemetry::metrics::{Metrics, Progress, Routed};
use super::telemetry::spans::Spans;
use super::upstream::ApiKeyError;
use crate::config::{self, Config, Protocol};
use crate::routing::admission::Priority;
use crate::routing::{
    Availability, Decision, Explanation, Fact, InstanceId, InstanceState, Knowledge, LearnError, Prompt, Reported,
    Request, RouteError, Router, Time,
};
use opentelemetry_otlp::ExporterBuildError;
use parking_lot::{Mutex, RwLock};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// One router, shared by everything that serves it.
pub struct Core {
    router: Router,
    clock: Clock,
    members: Members,
    health: config::Health,
    metrics: Metrics,
    draining: AtomicBool,
    recording: Recording,
    journal: Journal,
    news: News,
    admission: Admission,
    settings: RwLock<Vec<(String, String)>>,
    limits: RwLock<(config::Http, config::Logs)>,
    operation: Mutex<Operation>,
    spans: OnceLock<Spans>,
}

/// What became of the configuration, and who brings instances.
#[derive(Default)]
struct Operation {
    reload: Option<(Time, ReloadOutcome, Vec<String>)>,
    found: Vec<Found>,
    /// What of the wanted fleet could not be had.
    problems: Vec<String>,
}

/// Whether an instance must have room for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// One that may take it must not be saturated, and it is held where the policy holds, as it was for so long.
    Needed { waited: Duration },
    /// Others are before it: it is not placed, and only told why it has to wait.
    Behind,
    /// It was admitted before, and is placed anew.
    Made,
}

/// Why an instance could not be taken into the fleet.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// It has no place.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The router did not take it.
    #[error(transparent)]
    Learn(#[from] LearnError),
    /// The key that it is to be shown cannot be had.
    #[error(transparent)]
    ApiKey(#[from] ApiKeyError),
}

impl Core {
    /// A router that knows the configured instances, in the order of their ids.
    pub(super) fn new(config: &Config, recording: Recording) -> Result<Self, RegisterError> {
        let core = Core {
            router: Router::new(config.routing),
            clock: Clock::start(),
            members: Members::new(),
            health: config.health,
            metrics: Metrics::new([], &config.routing),
            draining: AtomicBool::new(false),
            recording,
            journal: Journal::new(),
            news: News::new(),
            admission: Admission::new(&config.admission),
            settings: RwLock::new(config.settings()),
            limits: RwLock::new((config.http, config.logs)),
            operation: Mutex::default(),
            spans: OnceLock::new(),
        };
        for instance in &config.instances {
            core.join(instance)?;
        }
        Ok(core)
    }

    /// Takes an instance into the fleet.
    pub(super) fn join(&self, instance: &config::Instance) -> Result<InstanceId, RegisterError> {
        let health = Health::new(self.health.failures_max, self.health.interval.is_some());
        let id = self.members.join(instance, health, self.clock.now())?;
        self.metrics.join(id.index(), &instance.name, &instance.model);
        let learned = self.learn(Fact::Joined { instance: id, model: &instance.model, knowledge: at_first(instance) });
        if learned.is_err() && self.members.leave(id) {
            self.members.forgotten(id, self.clock.now());
        }
        Ok(learned.map(|()| id)?)
    }

    /// Takes an instance out of the fleet; what it was given is not waited for.
    pub(super) fn leave(&self, instance: InstanceId) {
        if !self.members.leave(instance) {
            return;
        }
        self.metrics.instance(instance.index()).left();
        match self.learn(Fact::Left { instance }) {
            Ok(()) => self.members.forgotten(instance, self.clock.now()),
            Err(error) => {
                tracing::warn!(instance = self.member(instance).name, %error, "not all of it could be forgotten");
            }
        }
    }

    /// Of what an instance caches is heard otherwise from now on: what was known is forgotten.
    pub(super) fn set_knowledge_of(&self, id: InstanceId, instance: &config::Instance) {
        let learned = self
            .learn(Fact::Known { instance: id, knowledge: at_first(instance) })
            .and_then(|()| self.learn(Fact::Cleared { instance: id }));
        if let Err(error) = learned {
            tracing::debug!(instance = instance.name, %error, "it left just now");
        }
    }

    /// Whether an instance is to end what it has and get nothing new.
    pub(super) fn set_draining(&self, instance: InstanceId, draining: bool) {
        self.change_health(instance, |health, _| health.set_draining(draining));
    }

    /// Places a request now, at any instance, saturated or not, and counts it.
    pub fn route(&self, request: &Request<'_>) -> Result<Decision, RouteError> {
        self.route_among(request, &|_| true, Room::Made)
    }

    /// Whether an instance speaks a protocol and is none of `except`.
    pub(super) fn may(&self, instance: InstanceId, protocol: Protocol, except: &[InstanceId]) -> bool {
        self.members.speaks(instance, protocol) && !except.contains(&instance)
    }

    /// Places a request now, at an instance that `may` take it, and counts it.
    pub(super) fn route_among(
        &self,
        request: &Request<'_>,
        may: &dyn Fn(InstanceId) -> bool,
        room: Room,
    ) -> Result<Decision, RouteError> {
        let began = self.clock.now();
        let decided = match room {
            Room::Needed { waited } => self.router.route_with_room(request, may, waited, began),
            Room::Behind => return Err(self.router.refusal(request, may, began)?.into()),
            Room::Made => self.router.route_among(request, may, began),
        };
        let seconds = self.clock.now().seconds_since(began);
        match &decided {
            Ok(decision) => {
                self.recording.placed(request, decision, began);
                let routed = Routed {
                    prompt_tokens: decision.prompt_tokens,
                    overlap_tokens: decision.overlap_tokens,
                    best_overlap_tokens: decision.best_overlap_tokens,
                };
                self.metrics.decided(Outcome::Routed, Some(&routed), seconds);
                self.metrics.instance(decision.instance.index()).assigned.increment(1);
                self.journal.decided(began, decision, self.member(decision.instance), is_known(&request.prompt));
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
        let makes_room = makes_room(&fact);
        // Looked up first: the end of a request takes its booking with it.
        let booked = stage.and_then(|(request, _)| self.router.booked_at(request));
        let learned = self.news.tell(fact, |fact| self.router.learn(fact, now));
        if let (Ok(()), Some((request, progress)), Some(booked)) = (&learned, stage, booked) {
            let seconds = now.seconds_since(booked);
            self.metrics.progressed(progress, seconds);
            self.journal.progressed(request, progress, seconds);
        }
        match &learned {
            Ok(()) => self.admission.told(makes_room),
            Err(error) => self.metrics.learn_error(LearnProblem::from(error)),
        }
        learned
    }

    /// A token of a routed request came. As that is told for every token, it goes past all that other facts go through.
    pub(super) fn stepped(&self, instance: InstanceId) {
        if let Err(error) = self.router.learn(Fact::Stepped { instance }, self.clock.now()) {
            tracing::debug!(%error, "a step of an instance that left");
        }
    }

    /// An instance says how loaded it is.
    pub(super) fn reported(&self, instance: InstanceId, load: Reported) {
        let metrics = self.metrics.instance(instance.index());
        metrics.load_reads.of(LoadRead::Read).increment(1);
        metrics.load_reported.of(ReportedState::Running).set(load.running.into());
        metrics.load_reported.of(ReportedState::Waiting).set(load.waiting.into());
        metrics.load_cache_usage.set(load.cache_usage);
        if let Err(error) = self.learn(Fact::Reported { instance, load }) {
            tracing::debug!(instance = self.member(instance).name, %error, "it left just now");
        }
    }

    /// Whether an instance has requests of ours.
    pub(super) fn has_work(&self, instance: InstanceId) -> bool {
        self.router.requests_at(instance) > 0
    }

    /// The ready instance with least to do that speaks the OpenAI API, of those that serve `model` where one is given;
    /// nothing is booked there.
    pub(super) fn least_loaded(&self, model: Option<&str>, except: &[InstanceId]) -> Result<InstanceId, RouteError> {
        self.least_loaded_among(model, &|instance| self.may(instance, Protocol::OpenAi, except))
    }

    /// The same of those that `may` be taken.
    pub(super) fn least_loaded_among(
        &self,
        model: Option<&str>,
        may: &dyn Fn(InstanceId) -> bool,
    ) -> Result<InstanceId, RouteError> {
        let mut states = self.instances();
        states.retain(|state| model.is_none_or(|model| *state.model == *model));
        let instances = states.len();
        let unnamed = || model.unwrap_or_default().to_owned();
        if instances == 0 {
            return Err(RouteError::UnknownModel { model: unnamed() });
        }
        let free = states.iter().filter(|state| state.availability == Availability::Ready && may(state.instance));
        let least = free.min_by_key(|state| (state.load.order(), state.instance));
        least.map(|state| state.instance).ok_or_else(|| RouteError::NoneReady { model: unnamed(), instances })
    }

    /// Whether an instance is configured to serve this model.
    pub(super) fn serves(&self, model: &str) -> bool {
        self.router.serves(model)
    }

    /// The model of the fleet, where every instance that speaks the OpenAI API serves the same one.
    pub(super) fn only_model(&self) -> Option<Arc<str>> {
        self.members.only_model(Protocol::OpenAi)
    }

    /// The model of all instances that speak a protocol, where it is one.
    pub(super) fn only_model_of(&self, protocol: Protocol) -> Option<Arc<str>> {
        self.members.only_model(protocol)
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
        for (instance, _) in self.members.joined() {
            self.change_health(instance, Health::passed);
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
        if member.has_joined()
            && let Err(error) = self.learn(Fact::Changed { instance, availability })
        {
            tracing::debug!(instance = member.name, %error, "it left just now");
        }
    }

    /// The router itself, to look at.
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// The instances of the fleet, by id.
    pub fn members(&self) -> impl Iterator<Item = (InstanceId, Arc<Member>)> {
        self.members.joined()
    }

    /// The instance at an id, whether it is still in the fleet or left.
    pub fn member(&self, instance: InstanceId) -> Arc<Member> {
        self.members.get(instance)
    }

    /// Every instance as it stands now, by id.
    pub fn instances(&self) -> Vec<InstanceState> {
        self.router.instances(self.clock.now())
    }

    /// What a request that [`route_among`](Self::route_among) placed now would be placed by. Nothing is booked or counted.
    pub(super) fn explain(
        &self,
        request: &Request<'_>,
        may: &dyn Fn(InstanceId) -> bool,
    ) -> Result<Explanation, RouteError> {
        self.router.explain(request, may, self.clock.now())
    }

    /// What changes in the fleet.
    pub(super) fn news(&self) -> &News {
        &self.news
    }

    /// Those who wait for an instance to have room.
    pub(super) fn admission(&self) -> &Admission {
        &self.admission
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
    pub(super) fn settings(&self) -> Vec<(String, String)> {
        self.settings.read().clone()
    }

    /// Another configuration is in force.
    pub(super) fn set_settings(&self, settings: Vec<(String, String)>) {
        *self.settings.write() = settings;
    }

    /// How requests are forwarded.
    pub(super) fn http(&self) -> config::Http {
        self.limits.read().0
    }

    /// What is logged.
    pub(super) fn logs(&self) -> config::Logs {
        self.limits.read().1
    }

    /// Requests that come from here on are forwarded, and logged, otherwise.
    pub(super) fn set_limits(&self, http: config::Http, logs: config::Logs) {
        *self.limits.write() = (http, logs);
    }

    /// Has requests traced from here on.
    pub(super) fn trace(&self, config: &config::Tracing) -> Result<(), ExporterBuildError> {
        let spans = Spans::start(config, Arc::clone(&self.metrics.spans))?;
        self.spans.set(spans).map_err(drop).expect("an app starts once");
        Ok(())
    }

    /// What traces them, if anything does.
    pub(super) fn spans(&self) -> Option<&Spans> {
        self.spans.get()
    }

    /// The configuration was read again.
    pub(super) fn reloaded(&self, outcome: ReloadOutcome, problems: Vec<String>) {
        self.metrics.reloaded(outcome);
        self.operation.lock().reload = Some((self.clock.now(), outcome, problems));
    }

    /// How that went, if it was.
    pub(super) fn last_reload(&self) -> Option<Reloaded> {
        let operation = self.operation.lock();
        let (at, outcome, problems) = operation.reload.as_ref()?;
        let age_seconds = self.clock.now().seconds_since(*at);
        Some(Reloaded { outcome: outcome.name().to_owned(), age_seconds, problems: problems.clone() })
    }

    /// What the sources of instances found, and what of it could not be had.
    pub(super) fn set_found(&self, found: Vec<Found>, problems: Vec<String>) {
        self.metrics.fleet_problems.set(problems.len() as f64);
        let mut operation = self.operation.lock();
        operation.found = found;
        operation.problems = problems;
    }

    /// The same, as it was last told.
    pub(super) fn found(&self) -> (Vec<Found>, Vec<String>) {
        let operation = self.operation.lock();
        (operation.found.clone(), operation.problems.clone())
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
            metrics.saturated.set(if self.router.is_saturated(&state.load) { 1.0 } else { 0.0 });
            let member = self.member(state.instance);
            metrics.connected.set(if member.is_connected() { 1.0 } else { 0.0 });
            metrics.breaker.set(if member.health.lock().is_open() { 1.0 } else { 0.0 });
            metrics.load_foreign.set(state.load.foreign_requests.into());
            metrics.load_age.set(self.load_age(&state).map_or(f64::INFINITY, |age| age.as_secs_f64()));
        }
        for priority in Priority::ALL {
            self.metrics.queued(priority, self.admission.queued(priority));
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
        self.news.stop();
        self.admission.stop();
    }

    /// What is recorded, if anything.
    pub(super) fn recording(&self) -> &Recording {
        &self.recording
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(super) fn set_connected(&self, instance: InstanceId, connected: bool) {
        self.member(instance).set_connected(connected);
    }
}

/// How far the index is to be believed about an instance before anything was heard from it.
fn at_first(instance: &config::Instance) -> Knowledge {
    if instance.kv_events.is_some() { Knowledge::Degraded } else { Knowledge::Approximate }
}

/// Whether a prompt's content can be looked up, and not only its length.
fn is_known(prompt: &Prompt<'_>) -> bool {
    match prompt {
        Prompt::Tokens(_) => true,
        Prompt::Blocks { contents, .. } | Prompt::Guessed { contents, .. } => !contents.is_empty(),
    }
}
