//! A fleet on virtual time, behind the router that serves.
//!
//! Requests come in through [`Cluster::arrive`], in order of time; everything that a live router would be told reaches
//! this one as the same facts, at the moment when vLLM would publish it: cache changes and tokens at the end of a step. What
//! a request generates is cached, too, full block by full block as decoding goes on: under the contents that the arrival
//! tells, so that the next turn of a conversation hits them, or where it tells none under contents that nobody asks for.
//! [`Conditions`] make that worse: late or lost events, late news of load, several routers that do not know of each other.

mod holding;
mod news;

use super::agenda::Agenda;
use super::eviction::{Category, Foresight};
use super::instance::{Instance, InstanceConfig};
use super::work::{CacheEvent, InstanceStats, Progress, TooLarge, Work};
use crate::routing::block::{BlockHash, BlockSize, ContentHash, EngineHash, Namespace};
use crate::routing::policy::Dice;
use crate::routing::{
    self, Decision, Fact, InstanceId, Knowledge, Prompt, Reported, Request, RouteError, Router, SessionKey, Time,
};
use holding::Holding;
use news::News;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// What a cluster is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClusterConfig {
    /// How many instances, all alike; at most [`InstanceId::LIMIT`].
    pub instances: u16,
    /// Each of them.
    pub instance: InstanceConfig,
    /// The router in front.
    pub router: routing::Config,
    /// How well the routers are told.
    pub conditions: Conditions,
}

/// How well the routers are told what happens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conditions {
    /// How late cache events are.
    pub index_delay: Duration,
    /// The share of cache events that never come, 0 to 1. Nothing asks for them again.
    pub events_lost: f64,
    /// How late what instances report of themselves is: their metrics.
    pub report_delay: Duration,
    /// How late first tokens and ends are. A router through which answers stream sees them at once.
    pub answer_delay: Duration,
    /// Routers, at least one, that share the requests at random and each know of their own only.
    pub routers: u16,
}

