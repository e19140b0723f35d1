//! Those who wait: bounded, and one of them at a time has the turn to try.
//!
//! What makes room is a fact; whether there is room only the router can tell. So the one who is next is given the turn and
//! tries. Who finds everyone saturated gives it back, and nobody of its pool has the turn until the next fact. Who is
//! [held](Refusal::Held) gives it back too, and others of its pool, who would go elsewhere, may try; by estimate there is room for it
//! at some time, whatever is told until then, and then it has the queue [look](Queue::look).
//!
//! Of one caller, who takes least is first, with the time that it waited counting for it: a request may be overtaken only by those
//! that come within [`PATIENCE`] times as long as its own prefill takes. Where nothing is held that is first come, first served.

use super::line::Line;
use super::{CallerKey, PoolKey, Priority};
use crate::routing::error::RouteError;
use crate::routing::fleet::DecayingRate;
use crate::routing::time::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// One who waits; later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What may wait, in each class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests.
    pub requests_max: usize,
    /// Bytes of their bodies.
    pub bytes_max: usize,
}

/// A request that is to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Its class.
    pub priority: Priority,
    /// Whose it is.
    pub caller: CallerKey,
    /// Which instances may take it.
    pub pool: PoolKey,
    /// Prompt tokens: what its caller and its class pay when it is admitted.
    pub tokens: u32,
    /// What is held of it meanwhile.
    pub bytes: usize,
}

/// Why one has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// All that may take it have as much as they should be given.
    Saturated {
        /// Its own prefill, by estimate.
        prefill: Duration,
    },
    /// Whoever would get it has enough to do for now.
    Held {
        /// Its own prefill, by estimate.
        prefill: Duration,
        /// By estimate there is room for it after so long.
        room_in: Duration,
    },
}

impl Refusal {
    /// Where it is one, and not an error that waiting does not mend.
    pub fn of(error: &RouteError) -> Option<Self> {
        match *error {
            RouteError::Saturated { prefill } => Some(Refusal::Saturated { prefill }),
            RouteError::Held { prefill, room_in } => Some(Refusal::Held { prefill, room_in }),
            RouteError::UnknownModel { .. }
            | RouteError::NoneReady { .. }
            | RouteError::EmptyPrompt
            | RouteError::PromptTooLong
            | RouteError::TooManyInFlight { .. } => None,
        }
    }

    /// Its own prefill, by estimate.
    pub fn prefill(&self) -> Duration {
        match *self {
            Refusal::Saturated { prefill } | Refusal::Held { prefill, .. } => prefill,
        }
    }

    /// Whether not all that may take it are saturated.
    pub fn is_held(&self) -> bool {
        match self {
            Refusal::Saturated { .. } => false,
            Refusal::Held { .. } => true,
        }
    }
}

impl From<Refusal> for RouteError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Saturated { prefill } => RouteError::Saturated { prefill },
            Refusal::Held { prefill, room_in } => RouteError::Held { prefill, room_in },
        }
    }
}

/// It cannot wait: its class is full, and nobody in it holds more than its caller would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Those who had to leave for one with less.
pub type Displaced = Vec<Ticket>;

/// What waits in a class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queued {
    /// Requests.
    pub requests: usize,
    /// Of these, how many are held: not all that may take them are saturated.
    pub held: usize,
    /// Their prompt tokens.
    pub tokens: u64,
    /// Bytes of their bodies.
    pub bytes: usize,
}

/// How one waited that was admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waited {
    /// How long.
    pub time: Duration,
    /// Whether it was held at last, rather than without room anywhere.
    pub was_held: bool,
}

/// Who waits, and whose turn it is.
#[derive(Debug)]
pub struct Queue {
    limits: Limits,
    pools: BTreeMap<PoolKey, Pool>,
    entries: BTreeMap<Ticket, Entry>,
    held: [Held; Priority::ALL.len()],
    tickets: u64,
    turn: Option<Turn>,
    /// A round begins with each fact that may have made room. The first is 1.
    round: u64,
    next_look: Option<Time>,
    /// Where the pool served last stood.
    served: u64,
    drained: DecayingRate,
}

