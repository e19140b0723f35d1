//! The router with what serving adds to it: a clock, names, metrics.

use super::clock::Clock;
use super::telemetry::labels::{LearnProblem, Outcome};
use super::telemetry::metrics::{Metrics, Routed};
use crate::config::Config;
use crate::routing::{Decision, Fact, InstanceId, InstanceState, Knowledge, LearnError, Request, RouteError, Router};
use std::sync::atomic::{AtomicBool, Ordering};

/// One router, shared by everything that serves it.
pub struct Core {
    router: Router,
    clock: Clock,
    members: Vec<Member>,
    metrics: Metrics,
    draining: AtomicBool,
}

/// A configured instance.
#[derive(Debug)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its base URL.
    pub url: String,
    connected: AtomicBool,
}

impl Member {
    /// Whether its cache events are subscribed to at the moment.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }
}

impl Core {
    /// A router that knows the configured instances, in the order of their ids.
    pub(super) fn new(config: &Config) -> Result<Self, LearnError> {
        let core = Core {
            router: Router::new(config.routing),
            clock: Clock::start(),
            members: config.instances.iter().map(member).collect(),
            metrics: Metrics::new(config.instances.iter().map(|instance| instance.name.as_str())),
            draining: AtomicBool::new(false),
        };
        for (position, instance) in config.instances.iter().enumerate() {
            // Beyond u16 the saturated id is out of the router's range, and is refused as such.
            let id = InstanceId(u16::try_from(position).unwrap_or(u16::MAX));
            let knowledge = if instance.kv_events.is_some() { Knowledge::Degraded } else { Knowledge::Approximate };
            core.learn(Fact::Joined { instance: id, model: &instance.model, knowledge })?;
        }
        Ok(core)
    }

    /// Places a request now, and counts it.
    pub fn route(&self, request: &Request<'_>) -> Result<Decision, RouteError> {
        let began = self.clock.now();
        let decided = self.router.route(request, began);
        let seconds = self.clock.now().since(began).as_secs_f64();
        match &decided {
            Ok(decision) => {
                let routed = Routed {
                    prompt_tokens: decision.prompt_tokens,
                    overlap_tokens: decision.overlap_tokens,
                    best_overlap_tokens: decision.best_overlap_tokens,
                };
                self.metrics.decided(Outcome::Routed, Some(&routed), seconds);
            }
            Err(error) => self.metrics.decided(error.into(), None, seconds),
        }
        decided
    }

    /// Takes in a fact now, and counts what did not fit.
    pub fn learn(&self, fact: Fact<'_>) -> Result<(), LearnError> {
        let learned = self.router.learn(fact, self.clock.now());
        if let Err(error) = &learned {
            self.metrics.learn_error(LearnProblem::from(error));
        }
        learned
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

    /// Every metric, in Prometheus's text format.
    pub fn render_metrics(&self) -> String {
        let index = self.router.index_stats();
        self.metrics.totals(self.router.in_flight(), index.blocks, index.entries);
        for state in self.instances() {
            let metrics = self.metrics.instance(state.instance.index());
            metrics.knowledge.only(state.knowledge.into());
            metrics.cached_blocks.set(self.router.cached_blocks(state.instance) as f64);
        }
        self.metrics.render()
    }

    /// Whether new requests are still welcome.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(super) fn set_connected(&self, instance: InstanceId, connected: bool) {
        self.member(instance).connected.store(connected, Ordering::Relaxed);
        self.metrics.instance(instance.index()).connected.set(if connected { 1.0 } else { 0.0 });
    }
}

fn member(instance: &crate::config::Instance) -> Member {
    Member { name: instance.name.clone(), url: instance.url.clone(), connected: AtomicBool::new(false) }
}
