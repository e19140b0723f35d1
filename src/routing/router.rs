//! The router: two doors, [`Router::route`] and [`Router::learn`].
//!
//! Called one after another, a log of (time, request | fact) reproduces every decision exactly. Called from many
//! threads, choosing and booking are one step under the fleet's lock; the prefix lookup before it takes no lock of ours.
//! Facts about one instance are to be told one after another, in the order in which they happened.

use super::block::{BlockHash, BlockSize, Namespace};
use super::decision::{Decision, RequestId};
use super::error::{LearnError, RouteError};
use super::fact::{Fact, InstanceId, Knowledge, Parent};
use super::fleet::{Booking, Fleet, InstanceState, NoCandidate, cached_tokens};
use super::index::{Attach, ExactIndex, IndexStats, Overlaps};
use super::policy::{Candidate, Dice, Policy, PolicyKind, View};
use super::prefill::PrefillModel;
use super::request::Request;
use super::time::Time;
use parking_lot::Mutex;
use std::cell::RefCell;
use std::time::Duration;

/// What a router is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// Tokens a block; must be the engines' block size.
    pub block_size: BlockSize,
    /// How to choose.
    pub policy: PolicyKind,
    /// What prefill costs at an instance.
    pub prefill: PrefillModel,
    /// Seeds chance and the block hashes.
    pub seed: u64,
    /// A request that was neither finished nor abandoned after this long is given up.
    pub lease: Duration,
    /// Requests in flight, at most.
    pub requests_max: usize,
    /// (block, instance) pairs in the index, at most.
    pub index_entries_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            block_size: BlockSize::DEFAULT,
            policy: PolicyKind::default(),
            prefill: PrefillModel::default(),
            seed: 0,
            lease: Duration::from_secs(600),
            requests_max: 1 << 20,
            index_entries_max: 1 << 26,
        }
    }
}

/// Decides where requests go.
pub struct Router {
    config: Config,
    policy: Box<dyn Policy>,
    index: ExactIndex,
    fleet: Mutex<Fleet>,
}