#[derive(Debug)]
struct Entry {
    ask: Ask,
    since: Time,
    /// When it is due among those of its caller.
    due: Time,
    is_held: bool,
}

#[derive(Clone, Copy, Debug)]
struct Turn {
    ticket: Ticket,
    round: u64,
}

#[derive(Debug, Default)]
struct Pool {
    line: Line,
    /// Tokens admitted: of two pools that want the same instance, who has least is next.
    pass: u64,
    /// No room in this round.
    blocked: bool,
    /// How many more may try in this round.
    tries: u32,
    drained: DecayingRate,
}

#[derive(Debug, Default)]
struct Held {
    queued: Queued,
    callers: BTreeMap<CallerKey, Holding>,
}

#[derive(Debug, Default)]
struct Holding {
    tickets: BTreeSet<Ticket>,
    bytes: usize,
}

/// How many seconds later a request may come and still go first, for each second that its prefill takes less.
pub const PATIENCE: f64 = 3.0;
/// Estimates of room are looked after no more closely than this.
pub const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Of a pool's requests that are held, how many try in a round: the most urgent.
const TRIES_MAX: u32 = 64;
/// Nobody is told to come back sooner, or later, than this.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// A rate that was watched for less is as if it had been watched for this long.
const WATCHED_SECONDS_MIN: f64 = 1.0;

impl Queue {
    /// An empty one.
    pub fn new(limits: Limits) -> Self {
        Queue {
            limits,
            pools: BTreeMap::new(),
            entries: BTreeMap::new(),
            held: Default::default(),
            tickets: 0,
            turn: None,
            round: 1,
            next_look: None,
            served: 0,
            drained: DecayingRate::default(),
        }
    }

    /// From now on no more than this may wait; who waits already stays.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Lets a request wait that was refused so. Where its class is full, those of the caller that holds most leave for it, latest first, as long as
    /// that caller holds more than this one would.
    pub fn push(&mut self, now: Time, ask: Ask, refusal: &Refusal) -> Result<(Ticket, Displaced), Full> {
        let displaced = self.held[ask.priority.position()].make_room(&self.limits, &ask, &self.entries)?;
        displaced.iter().for_each(|&ticket| {
            self.remove(ticket);
        });
        let ticket = Ticket(self.tickets);
        self.tickets += 1;
        let due = now + refusal.prefill().mul_f64(PATIENCE);
        let entry = Entry { ask, since: now, due, is_held: refusal.is_held() };
        let new = || Pool { pass: self.served, tries: TRIES_MAX, ..Pool::default() };
        let pool = self.pools.entry(ask.pool).or_insert_with(new);
        pool.line.push(ask.priority, ask.caller, (due, ticket), ask.tokens.into());
        // Whoever comes has a try, even where others have used up theirs.
        pool.tries = pool.tries.max(1);
        self.held[ask.priority.position()].add(ticket, &entry);
        self.entries.insert(ticket, entry);
        self.look_after(now, refusal);
        Ok((ticket, displaced))
    }

    /// Gives the turn to who is next; `None` while someone has it, and when nobody is to try before the next fact.
    pub fn next_turn(&mut self) -> Option<Ticket> {
        if self.turn.is_some() {
            return None;
        }
        loop {
            let pools = self.pools.values_mut().filter(|pool| !pool.blocked && pool.tries > 0);
            let pool = pools.min_by_key(|pool| pool.pass)?;
            match pool.line.next(self.round) {
                Some(ticket) => {
                    self.turn = Some(Turn { ticket, round: self.round });
                    return Some(ticket);
                }
                None => pool.tries = 0,
            }
        }
    }

