//! The instances, and what each has been given to do.
//!
//! A decision books its load here before it is returned, in the same step as the choice, so a burst of equal requests
//! cannot all see the same idle instance. Every booking is a [`Reservation`], ended exactly once: by its end, by its
//! instance leaving, or by its lease running out. Estimates are whole nanoseconds, so that what is added can be
//! subtracted again and an idle instance reads exactly zero.

mod footprint;
mod lateness;
mod load;
mod pace;
mod promptness;
mod rate;
mod sessions;
mod steps;

pub use footprint::Footprint;
pub use load::{Load, Reported};
pub(super) use rate::DecayingRate;
pub(super) use steps::Steps;

use super::decision::RequestId;
use super::fact::{Availability, InstanceId, Knowledge};
use super::index::Use;
use super::policy::Candidate;
use super::prefill::PrefillModel;
use super::request::SessionKey;
use super::time::{Time, duration};
use footprint::InFlight;
use lateness::Lateness;
use load::{Book, Prefill, Prefilled, Tempo};
use pace::Pace;
use promptness::Promptness;
use sessions::Sessions;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The instances of a router, by id.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    members: BTreeMap<InstanceId, Member>,
    /// By request id, which is also by age: the first one is the oldest.
    reservations: BTreeMap<RequestId, Reservation>,
    arrivals: DecayingRate,
    placed: u64,
    output_tokens: Mean,
    /// Of all instances together: what a new one is believed to be.
    pace: Pace,
    lateness: Lateness,
    promptness: Promptness,
    steps: Arc<Steps>,
    /// Tokens generated over the seconds that took.
    decoding: Pace,
    prefixes: InFlight,
    sessions: Sessions,
}

#[derive(Debug)]
struct Member {
    model: Arc<str>,
    availability: Availability,
    knowledge: Knowledge,
    book: Book,
}

/// The load that one request puts on one instance.
#[derive(Clone, Debug)]
struct Reservation {
    instance: InstanceId,
    prompt_tokens: u32,
    /// When its first token came.
    decoding_since: Option<Time>,
    booked_at: Time,
    footprint: Option<Footprint>,
    overlap_tokens: u32,
    use_before: Option<Use>,
}

/// What was believed of the cache when a request was placed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Believed {
    pub instance: InstanceId,
    pub overlap_tokens: u32,
    /// The use, before this one, of the deepest block that was believed to be there; of instances without events only.
    pub use_before: Option<Use>,
    pub booked_at: Time,
}

/// One instance, as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceState {
    /// Which.
    pub instance: InstanceId,
    /// The model that it serves.
    pub model: Arc<str>,
    /// Whether it takes requests.
    pub availability: Availability,
    /// How far the index is to be believed about it.
    pub knowledge: Knowledge,
    /// What it has to do.
    pub load: Load,
}

/// What a request asks of the instance that is chosen for it.
pub(super) struct Booking {
    pub instance: InstanceId,
    pub prompt_tokens: u32,
    pub overlap_tokens: u32,
    pub footprint: Footprint,
    pub session: Option<SessionKey>,
}

/// What a prompt finds at the instances.
pub(super) struct Asked<'a, C> {
    pub model: &'a str,
    pub prompt_tokens: u32,
    pub block_tokens: u32,
    /// Tokens that the index knows to be cached.
    pub cached: C,
    pub footprint: &'a Footprint,
    pub prefill: &'a PrefillModel,
}

/// Nobody to take a request.
pub(super) enum NoCandidate {
    UnknownModel,
    NoneReady { instances: usize },
}

impl Fleet {
    /// An empty one, that reads when steps ended.
    pub fn new(steps: Arc<Steps>) -> Self {
        Fleet { steps, ..Fleet::default() }
    }

