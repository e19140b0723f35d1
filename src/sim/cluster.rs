//! A fleet on virtual time, behind the router that serves.
//!
//! Requests come in through [`Cluster::arrive`], in order of time; everything that a live router would be told reaches
//! this one as the same facts, at the moment when vLLM would publish it: cache changes and tokens at the end of a step.

use super::agenda::Agenda;
use super::instance::{CacheEvent, Instance, InstanceConfig, InstanceStats, Progress, TooLarge, Work};
use crate::routing::block::{BlockHash, ContentHash, EngineHash, Namespace};
use crate::routing::{
    self, Content, Decision, Fact, InstanceId, Knowledge, Parent, Prompt, Request, RequestId, RouteError, Router, Time,
};
use std::collections::HashMap;

/// What a cluster is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClusterConfig {
    /// How many instances, all alike; at most [`InstanceId::LIMIT`].
    pub instances: u16,
    /// Each of them.
    pub instance: InstanceConfig,
    /// The router in front.
    pub router: routing::Config,
}

/// A request that comes to the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrival {
    /// When; not before the one before it.
    pub at: Time,
    /// Prompt length; at least one.
    pub prompt_tokens: u32,
    /// Tokens to produce; at least one.
    pub output_tokens: u32,
    /// The content of its full blocks.
    pub contents: Vec<ContentHash>,
}

/// A request that the cluster served.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Served {
    /// When it came.
    pub arrived: Time,
    /// When its first token was there.
    pub first_token: Time,
    /// When its last token was there.
    pub finished: Time,
    /// Tokens produced.
    pub output_tokens: u32,
    /// Prompt tokens that came from the cache, as the instance found.
    pub cached_tokens: u32,
    /// What the router decided, and expected.
    pub decision: Decision,
}

/// Why a request was turned away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The router could not place it.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// No instance could ever hold it.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

/// A router and its simulated instances.
pub struct Cluster {
    router: Router,
    instances: Vec<Instance>,
    /// When each busy instance's step ends.
    agenda: Agenda<InstanceId>,
    flights: HashMap<u64, Flight>,
    served: Vec<Served>,
    /// Kept between steps for their room.
    progress: Vec<Progress>,
    events: Vec<CacheEvent>,
}

struct Flight {
    arrived: Time,
    first_token: Time,
    decision: Decision,
    contents: Vec<ContentHash>,
    names: Vec<EngineHash>,
}

/// The only model in a simulated fleet.
const MODEL: &str = "simulated";