    /// Who had the turn found room. How it waited; `None` when it is gone already.
    pub fn admitted(&mut self, now: Time, ticket: Ticket) -> Option<Waited> {
        let Entry { ask, since, due, is_held } = self.leave(ticket)?;
        let pool = self.pools.get_mut(&ask.pool).expect("whoever waits has a pool");
        pool.line.take(ask.priority, ask.caller, (due, ticket));
        self.served = self.served.max(pool.pass);
        pool.pass += u64::from(ask.tokens);
        pool.drained.add(now, ask.tokens.into());
        self.drained.add(now, ask.tokens.into());
        self.close(ask.pool);
        Some(Waited { time: now.since(since), was_held: is_held })
    }

    /// Who had the turn was refused again, and waits on.
    pub fn held_back(&mut self, now: Time, ticket: Ticket, refusal: &Refusal) {
        let Some(turn) = self.turn.take_if(|turn| turn.ticket == ticket) else {
            return;
        };
        self.look_after(now, refusal);
        let Some(entry) = self.entries.get_mut(&ticket) else { return };
        let queued = &mut self.held[entry.ask.priority.position()].queued;
        queued.held -= usize::from(entry.is_held);
        entry.is_held = refusal.is_held();
        queued.held += usize::from(entry.is_held);
        // What was told in the meantime it may not have seen.
        if turn.round < self.round {
            return;
        }
        let pool = self.pools.get_mut(&entry.ask.pool).expect("whoever waits has a pool");
        match refusal {
            Refusal::Saturated { .. } => pool.blocked = true,
            Refusal::Held { .. } => {
                pool.tries -= 1;
                pool.line.tried(entry.ask.priority, entry.ask.caller, (entry.due, ticket), self.round);
            }
        }
    }

    /// Something happened that may have made room.
    pub fn room(&mut self) {
        self.round += 1;
        for pool in self.pools.values_mut() {
            (pool.blocked, pool.tries) = (false, TRIES_MAX);
        }
    }

    /// When, by estimate, there is room for someone who is held, whatever is told until then.
    pub fn next_look(&self) -> Option<Time> {
        self.next_look
    }

    /// Lets them try again once it is time to. Whether it is.
    pub fn look(&mut self, now: Time) -> bool {
        let is_due = self.next_look.take_if(|at| *at <= now).is_some();
        if is_due {
            self.room();
        }
        is_due
    }

    /// How long one has waited so far; `None` when it is gone already.
    pub fn waited(&self, now: Time, ticket: Ticket) -> Option<Duration> {
        self.entries.get(&ticket).map(|entry| now.since(entry.since))
    }

    /// One gives up; `false` when it is gone already.
    pub fn remove(&mut self, ticket: Ticket) -> bool {
        let Some(Entry { ask, due, .. }) = self.leave(ticket) else {
            return false;
        };
        let pool = self.pools.get_mut(&ask.pool).expect("whoever waits has a pool");
        pool.line.remove(ask.priority, ask.caller, (due, ticket));
        self.close(ask.pool);
        true
    }

    /// Whether someone waits for these instances: who comes now has to wait, too.
    pub fn waits(&self, pool: PoolKey) -> bool {
        self.pools.contains_key(&pool)
    }

    /// Requests that wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What waits in a class.
    pub fn queued(&self, priority: Priority) -> Queued {
        self.held[priority.position()].queued
    }

    /// How long the one that waits longest has waited.
    pub fn longest_wait(&self, now: Time) -> Duration {
        self.entries.first_key_value().map_or(Duration::ZERO, |(_, entry)| now.since(entry.since))
    }

    /// When one that cannot wait may find room: what waits for these instances, by how fast such tokens were admitted lately.
    pub fn retry_after(&self, now: Time, pool: PoolKey, tokens: u32) -> Duration {
        let (least, most) = RETRY_AFTER;
        let (rate, waiting) = match self.pools.get(&pool) {
            Some(pool) => (&pool.drained, pool.line.tokens()),
            None => (&self.drained, self.held.iter().map(|held| held.queued.tokens).sum()),
        };
        let seconds = (waiting + u64::from(tokens)) as f64 / rate.per_second_over(now, WATCHED_SECONDS_MIN);
        Duration::try_from_secs_f64(seconds).unwrap_or(most).clamp(least, most)
    }