    /// `false` when the id is taken.
    pub fn join(&mut self, instance: InstanceId, model: &str, knowledge: Knowledge) -> bool {
        let free = !self.members.contains_key(&instance);
        if free {
            let availability = Availability::Ready;
            let member = Member { model: Arc::from(model), availability, knowledge, book: Book::default() };
            self.members.insert(instance, member);
        }
        free
    }

    /// `false` when there is no such instance.
    pub fn leave(&mut self, instance: InstanceId) -> bool {
        let prefixes = &mut self.prefixes;
        self.reservations.retain(|_, reservation| {
            let stays = reservation.instance != instance;
            if let (false, Some(footprint)) = (stays, &reservation.footprint) {
                prefixes.remove(instance, footprint);
            }
            stays
        });
        self.sessions.forget(instance);
        self.members.remove(&instance).is_some()
    }

    /// `false` when there is no such instance.
    pub fn set_availability(&mut self, instance: InstanceId, availability: Availability) -> bool {
        self.members.get_mut(&instance).map(|member| member.availability = availability).is_some()
    }

    /// What was known before; `None` when there is no such instance.
    pub fn replace_knowledge(&mut self, instance: InstanceId, knowledge: Knowledge) -> Option<Knowledge> {
        self.members.get_mut(&instance).map(|member| std::mem::replace(&mut member.knowledge, knowledge))
    }

    pub fn knowledge_of(&self, instance: InstanceId) -> Option<Knowledge> {
        self.members.get(&instance).map(|member| member.knowledge)
    }

    /// `false` when there is no such instance.
    pub fn report(&mut self, now: Time, instance: InstanceId, reported: Reported) -> bool {
        self.members.get_mut(&instance).map(|member| member.book.report(now, reported)).is_some()
    }

    /// What was believed when the request was placed; `None` when it is not in flight.
    pub fn believed(&self, request: RequestId) -> Option<Believed> {
        let &Reservation { instance, overlap_tokens, use_before, booked_at, .. } = self.reservations.get(&request)?;
        Some(Believed { instance, overlap_tokens, use_before, booked_at })
    }

    /// When the deepest block that a request is believed to find was used before.
    pub fn remember_use(&mut self, request: RequestId, before: Use) {
        if let Some(reservation) = self.reservations.get_mut(&request) {
            reservation.use_before = Some(before);
        }
    }

    /// Requests placed at an instance and not ended.
    pub fn requests_at(&self, instance: InstanceId) -> u32 {
        self.members.get(&instance).map_or(0, |member| member.book.own_requests())
    }

    /// Where the session's last request went.
    pub fn home(&self, session: SessionKey) -> Option<InstanceId> {
        self.sessions.home(session)
    }

    pub fn model_of(&self, instance: InstanceId) -> Option<Arc<str>> {
        self.members.get(&instance).map(|member| Arc::clone(&member.model))
    }

    pub fn serves(&self, model: &str) -> bool {
        self.members.values().any(|member| *member.model == *model)
    }

    /// Requests placed so far.
    pub fn placed(&self) -> u64 {
        self.placed
    }

    /// Requests placed and not ended.
    pub fn in_flight(&self) -> usize {
        self.reservations.len()
    }

    /// When a request in flight was placed.
    pub fn booked_at(&self, request: RequestId) -> Option<Time> {
        self.reservations.get(&request).map(|reservation| reservation.booked_at)
    }

    pub fn arrivals_per_second(&self, now: Time) -> f64 {
        self.arrivals.per_second(now)
    }

    pub fn expected_output_tokens(&self) -> f64 {
        self.output_tokens.value
    }

    /// How fast the fleet as a whole prefills, beside what the model estimates. Whatever else was believed of it, those instances that
    /// showed first how fast they are would seem to be faster than the rest.
    pub fn pace(&self) -> f64 {
        self.pace.ratio(1.0, 0.0)
    }

