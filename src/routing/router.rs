//! The router: two doors, [`Router::route`] and [`Router::learn`].
//!
//! Called one after another, a log of (time, request | fact) reproduces every decision exactly. Called from many
//! threads, choosing and booking are one step under the fleet's lock; the prefix lookup before it takes no lock of ours.
//! Facts about one instance are to be told one after another, in the order in which they happened.

use super::admission::{Refusal, Saturation};
use super::block::{BlockHash, BlockSize, Namespace};
use super::decision::{Decision, Explanation, RequestId, Unasked};
use super::error::{LearnError, RouteError};
use super::fact::{Fact, InstanceId, Knowledge, Parent};
use super::fleet::{Asked, Booking, Fleet, Footprint, InstanceState, Load, NoCandidate, Steps};
use super::groups::Groups;
use super::hold::Hold;
use super::index::{ApproximateIndex, Attach, ExactIndex, IndexStats, Overlaps};
use super::policy::{Candidate, Dice, Policy, PolicyKind, PolicySpec, Tuning, View};
use super::prefill::PrefillModel;
use super::request::Request;
use super::rules::{Rules, Ruling};
use super::tiers::TierWeights;
use super::time::{Time, duration};
use parking_lot::{Mutex, MutexGuard, RwLock};
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

/// What a router is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// Tokens a block; must be the engines' block size.
    pub block_size: BlockSize,
    /// How to choose.
    pub policy: PolicyKind,
    /// What differs from the policy's defaults.
    pub tuning: Tuning,
    /// What prefill costs at an instance.
    pub prefill: PrefillModel,
    /// Seeds chance and the block hashes.
    pub seed: u64,
    /// A request that was neither finished nor abandoned after this long is given up.
    pub lease: Duration,
    /// Requests in flight, at most.
    pub requests_max: usize,
    /// Memory that the index may take, in bytes.
    pub index_bytes_max: usize,
    /// Blocks that each instance without events is believed to hold, at most: no more than its cache has.
    pub approximate_blocks_max: usize,
    /// What a cached block is worth in each tier.
    pub tier_weights: TierWeights,
    /// When an instance has as much as it should be given; without it, never.
    pub saturation: Option<Saturation>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            block_size: BlockSize::DEFAULT,
            policy: PolicyKind::default(),
            tuning: Tuning::default(),
            prefill: PrefillModel::default(),
            seed: 0,
            lease: Duration::from_secs(600),
            requests_max: 1 << 20,
            index_bytes_max: 4 << 30,
            // A million tokens in blocks of 16: about what an 80 GB GPU caches for an 8-billion-parameter model.
            approximate_blocks_max: 1 << 16,
            tier_weights: TierWeights::default(),
            saturation: None,
        }
    }
}

impl Config {
    /// What of it may change while it is in use.
    pub fn rules(&self) -> Rules {
        let Config { policy, tuning, lease, requests_max, tier_weights, saturation, .. } = *self;
        Rules { policy, tuning, lease, requests_max, tier_weights, saturation }
    }

    /// The policy with its tuning.
    pub fn policy_spec(&self) -> PolicySpec {
        PolicySpec { kind: self.policy, tuning: self.tuning }
    }
}

/// Decides where requests go.
pub struct Router {
    config: Config,
    /// What has changed since, and could again: read once for each decision.
    ruling: RwLock<Arc<Ruling>>,
    index: ExactIndex,
    approximate: ApproximateIndex,
    groups: Groups,
    steps: Arc<Steps>,
    fleet: Mutex<Fleet>,
}

/// What one decision needs room for, kept by each thread between decisions.
#[derive(Default)]
struct Scratch {
    overlaps: Overlaps,
    candidates: Vec<Candidate>,
    reach: Vec<u32>,
}

/// Under what terms a request is placed now.
#[derive(Clone, Copy)]
enum Terms {
    /// Under any.
    Any,
    /// Only where there is room: not all that may take it are saturated, and, unless it waited for too long, nobody holds it.
    Room { waited: Duration },
}