impl Default for Conditions {
    /// One router that is told everything at once.
    fn default() -> Self {
        let [index_delay, report_delay, answer_delay] = [Duration::ZERO; 3];
        Conditions { index_delay, events_lost: 0.0, report_delay, answer_delay, routers: 1 }
    }
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
    /// The content of its full blocks. It goes on past the prompt with the blocks that the output will complete, as far as
    /// they are known ahead.
    pub contents: Vec<ContentHash>,
    /// The session that it belongs to.
    pub session: Option<SessionKey>,
    /// What sort of request it is; only some ways to evict care.
    pub category: Category,
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

/// Routers and their simulated instances.
pub struct Cluster {
    routers: Vec<Router>,
    /// By router: requests that it holds.
    held: Vec<Holding>,
    /// Whether they hold any at all.
    holds: bool,
    instances: Vec<Instance>,
    conditions: Conditions,
    seed: u64,
    /// What is to come: ends of steps, and news that is late.
    agenda: Agenda<Due>,
    /// By instance: when what it does now ends. An end of a step at another time was overtaken.
    step_ends: Vec<Option<Time>>,
    flights: HashMap<u64, Flight>,
    arrivals: u64,
    events_told: u64,
    /// By instance: what it said of itself last.
    reported: Vec<Reported>,
    served: Vec<Served>,
    /// By router: whether it was told what may have made room, and nobody was tried since.
    room: Vec<bool>,
    /// Kept between steps for their room.
    progress: Vec<Progress>,
    events: Vec<CacheEvent>,
}

enum Due {
    StepEnd(InstanceId),
    News(News),
    /// By estimate there is room for what this router holds.
    Room(usize),
}

struct Flight {
    router: usize,
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
        let router = |_| {
            let router = Router::new(config.router);
            for instance in (0..config.instances).map(InstanceId) {
                let joined = Fact::Joined { instance, model: MODEL, knowledge: Knowledge::Exact };
                router.learn(joined, Time::ZERO).expect("a new router takes in new instances up to its limit");
            }
            router
        };
        let routers: Vec<Router> = (0..config.conditions.routers.max(1)).map(router).collect();
        Cluster {
            held: routers.iter().map(|_| Holding::new()).collect(),
            holds: config.router.policy_spec().hold().is_some(),
            routers,
            instances: (0..config.instances).map(|_| Instance::new(config.instance)).collect(),
            conditions: config.conditions,
            seed: config.router.seed,
            agenda: Agenda::new(),
            step_ends: vec![None; usize::from(config.instances)],
            flights: HashMap::new(),
            arrivals: 0,
            events_told: 0,
            reported: vec![Reported::default(); usize::from(config.instances)],
            served: Vec::new(),
            room: vec![false; usize::from(config.conditions.routers.max(1))],
            progress: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Tells the instances all that is to come, in order of time, for [`Eviction::Clairvoyant`](super::Eviction).
    pub fn foresee(&mut self, arrivals: impl IntoIterator<Item = Arrival>) {
        let Some(config) = self.instances.first().map(|instance| *instance.config()) else { return };
        let mut future = Foresight::default();
        for arrival in arrivals {
            let prompt = config.block_size.full_blocks(arrival.prompt_tokens) as usize;
            future.add(arrival.at, chain(&arrival.contents[..prompt.min(arrival.contents.len())], &config));
        }
        let future = Arc::new(future);
        for instance in &mut self.instances {
            instance.foresee(future.clone());
        }
    }

    /// Lets time pass until the request comes, then routes it and gives it to the chosen instance. `None` where the router
    /// holds it for a while.
    pub fn arrive(&mut self, arrival: Arrival) -> Result<Option<Decision>, Refused> {
        self.advance(arrival.at);
        let id = self.arrivals;
        self.arrivals += 1;
        let router = Dice::new(self.seed, id).below(self.routers.len());
        if let Some(engine) = self.instances.first() {
            engine.fits(arrival.prompt_tokens, arrival.output_tokens)?;
        }
        let now = arrival.at;
        self.tell_steps(router, now);
        if self.holds {
            return self.come(router, id, arrival);
        }
        let decision = self.routers[router].route(&request(&arrival), now)?;
        self.give(router, id, arrival, decision, now);
        Ok(Some(decision))
    }

    /// Gives a request to the instance that was chosen for it.
    fn give(&mut self, router: usize, id: u64, arrival: Arrival, decision: Decision, now: Time) {
        let Arrival { at: arrived, prompt_tokens, output_tokens, contents, category, .. } = arrival;
        let chosen = decision.instance;
        let engine = &mut self.instances[chosen.index()];
        let config = engine.config();
        let contents = with_output(contents, id, prompt_tokens, output_tokens, config.block_size);
        let chain = chain(&contents, config);
        let names = chain.iter().map(|hash| EngineHash(hash.0)).collect();
        let work = Work { id, at: now, category, prompt_tokens, output_tokens, chain, skips_cache: false };
        engine.submit(work).expect("all instances are alike, and it fits one");
        self.flights.insert(id, Flight { router, arrived, first_token: now, decision, contents, names });
        self.report(chosen, now);
        if !self.instances[chosen.index()].is_stepping() {
            self.begin_step(chosen, now);
        } else if let Some(end) = self.instances[chosen.index()].interrupt(now) {
            self.end_at(chosen, end);
        }
    }

    /// Lets time pass until `until`.
    pub fn advance(&mut self, until: Time) {
        while self.agenda.next_at().is_some_and(|at| at <= until) {
            let (at, due) = self.agenda.take_next().expect("it was just looked at");
            match due {
                Due::StepEnd(instance) if self.step_ends[instance.index()] != Some(at) => {}
                Due::StepEnd(instance) => {
                    self.step_ends[instance.index()] = None;
                    self.end_step(instance, at);
                    self.report(instance, at);
                    self.begin_step(instance, at);
                }
                Due::News(news) => self.tell(&news, at),
                Due::Room(router) => {
                    self.tell_steps(router, at);
                    self.look(router, at);
                }
            }
            for router in 0..self.routers.len() {
                if std::mem::take(&mut self.room[router]) {
                    self.make_room(router, at);
                }
            }
        }
    }

    /// Lets time pass until all is done.
    pub fn drain(&mut self) {
        self.advance(Time::MAX);
        assert!(self.held.iter().all(Holding::is_empty), "a drained cluster holds nothing");
        for router in &self.routers {
            assert_eq!(router.in_flight(), 0, "a drained cluster has nothing in flight");
        }
    }

    /// Takes the requests that were served since this was last called, in order of their end.
    pub fn take_served(&mut self) -> Vec<Served> {
        std::mem::take(&mut self.served)
    }

    /// What each instance did so far, by id.
    pub fn instance_stats(&self) -> Vec<InstanceStats> {
        self.instances.iter().map(Instance::stats).collect()
    }

    fn begin_step(&mut self, instance: InstanceId, now: Time) {
        let engine = &mut self.instances[instance.index()];
        if let Some(end) = engine.begin_step(now) {
            let end = engine.coast(end);
            self.end_at(instance, end);
        }
    }

    fn end_at(&mut self, instance: InstanceId, end: Time) {
        if self.step_ends[instance.index()].replace(end) != Some(end) {
            self.agenda.add(end, Due::StepEnd(instance));
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

    fn tell_cache(&mut self, instance: InstanceId, event: CacheEvent, now: Time) {
        self.events_told += 1;
        let mut dice = Dice::new(!self.seed, self.events_told);
        if self.conditions.events_lost > 0.0 && dice.share() < self.conditions.events_lost {
            return;
        }
        let news = match event {
            CacheEvent::Removed(hash) => News::Removed { instance, block: EngineHash(hash.0) },
            CacheEvent::Stored { id, first, count } => {
                let flight = &self.flights[&id];
                let blocks = first as usize..(first + count) as usize;
                let parent = blocks.start.checked_sub(1).map(|before| flight.names[before]);
                let (names, contents) = (flight.names[blocks.clone()].to_vec(), flight.contents[blocks].to_vec());
                News::Stored { instance, parent, names, contents }
            }
        };
        self.send(news, now, self.conditions.index_delay);
    }

    fn note(&mut self, token: Progress, now: Time) {
        if token.generated == 1 {
            let flight = self.flights.get_mut(&token.id).expect("a running request is in flight");
            flight.first_token = now;
            let news = News::FirstToken { router: flight.router, request: flight.decision.request };
            self.send(news, now, self.conditions.answer_delay);
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
            let (router, request, output_tokens) = (flight.router, flight.decision.request, token.generated);
            self.send(News::Finished { router, request, output_tokens }, now, self.conditions.answer_delay);
        }
    }

    fn report(&mut self, instance: InstanceId, now: Time) {
        let engine = &self.instances[instance.index()];
        let (waiting, running) = (engine.waiting() as u32, engine.running() as u32);
        let load = Reported { waiting, running, cache_usage: engine.cache_usage() };
        if std::mem::replace(&mut self.reported[instance.index()], load) == load {
            return;
        }
        self.send(News::Reported { instance, load }, now, self.conditions.report_delay);
    }

    fn send(&mut self, news: News, now: Time, delay: Duration) {
        if delay.is_zero() {
            self.tell(&news, now);
        } else {
            self.agenda.add(now + delay, Due::News(news));
        }
    }
}

fn request(arrival: &Arrival) -> Request<'_> {
    let prompt = Prompt::Blocks { contents: &arrival.contents, tokens: arrival.prompt_tokens };
    Request { namespace: Namespace::of_model(MODEL), prompt, session: arrival.session }
}

/// With the blocks that decoding fills, and those of the prompt that the trace says nothing of: an engine caches them, and
/// nobody asks for them again. What a request with a longer chain goes on with is known, and stays.
fn with_output(
    mut contents: Vec<ContentHash>,
    id: u64,
    prompt_tokens: u32,
    output_tokens: u32,
    block_size: BlockSize,
) -> Vec<ContentHash> {
    // The last token is sampled but never computed.
    let full = block_size.full_blocks(prompt_tokens.saturating_add(output_tokens - 1)) as usize;
    contents.truncate(full);
    let first = contents.len();
    contents.extend((first..full).map(|position| ContentHash(!((id << OUTPUT_BLOCKS_BITS) | position as u64))));
    contents
}

/// No output has more blocks than this many bits can count.
const OUTPUT_BLOCKS_BITS: u32 = 32;

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