    fn tempo<'a>(
        &self,
        instance: InstanceId,
        member: &Member,
        model: &'a PrefillModel,
        fleet_pace: f64,
        late: Duration,
    ) -> Tempo<'a> {
        Tempo {
            model,
            pace: member.book.pace(fleet_pace),
            late,
            step_ended: self.steps.last(instance),
            tokens_per_second: self.decoding.known().unwrap_or(0.0),
        }
    }

    /// How late first tokens are told.
    pub fn late(&self) -> Duration {
        duration(self.lateness.seconds().min(LATE_SECONDS_MAX))
    }

    /// Whether first tokens are told soon enough for the next request to be placed by them.
    pub fn is_prompt(&self, now: Time) -> bool {
        self.promptness.is_prompt(now) && self.late().is_zero()
    }

    /// Fills `candidates` with the instances that may take the prompt, ascending by id. `reach` is room to work in.
    pub fn candidates(
        &self,
        now: Time,
        asked: &Asked<'_, impl Fn(InstanceId) -> u32>,
        reach: &mut Vec<u32>,
        candidates: &mut Vec<Candidate>,
    ) -> Result<(), NoCandidate> {
        candidates.clear();
        self.prefixes.reach(asked.footprint, reach);
        let (fleet_pace, late) = (self.pace(), self.late());
        let mut instances = 0;
        for (&instance, member) in self.members.iter().filter(|(_, member)| &*member.model == asked.model) {
            instances += 1;
            if member.availability == Availability::Ready {
                let in_flight = reach.get(instance.index()).copied().unwrap_or(0) * asked.block_tokens;
                let overlap_tokens = (asked.cached)(instance).max(in_flight);
                let tempo = self.tempo(instance, member, asked.prefill, fleet_pace, late);
                let (book, ahead) = (&member.book, member.book.ahead(now, &tempo));
                let prefill = |cached| tempo.pace * ahead.estimate(&tempo, asked.prompt_tokens, cached);
                candidates.push(Candidate {
                    instance,
                    overlap_tokens,
                    in_flight_tokens: in_flight,
                    knowledge: member.knowledge,
                    prefill_seconds: prefill(overlap_tokens),
                    cold_prefill_seconds: prefill(0),
                    full_step_seconds: tempo.pace * ahead.full_step(&tempo),
                    empty_step_seconds: tempo.pace * ahead.step(&tempo),
                    load: book.load(now, &tempo, ahead),
                });
            }
        }
        match (instances, candidates.is_empty()) {
            (0, _) => Err(NoCandidate::UnknownModel),
            (_, true) => Err(NoCandidate::NoneReady { instances }),
            (_, false) => Ok(()),
        }
    }

    /// Books a request's load. The instance must be in the fleet.
    pub fn book(&mut self, now: Time, booking: Booking, prefill: &PrefillModel) -> RequestId {
        let request = RequestId(self.placed);
        self.placed += 1;
        self.arrivals.add(now, 1.0);
        let Booking { instance, prompt_tokens, overlap_tokens, footprint, session } = booking;
        if let Some(session) = session {
            self.sessions.settle(session, instance);
        }
        let footprint = self.prefixes.add(instance, &footprint).then_some(footprint);
        let (fleet_pace, late) = (self.pace(), self.late());
        let member = self.members.get(&instance).expect("a candidate is in the fleet");
        let tempo = self.tempo(instance, member, prefill, fleet_pace, late);
        let tokens = prompt_tokens - overlap_tokens;
        let ahead = member.book.ahead(now, &tempo);
        let estimate = duration(ahead.estimate(&tempo, prompt_tokens, overlap_tokens));
        let booked = Prefill { request, tokens, prompt_tokens, estimate, booked_at: now };
        if let Some(member) = self.members.get_mut(&instance) {
            member.book.queue(now, booked, &tempo, ahead);
        }
        let reservation = Reservation {
            instance,
            prompt_tokens,
            decoding_since: None,
            booked_at: now,
            footprint,
            overlap_tokens,
            use_before: None,
        };
        self.reservations.insert(request, reservation);
        request
    }

    /// `false` when the request is not in flight, or has had its first token.
    pub fn first_token(&mut self, now: Time, request: RequestId) -> bool {
        let (late, pace) = (self.late(), self.pace());
        let Some(reservation) =
            self.reservations.get_mut(&request).filter(|reservation| reservation.decoding_since.is_none())
        else {
            return false;
        };
        reservation.decoding_since = Some(now);
        let member = self.members.get_mut(&reservation.instance).expect("a leaving instance takes its reservations");
        let Prefilled { taken, estimated, alone } = member.book.prefilled(now, late, request);
        let since_booked = now.seconds_since(reservation.booked_at);
        // Until it is known how late news is, its being late passes for a slow pace.
        let known = if self.lateness.is_known() { pace } else { pace.min(1.0) };
        self.promptness.observe(now, since_booked, estimated * known);
        self.pace.observe(taken, estimated);
        self.steps.ended(reservation.instance, now);
        member.book.decode(now, reservation.prompt_tokens);
        // Where it waited for others, it is not the news that is late.
        if alone.is_some_and(|seconds| self.lateness.observe(since_booked, seconds * pace)) {
            self.pace = Pace::default();
            self.members.values_mut().for_each(|member| member.book.forget_pace());
        }
        true
    }

    /// `false` when the request is not in flight.
    pub fn finish(&mut self, now: Time, request: RequestId, output_tokens: u32) -> bool {
        if let Some(reservation) = self.reservations.get(&request) {
            self.steps.ended(reservation.instance, now);
            if let Some(since) = reservation.decoding_since {
                self.decoding.observe(f64::from(output_tokens.saturating_sub(1)), now.seconds_since(since));
            }
        }
        let known = self.release(now, request);
        if known {
            self.output_tokens.add(f64::from(output_tokens));
        }
        known
    }

    /// `false` when the request is not in flight.
    pub fn release(&mut self, now: Time, request: RequestId) -> bool {
        let late = self.late();
        let Some(reservation) = self.reservations.remove(&request) else {
            return false;
        };
        if let Some(footprint) = &reservation.footprint {
            self.prefixes.remove(reservation.instance, footprint);
        }
        let member = self.members.get_mut(&reservation.instance).expect("a leaving instance takes its reservations");
        match reservation.decoding_since {
            Some(since) => member.book.decoded(since, reservation.prompt_tokens),
            None => {
                member.book.withdraw(now, late, request);
            }
        }
        true
    }

    /// Releases every request booked `lease` ago or longer; returns how many.
    pub fn expire(&mut self, now: Time, lease: Duration) -> usize {
        let mut expired = 0;
        while let Some((&request, oldest)) = self.reservations.first_key_value() {
            if now.since(oldest.booked_at) < lease {
                break;
            }
            self.release(now, request);
            expired += 1;
        }
        expired
    }

    pub fn states(&self, now: Time, prefill: &PrefillModel) -> Vec<InstanceState> {
        let (fleet_pace, late) = (self.pace(), self.late());
        let state = |(&instance, member): (&InstanceId, &Member)| {
            let tempo = self.tempo(instance, member, prefill, fleet_pace, late);
            InstanceState {
                instance,
                model: Arc::clone(&member.model),
                availability: member.availability,
                knowledge: member.knowledge,
                load: member.book.load(now, &tempo, member.book.ahead(now, &tempo)),
            }
        };
        self.members.iter().map(state).collect()
    }
}

/// News is not believed to be later than this.
const LATE_SECONDS_MAX: f64 = 60.0;

/// A mean that forgets slowly: each value moves it by a two-hundredth.
#[derive(Debug)]
struct Mean {
    value: f64,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.value += (value - self.value) / 200.0;
    }
}

impl Default for Mean {
    /// Before anything is known: 256 output tokens, between the means of the traces at hand (28 to 430).
    fn default() -> Self {
        Mean { value: 256.0 }
    }
}