/// What was looked up for a view.
struct Looked<'a> {
    footprint: Footprint,
    root: BlockHash,
    /// Tokens of the prompt that the index knows an instance to have cached.
    cached: &'a dyn Fn(InstanceId) -> u32,
    policy: &'a dyn Policy,
    /// How requests are held, if any are.
    hold: Option<Hold>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Router {
    /// A router with no instances.
    pub fn new(config: Config) -> Self {
        let index = ExactIndex::new(config.block_size, config.index_bytes_max);
        let approximate = ApproximateIndex::new(config.block_size, config.approximate_blocks_max);
        let ruling = RwLock::new(Arc::new(Ruling::from(config.rules())));
        let steps = Arc::new(Steps::default());
        let fleet = Mutex::new(Fleet::new(Arc::clone(&steps)));
        Router { config, ruling, index, approximate, groups: Groups::default(), steps, fleet }
    }

    /// What it was made with, and ruled by since.
    pub fn config(&self) -> Config {
        let Rules { policy, tuning, lease, requests_max, tier_weights, saturation } = self.ruling().rules;
        Config { policy, tuning, lease, requests_max, tier_weights, saturation, ..self.config }
    }

    /// Tokens a block, for good.
    pub fn block_size(&self) -> BlockSize {
        self.config.block_size
    }

    fn ruling(&self) -> Arc<Ruling> {
        Arc::clone(&self.ruling.read())
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
        self.route_among(request, &|instance| !except.contains(&instance), now)
    }

    /// As [`route`](Self::route), but only to instances that `may` take it, whatever the reason.
    pub fn route_among(
        &self,
        request: &Request<'_>,
        may: &dyn Fn(InstanceId) -> bool,
        now: Time,
    ) -> Result<Decision, RouteError> {
        self.route_under(Terms::Any, request, may, now)
    }

    /// As [`route_among`](Self::route_among), but only where there is room: one of these instances is not
    /// [saturated](Config::saturation), and the one that would get it begins it soon enough, if the policy
    /// [holds](PolicySpec::hold). `waited` is how long the request has been waiting for that.
    pub fn route_with_room(
        &self,
        request: &Request<'_>,
        may: &dyn Fn(InstanceId) -> bool,
        waited: Duration,
        now: Time,
    ) -> Result<Decision, RouteError> {
        self.route_under(Terms::Room { waited }, request, may, now)
    }

    /// With what [`route_with_room`](Self::route_with_room) would refuse a request that is to let others go first. Nothing is
    /// booked or remembered.
    pub fn refusal(
        &self,
        request: &Request<'_>,
        may: &dyn Fn(InstanceId) -> bool,
        now: Time,
    ) -> Result<Refusal, RouteError> {
        SCRATCH.with_borrow_mut(|scratch| {
            self.view(request, may, now, scratch, |_, view, looked| {
                let chosen = &view.candidates[looked.policy.choose(view)];
                let refused = self.refused(view, chosen, looked.hold, Duration::ZERO);
                refused.unwrap_or(Refusal::Held { prefill: least_prefill(view), room_in: Duration::ZERO })
            })
        })
    }

    /// Whether an instance with this load has as much as it should be given.
    pub fn is_saturated(&self, load: &Load) -> bool {
        self.ruling().rules.saturation.is_some_and(|saturation| saturation.is_reached(load))
    }

    /// Whether requests are held under the policy in force.
    pub fn holds(&self) -> bool {
        self.ruling().hold.is_some()
    }

    /// What [`route_among`](Self::route_among) would answer now, and what it would weigh. Nothing is booked or remembered.
    pub fn explain(
        &self,
        request: &Request<'_>,
        may: &dyn Fn(InstanceId) -> bool,
        now: Time,
    ) -> Result<Explanation, RouteError> {
        SCRATCH.with_borrow_mut(|scratch| {
            self.view(request, may, now, scratch, |fleet, view, looked| {
                let mut others = fleet.states(now, &self.config.prefill);
                others.retain(|state| {
                    *state.model == *request.namespace.model && view.position_of(state.instance).is_none()
                });
                let unasked = |state: &InstanceState| Unasked {
                    instance: state.instance,
                    availability: state.availability,
                    knowledge: state.knowledge,
                    overlap_tokens: (looked.cached)(state.instance),
                    load: state.load,
                };
                let chosen = &view.candidates[looked.policy.choose(view)];
                Explanation {
                    chosen: chosen.instance,
                    refusal: self.refused(view, chosen, looked.hold, Duration::ZERO),
                    prompt_tokens: view.prompt_tokens,
                    candidates: view.candidates.to_vec(),
                    costs: looked.policy.costs(view),
                    others: others.iter().map(unasked).collect(),
                }
            })
        })
    }

    /// Takes in a fact. An error says what did not fit; the rest of the router goes on as before.
    pub fn learn(&self, fact: Fact<'_>, now: Time) -> Result<(), LearnError> {
        match fact {
            Fact::Joined { instance, model, knowledge } => self.join(instance, model, knowledge),
            Fact::Changed { instance, availability } => {
                known(instance, self.fleet.lock().set_availability(instance, availability))
            }
            Fact::Known { instance, knowledge } => {
                let before = self.fleet.lock().replace_knowledge(instance, knowledge);
                let before = before.ok_or(LearnError::UnknownInstance { instance })?;
                if (before == Knowledge::Approximate) != (knowledge == Knowledge::Approximate) {
                    // What was guessed and what was heard go by different names and cannot replace one another.
                    self.approximate.forget(instance);
                    self.index.clear(instance)?;
                }
                Ok(())
            }
            Fact::Left { instance } => {
                known(instance, self.fleet.lock().leave(instance))?;
                self.approximate.leave(instance);
                self.groups.leave(instance);
                Ok(self.index.leave(instance)?)
            }
            Fact::Stored { instance, tier, parent, blocks, content } => {
                let attach = self.attach(instance, parent)?;
                Ok(self.index.store(instance, tier, attach, blocks, content)?)
            }
            Fact::Copied { instance, tier, blocks } => Ok(self.index.copy(instance, tier, blocks)?),
            Fact::Removed { instance, tier, blocks } => Ok(self.index.remove(instance, tier, blocks)?),
            Fact::GroupStored { instance, group, needs_blocks, blocks } => {
                known(instance, self.fleet.lock().knowledge_of(instance).is_some())?;
                Ok(self.groups.stored(&self.index, instance, group, needs_blocks, blocks)?)
            }
            Fact::GroupRemoved { instance, group, blocks } => Ok(self.groups.removed(instance, group, blocks)?),
            Fact::Cleared { instance } => {
                self.approximate.forget(instance);
                self.groups.clear(instance);
                Ok(self.index.clear(instance)?)
            }
            Fact::Reported { instance, load } => known(instance, self.fleet.lock().report(now, instance, load)),
            Fact::Sized { instance, blocks } => {
                known(instance, self.fleet.lock().knowledge_of(instance).is_some())?;
                Ok(self.approximate.set_size(&self.index, instance, blocks)?)
            }
            Fact::Delivered { request, cached_tokens } => {
                let believed = self.fleet.lock().believed(request).ok_or(LearnError::UnknownRequest { request })?;
                match believed.use_before {
                    Some(before) if cached_tokens < believed.overlap_tokens => {
                        Ok(self.approximate.evicted(&self.index, believed.instance, before, believed.booked_at)?)
                    }
                    Some(_) | None => Ok(()),
                }
            }
            Fact::Stepped { instance } => {
                self.steps.ended(instance, now);
                Ok(())
            }
            Fact::FirstToken { request } => in_flight(request, self.fleet.lock().first_token(now, request)),
            Fact::Finished { request, output_tokens } => {
                in_flight(request, self.fleet.lock().finish(now, request, output_tokens))
            }
            Fact::Abandoned { request } => in_flight(request, self.fleet.lock().release(now, request)),
            Fact::TimePassed => {
                let lease = self.ruling().rules.lease;
                self.fleet.lock().expire(now, lease);
                Ok(())
            }
            Fact::Ruled { rules } => {
                *self.ruling.write() = Arc::new(Ruling::from(rules));
                Ok(())
            }
        }
    }

    /// Every instance as it stands, ascending by id.
    pub fn instances(&self, now: Time) -> Vec<InstanceState> {
        self.fleet.lock().states(now, &self.config.prefill)
    }

    /// Whether an instance of the fleet serves this model, ready or not.
    pub fn serves(&self, model: &str) -> bool {
        self.fleet.lock().serves(model)
    }

    /// Requests placed at an instance and not ended.
    pub fn requests_at(&self, instance: InstanceId) -> u32 {
        self.fleet.lock().requests_at(instance)
    }

    /// Requests placed and not ended.
    pub fn in_flight(&self) -> usize {
        self.fleet.lock().in_flight()
    }

    /// When a request in flight was placed; `None` once it ended.
    pub fn booked_at(&self, request: RequestId) -> Option<Time> {
        self.fleet.lock().booked_at(request)
    }

    /// How much the index holds.
    pub fn index_stats(&self) -> IndexStats {
        self.index.stats()
    }

    /// Blocks that an instance is believed to hold at most, where it publishes no events.
    pub fn approximate_blocks_max(&self, instance: InstanceId) -> usize {
        self.approximate.blocks_max(instance)
    }

    /// Blocks that the index believes an instance to hold.
    pub fn cached_blocks(&self, instance: InstanceId) -> usize {
        self.index.blocks_of(instance)
    }

    fn route_under(
        &self,
        terms: Terms,
        request: &Request<'_>,
        may: &dyn Fn(InstanceId) -> bool,
        now: Time,
    ) -> Result<Decision, RouteError> {
        SCRATCH.with_borrow_mut(|scratch| self.route_with(scratch, terms, request, may, now))
    }

    fn route_with(
        &self,
        scratch: &mut Scratch,
        terms: Terms,
        request: &Request<'_>,
        may: &dyn Fn(InstanceId) -> bool,
        now: Time,
    ) -> Result<Decision, RouteError> {
        let placed =
            self.view(request, may, now, scratch, |mut fleet, view, Looked { footprint, root, policy, hold, .. }| {
                let prompt_tokens = view.prompt_tokens;
                let chosen = view.candidates[policy.choose(view)];
                if let Terms::Room { waited } = terms
                    && let Some(refusal) = self.refused(view, &chosen, hold, waited)
                {
                    return Err(refusal.into());
                }
                let booking = Booking {
                    instance: chosen.instance,
                    prompt_tokens,
                    overlap_tokens: chosen.overlap_tokens,
                    footprint,
                    session: request.session,
                };
                // Of bytes no instance publishes anything.
                let approximate =
                    request.prompt.is_guessed() || fleet.knowledge_of(chosen.instance) == Some(Knowledge::Approximate);
                let booked = fleet.book(now, booking, &self.config.prefill);
                drop(fleet);
                if approximate {
                    // A full index, or an instance that left just now: the decision stands, and less is believed than could be.
                    let sent = self.approximate.sent(&self.index, chosen.instance, root, &request.prompt, now);
                    if let Ok(Some(before)) = sent {
                        self.fleet.lock().remember_use(booked, before);
                    }
                }
                Ok(Decision {
                    request: booked,
                    instance: chosen.instance,
                    prompt_tokens,
                    overlap_tokens: chosen.overlap_tokens,
                    best_overlap_tokens: view.best_overlap_tokens(),
                    expected_ttft: duration(chosen.ttft_seconds()),
                })
            });
        placed?
    }

    /// Why a request that has waited so long is not to be placed at the instance that is chosen for it.
    fn refused(&self, view: &View<'_>, chosen: &Candidate, hold: Option<Hold>, waited: Duration) -> Option<Refusal> {
        // Who is first come is first served where nothing is held.
        let prefill = || hold.map_or(Duration::ZERO, |_| least_prefill(view));
        if view.candidates.iter().all(|candidate| self.is_saturated(&candidate.load)) {
            return Some(Refusal::Saturated { prefill: prefill() });
        }
        let room_in = hold?.room_in(view, chosen, waited)?;
        Some(Refusal::Held { prefill: prefill(), room_in })
    }

    /// What a policy is to see, under the fleet's lock; what `then` makes of it.
    fn view<R>(
        &self,
        request: &Request<'_>,
        may: &dyn Fn(InstanceId) -> bool,
        now: Time,
        scratch: &mut Scratch,
        then: impl FnOnce(MutexGuard<'_, Fleet>, &View<'_>, Looked<'_>) -> R,
    ) -> Result<R, RouteError> {
        let prompt_tokens = match request.prompt.tokens() {
            Some(0) => return Err(RouteError::EmptyPrompt),
            Some(tokens) => tokens,
            None => return Err(RouteError::PromptTooLong),
        };
        let Scratch { overlaps, candidates, reach } = scratch;
        let root = request.prompt.root(self.root(&request.namespace));
        self.index.find(&request.prompt, root, overlaps);
        let block_size = self.config.block_size;
        self.groups.shorten(overlaps, &request.prompt, block_size);
        let mut chain = overlaps.chain(&request.prompt, block_size);
        let block_size = request.prompt.block_size(block_size);
        let footprint = Footprint::of(&mut chain, block_size);

        let ruling = self.ruling();
        let Rules { requests_max, tier_weights, .. } = ruling.rules;
        let fleet = self.fleet.lock();
        if fleet.in_flight() >= requests_max {
            return Err(RouteError::TooManyInFlight { limit: requests_max });
        }
        let model = request.namespace.model;
        let block_tokens = block_size.tokens();
        let cached = |instance| tier_weights.tokens(overlaps, instance, block_tokens);
        let asked =
            Asked { model, prompt_tokens, block_tokens, cached, footprint: &footprint, prefill: &self.config.prefill };
        fleet.candidates(now, &asked, reach, candidates).map_err(|reason| no_candidate(reason, model))?;
        let ready = candidates.len();
        candidates.retain(|candidate| may(candidate.instance));
        if request.prompt.is_guessed() {
            for candidate in candidates.iter_mut() {
                candidate.knowledge = candidate.knowledge.max(Knowledge::Approximate);
            }
        }
        if candidates.is_empty() {
            return Err(no_candidate(NoCandidate::NoneReady { instances: ready }, model));
        }
        let view = View {
            now,
            candidates,
            sequence: fleet.placed(),
            dice: Dice::new(self.config.seed, fleet.placed()),
            prompt_tokens,
            block_tokens,
            head: footprint.head(),
            session: request.session,
            home: request.session.and_then(|session| fleet.home(session)),
            arrivals_per_second: fleet.arrivals_per_second(now),
            expected_output_tokens: fleet.expected_output_tokens(),
            decode_context_seconds: self.config.prefill.decode_context * fleet.pace(),
            decode_step_seconds: self.config.prefill.idle_step_seconds() * fleet.pace(),
        };
        // Told late, nobody knows what is under way, and instances would idle.
        let hold = ruling.hold.filter(|_| fleet.is_prompt(now)).map(|steps| Hold { steps });
        Ok(then(fleet, &view, Looked { footprint, root, cached: &cached, policy: &*ruling.policy, hold }))
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

/// Where most of it is cached.
fn least_prefill(view: &View<'_>) -> Duration {
    duration(view.candidates.iter().map(|candidate| candidate.prefill_seconds).fold(f64::INFINITY, f64::min))
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