/// What one decision needs room for, kept by each thread between decisions.
#[derive(Default)]
struct Scratch {
    overlaps: Overlaps,
    candidates: Vec<Candidate>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Router {
    /// A router with no instances.
    pub fn new(config: Config) -> Self {
        let index = ExactIndex::new(config.block_size, config.index_entries_max);
        Router { config, policy: config.policy.build(), index, fleet: Mutex::default() }
    }

    /// What it was made with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Places a request: chooses an instance and books the load there, in one step.
    pub fn route(&self, request: &Request<'_>, now: Time) -> Result<Decision, RouteError> {
        self.route_except(request, &[], now)
    }

    /// As [`route`](Self::route), but to none of `except`: those that failed this very request already.
    pub fn route_except(
        &self,
        request: &Request<'_>,
        except: &[InstanceId],
        now: Time,
    ) -> Result<Decision, RouteError> {
        SCRATCH.with_borrow_mut(|scratch| self.route_with(request, except, now, scratch))
    }

    /// Takes in a fact. An error says what did not fit; the rest of the router goes on as before.
    pub fn learn(&self, fact: Fact<'_>, now: Time) -> Result<(), LearnError> {
        match fact {
            Fact::Joined { instance, model, knowledge } => self.join(instance, model, knowledge),
            Fact::Changed { instance, availability } => {
                known(instance, self.fleet.lock().set_availability(instance, availability))
            }
            Fact::Known { instance, knowledge } => {
                known(instance, self.fleet.lock().set_knowledge(instance, knowledge))
            }
            Fact::Left { instance } => {
                known(instance, self.fleet.lock().leave(instance))?;
                Ok(self.index.leave(instance)?)
            }
            Fact::Stored { instance, parent, blocks, content } => {
                let attach = self.attach(instance, parent)?;
                Ok(self.index.store(instance, attach, blocks, content)?)
            }
            Fact::Removed { instance, blocks } => Ok(self.index.remove(instance, blocks)?),
            Fact::Cleared { instance } => Ok(self.index.clear(instance)?),
            Fact::FirstToken { request } => in_flight(request, self.fleet.lock().first_token(now, request)),
            Fact::Finished { request, output_tokens } => {
                in_flight(request, self.fleet.lock().finish(now, request, output_tokens))
            }
            Fact::Abandoned { request } => in_flight(request, self.fleet.lock().release(now, request)),
            Fact::TimePassed => {
                self.fleet.lock().expire(now, self.config.lease);
                Ok(())
            }
        }
    }

    /// Every instance as it stands, ascending by id.
    pub fn instances(&self, now: Time) -> Vec<InstanceState> {
        self.fleet.lock().states(now)
    }

    /// Requests placed and not ended.
    pub fn in_flight(&self) -> usize {
        self.fleet.lock().in_flight()
    }

    /// How much the index holds.
    pub fn index_stats(&self) -> IndexStats {
        self.index.stats()
    }

    /// Blocks that the index believes an instance to hold.
    pub fn cached_blocks(&self, instance: InstanceId) -> usize {
        self.index.blocks_of(instance)
    }

    fn route_with(
        &self,
        request: &Request<'_>,
        except: &[InstanceId],
        now: Time,
        scratch: &mut Scratch,
    ) -> Result<Decision, RouteError> {
        let prompt_tokens = match request.prompt.tokens() {
            Some(0) => return Err(RouteError::EmptyPrompt),
            Some(tokens) => tokens,
            None => return Err(RouteError::PromptTooLong),
        };
        let Scratch { overlaps, candidates } = scratch;
        self.index.find(&request.prompt, self.root(&request.namespace), overlaps);

        let mut fleet = self.fleet.lock();
        if fleet.in_flight() >= self.config.requests_max {
            return Err(RouteError::TooManyInFlight { limit: self.config.requests_max });
        }
        let cached = cached_tokens(overlaps, self.config.block_size.tokens());
        let model = request.namespace.model;
        fleet
            .candidates(now, model, prompt_tokens, cached, &self.config.prefill, candidates)
            .map_err(|reason| no_candidate(reason, model))?;
        candidates.retain(|candidate| !except.contains(&candidate.instance));
        if candidates.is_empty() {
            return Err(no_candidate(NoCandidate::NoneReady { instances: except.len() }, model));
        }
        let chosen = candidates[self.policy.choose(&self.view(&fleet, now, candidates))];
        let request = fleet.book(
            now,
            Booking {
                instance: chosen.instance,
                prompt_tokens,
                uncached_tokens: prompt_tokens - chosen.overlap_tokens,
                prefill: chosen.prefill,
            },
        );
        Ok(Decision {
            request,
            instance: chosen.instance,
            prompt_tokens,
            overlap_tokens: chosen.overlap_tokens,
            best_overlap_tokens: candidates.iter().map(|candidate| candidate.overlap_tokens).max().unwrap_or(0),
            expected_ttft: chosen.load.prefill_wait + chosen.prefill,
        })
    }

    fn view<'a>(&self, fleet: &Fleet, now: Time, candidates: &'a [Candidate]) -> View<'a> {
        View {
            now,
            candidates,
            sequence: fleet.placed(),
            dice: Dice::new(self.config.seed, fleet.placed()),
            arrivals_per_second: fleet.arrivals_per_second(now),
            expected_output_tokens: fleet.expected_output_tokens(),
            decode_context_seconds: self.config.prefill.decode_context,
        }
    }

    fn join(&self, instance: InstanceId, model: &str, knowledge: Knowledge) -> Result<(), LearnError> {
        if instance.index() >= InstanceId::LIMIT {
            return Err(LearnError::OutOfRange { instance });
        }
        if !self.fleet.lock().join(instance, model, knowledge) {
            return Err(LearnError::AlreadyJoined { instance });
        }
        self.index.join(instance);
        Ok(())
    }

    fn attach(&self, instance: InstanceId, parent: Parent<'_>) -> Result<Attach, LearnError> {
        match parent {
            Parent::Block(block) => Ok(Attach::Block(block)),
            Parent::Root { lora, cache_salt } => {
                let model = self.fleet.lock().model_of(instance).ok_or(LearnError::UnknownInstance { instance })?;
                Ok(Attach::Root(self.root(&Namespace { model: &model, lora, cache_salt })))
            }
        }
    }

    fn root(&self, namespace: &Namespace<'_>) -> BlockHash {
        BlockHash::root(namespace, self.config.block_size, self.config.seed)
    }
}

fn known(instance: InstanceId, known: bool) -> Result<(), LearnError> {
    if known { Ok(()) } else { Err(LearnError::UnknownInstance { instance }) }
}

fn in_flight(request: RequestId, known: bool) -> Result<(), LearnError> {
    if known { Ok(()) } else { Err(LearnError::UnknownRequest { request }) }
}

fn no_candidate(reason: NoCandidate, model: &str) -> RouteError {
    let model = model.to_owned();
    match reason {
        NoCandidate::UnknownModel => RouteError::UnknownModel { model },
        NoCandidate::NoneReady { instances } => RouteError::NoneReady { model, instances },
    }
}