impl Cluster {
    /// A cluster of idle instances with empty caches.
    ///
    /// # Panics
    /// With more instances than a router can know.
    pub fn new(config: ClusterConfig) -> Self {
        let router = Router::new(config.router);
        for instance in (0..config.instances).map(InstanceId) {
            let joined = Fact::Joined { instance, model: MODEL, knowledge: Knowledge::Exact };
            router.learn(joined, Time::ZERO).expect("a new router takes in new instances up to its limit");
        }
        Cluster {
            router,
            instances: (0..config.instances).map(|_| Instance::new(config.instance)).collect(),
            agenda: Agenda::new(),
            flights: HashMap::new(),
            served: Vec::new(),
            progress: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Lets time pass until the request comes, then routes it and gives it to the chosen instance.
    pub fn arrive(&mut self, arrival: Arrival) -> Result<Decision, Refused> {
        let Arrival { at, prompt_tokens, output_tokens, contents } = arrival;
        self.advance(at);
        let prompt = Prompt::Blocks { contents: &contents, tokens: prompt_tokens };
        let request = Request { namespace: Namespace::of_model(MODEL), prompt };
        let decision = self.router.route(&request, at)?;
        let chosen = decision.instance;

        let id = decision.request.0;
        let chain = chain(&contents, self.instances[chosen.index()].config());
        let names = chain.iter().map(|hash| EngineHash(hash.0)).collect();
        if let Err(too_large) = self.instances[chosen.index()].submit(Work { id, prompt_tokens, output_tokens, chain })
        {
            self.tell(Fact::Abandoned { request: decision.request }, at);
            return Err(too_large.into());
        }
        self.flights.insert(id, Flight { arrived: at, first_token: at, decision, contents, names });
        if !self.instances[chosen.index()].is_stepping() {
            self.begin_step(chosen, at);
        }
        Ok(decision)
    }

    /// Lets time pass until `until`.
    pub fn advance(&mut self, until: Time) {
        while self.agenda.next_at().is_some_and(|at| at <= until) {
            let (at, instance) = self.agenda.take_next().expect("it was just looked at");
            self.end_step(instance, at);
            self.begin_step(instance, at);
        }
    }

    /// Lets time pass until all is done.
    pub fn drain(&mut self) {
        self.advance(Time::MAX);
        assert_eq!(self.router.in_flight(), 0, "a drained cluster has nothing in flight");
    }

    /// Takes the requests that were served since this was last called, in order of their end.
    pub fn take_served(&mut self) -> Vec<Served> {
        std::mem::take(&mut self.served)
    }

    /// The router in front.
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// What each instance did so far, by id.
    pub fn instance_stats(&self) -> Vec<InstanceStats> {
        self.instances.iter().map(Instance::stats).collect()
    }

    fn begin_step(&mut self, instance: InstanceId, now: Time) {
        if let Some(end) = self.instances[instance.index()].begin_step(now) {
            self.agenda.add(end, instance);
        }
    }

    fn end_step(&mut self, instance: InstanceId, now: Time) {
        let mut events = std::mem::take(&mut self.events);
        let mut progress = std::mem::take(&mut self.progress);
        self.instances[instance.index()].end_step(&mut progress, &mut events);
        for event in events.drain(..) {
            self.tell_cache(instance, event, now);
        }
        for token in progress.drain(..) {
            self.note(token, now);
        }
        self.events = events;
        self.progress = progress;
    }

    fn tell_cache(&self, instance: InstanceId, event: CacheEvent, now: Time) {
        match event {
            CacheEvent::Removed(hash) => {
                self.tell(Fact::Removed { instance, blocks: &[EngineHash(hash.0)] }, now);
            }
            CacheEvent::Stored { id, first, count } => {
                let flight = &self.flights[&id];
                let blocks = first as usize..(first + count) as usize;
                let parent = match blocks.start.checked_sub(1) {
                    None => Parent::Root { lora: None, cache_salt: None },
                    Some(before) => Parent::Block(flight.names[before]),
                };
                let content = Content::Hashes(&flight.contents[blocks.clone()]);
                self.tell(Fact::Stored { instance, parent, blocks: &flight.names[blocks], content }, now);
            }
        }
    }

    fn note(&mut self, token: Progress, now: Time) {
        if token.generated == 1 {
            self.flights.get_mut(&token.id).expect("a running request is in flight").first_token = now;
            self.tell(Fact::FirstToken { request: RequestId(token.id) }, now);
        }
        if token.finished {
            let flight = self.flights.remove(&token.id).expect("a running request is in flight");
            self.served.push(Served {
                arrived: flight.arrived,
                first_token: flight.first_token,
                finished: now,
                output_tokens: token.generated,
                cached_tokens: token.cached_tokens,
                decision: flight.decision,
            });
            self.tell(Fact::Finished { request: RequestId(token.id), output_tokens: token.generated }, now);
        }
    }

    /// Everything told here is in order and complete, so that nothing may fail to fit.
    fn tell(&self, fact: Fact<'_>, now: Time) {
        if let Err(error) = self.router.learn(fact, now) {
            panic!("the simulated fleet and its router disagree: {error}");
        }
    }
}

/// An engine's own chain over the same contents. Its hashes are its own, too: they differ from the router's.
fn chain(contents: &[ContentHash], config: &InstanceConfig) -> Vec<BlockHash> {
    let mut hash = BlockHash::root(&Namespace::of_model(MODEL), config.block_size, ENGINE_SEED);
    let mut next = |&content: &ContentHash| {
        hash = hash.child(content);
        hash
    };
    contents.iter().map(&mut next).collect()
}

const ENGINE_SEED: u64 = 0x656e_6769_6e65;