    fn look_after(&mut self, now: Time, refusal: &Refusal) {
        if let Refusal::Held { room_in, .. } = *refusal {
            let at = now + room_in + LOOK_EVERY;
            self.next_look = Some(self.next_look.map_or(at, |sooner| sooner.min(at)));
        }
    }

    fn leave(&mut self, ticket: Ticket) -> Option<Entry> {
        let entry = self.entries.remove(&ticket)?;
        self.held[entry.ask.priority.position()].remove(ticket, &entry);
        self.turn.take_if(|turn| turn.ticket == ticket);
        self.next_look.take_if(|_| self.entries.is_empty());
        Some(entry)
    }

    fn close(&mut self, pool: PoolKey) {
        if self.pools.get(&pool).is_some_and(|pool| pool.line.is_empty()) {
            self.pools.remove(&pool);
        }
    }
}

impl Held {
    fn add(&mut self, ticket: Ticket, Entry { ask, is_held, .. }: &Entry) {
        self.queued.requests += 1;
        self.queued.held += usize::from(*is_held);
        self.queued.tokens += u64::from(ask.tokens);
        self.queued.bytes += ask.bytes;
        let holding = self.callers.entry(ask.caller).or_default();
        holding.tickets.insert(ticket);
        holding.bytes += ask.bytes;
    }

    fn remove(&mut self, ticket: Ticket, Entry { ask, is_held, .. }: &Entry) {
        self.queued.requests -= 1;
        self.queued.held -= usize::from(*is_held);
        self.queued.tokens -= u64::from(ask.tokens);
        self.queued.bytes -= ask.bytes;
        let holding = self.callers.get_mut(&ask.caller).expect("whoever waits holds something");
        holding.tickets.remove(&ticket);
        holding.bytes -= ask.bytes;
        if holding.tickets.is_empty() {
            self.callers.remove(&ask.caller);
        }
    }

    /// Who is to leave, so that it fits.
    fn make_room(&self, limits: &Limits, ask: &Ask, entries: &BTreeMap<Ticket, Entry>) -> Result<Displaced, Full> {
        let (mut requests, mut bytes) = (self.queued.requests + 1, self.queued.bytes.saturating_add(ask.bytes));
        let mut displaced = Vec::new();
        if requests <= limits.requests_max && bytes <= limits.bytes_max {
            return Ok(displaced);
        }
        if limits.requests_max == 0 || ask.bytes > limits.bytes_max {
            return Err(Full);
        }
        let mut holdings: BTreeMap<CallerKey, (usize, usize)> =
            self.callers.iter().map(|(&caller, holding)| (caller, (holding.tickets.len(), holding.bytes))).collect();
        let own = holdings.remove(&ask.caller).unwrap_or_default();
        let own = (own.0 + 1, own.1 + ask.bytes);
        while requests > limits.requests_max || bytes > limits.bytes_max {
            // By what is short.
            let by_bytes = bytes > limits.bytes_max;
            let size = |(requests, bytes): &(usize, usize)| if by_bytes { *bytes } else { *requests };
            let most = holdings.iter_mut().max_by_key(|(_, holding)| size(holding));
            let (caller, holding) = most.filter(|(_, holding)| size(holding) > size(&own)).ok_or(Full)?;
            let tickets = &self.callers[caller].tickets;
            let latest = *tickets.iter().nth(holding.0 - 1).expect("it holds so many");
            let freed = entries[&latest].ask.bytes;
            *holding = (holding.0 - 1, holding.1 - freed);
            (requests, bytes) = (requests - 1, bytes - freed);
            displaced.push(latest);
        }
        Ok(displaced)
    }
}
