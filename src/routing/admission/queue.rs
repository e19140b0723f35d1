//! Those who wait: bounded, and one of them at a time has the turn to try.
//!
//! What makes room is a fact; whether there is room only the router can tell. So the one who is next is given the turn and
//! tries; who finds no room gives it back, and nobody of its pool has the turn until the next fact.

use super::line::Line;
use super::{CallerKey, PoolKey, Priority};
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
    /// Their prompt tokens.
    pub tokens: u64,
    /// Bytes of their bodies.
    pub bytes: usize,
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
    /// Facts so far that may have made room.
    facts: u64,
    /// Where the pool served last stood.
    served: u64,
    drained: DecayingRate,
}

#[derive(Debug)]
struct Entry {
    ask: Ask,
    since: Time,
}

#[derive(Clone, Copy, Debug)]
struct Turn {
    ticket: Ticket,
    facts: u64,
}

#[derive(Debug, Default)]
struct Pool {
    line: Line,
    /// Tokens admitted: of two pools that want the same instance, who has least is next.
    pass: u64,
    /// No room since the last fact.
    blocked: bool,
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
            facts: 0,
            served: 0,
            drained: DecayingRate::default(),
        }
    }

    /// From now on no more than this may wait; who waits already stays.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Lets a request wait. Where its class is full, those of the caller that holds most leave for it, latest first, as long as
    /// that caller holds more than this one would.
    pub fn push(&mut self, now: Time, ask: Ask) -> Result<(Ticket, Displaced), Full> {
        let displaced = self.held[ask.priority.position()].make_room(&self.limits, &ask, &self.entries)?;
        displaced.iter().for_each(|&ticket| {
            self.remove(ticket);
        });
        let ticket = Ticket(self.tickets);
        self.tickets += 1;
        let pool = self.pools.entry(ask.pool).or_insert_with(|| Pool { pass: self.served, ..Pool::default() });
        pool.line.push(ask.priority, ask.caller, ticket, ask.tokens.into());
        self.held[ask.priority.position()].add(ticket, &ask);
        self.entries.insert(ticket, Entry { ask, since: now });
        Ok((ticket, displaced))
    }

    /// Gives the turn to who is next; `None` while someone has it, and when nobody is to try before the next fact.
    pub fn next_turn(&mut self) -> Option<Ticket> {
        if self.turn.is_some() {
            return None;
        }
        let pools = self.pools.values_mut().filter(|pool| !pool.blocked);
        let ticket = pools.min_by_key(|pool| pool.pass)?.line.next()?;
        self.turn = Some(Turn { ticket, facts: self.facts });
        Some(ticket)
    }

    /// Who had the turn found room. How long it waited; `None` when it is gone already.
    pub fn admitted(&mut self, now: Time, ticket: Ticket) -> Option<Duration> {
        let Entry { ask, since } = self.leave(ticket)?;
        let pool = self.pools.get_mut(&ask.pool).expect("whoever waits has a pool");
        pool.line.take(ask.priority, ask.caller, ticket);
        self.served = self.served.max(pool.pass);
        pool.pass += u64::from(ask.tokens);
        pool.drained.add(now, ask.tokens.into());
        self.drained.add(now, ask.tokens.into());
        self.close(ask.pool);
        Some(now.since(since))
    }

    /// Who had the turn found no room, and waits on.
    pub fn held_back(&mut self, ticket: Ticket) {
        let Some(turn) = self.turn.take_if(|turn| turn.ticket == ticket) else {
            return;
        };
        // What was told in the meantime it may not have seen.
        if turn.facts == self.facts
            && let Some(Entry { ask, .. }) = self.entries.get(&ticket)
        {
            self.pools.get_mut(&ask.pool).expect("whoever waits has a pool").blocked = true;
        }
    }

    /// Something happened that may have made room.
    pub fn room(&mut self) {
        self.facts += 1;
        self.pools.values_mut().for_each(|pool| pool.blocked = false);
    }

    /// One gives up; `false` when it is gone already.
    pub fn remove(&mut self, ticket: Ticket) -> bool {
        let Some(Entry { ask, .. }) = self.leave(ticket) else {
            return false;
        };
        let pool = self.pools.get_mut(&ask.pool).expect("whoever waits has a pool");
        pool.line.remove(ask.priority, ask.caller, ticket);
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

    fn leave(&mut self, ticket: Ticket) -> Option<Entry> {
        let entry = self.entries.remove(&ticket)?;
        self.held[entry.ask.priority.position()].remove(ticket, &entry.ask);
        self.turn.take_if(|turn| turn.ticket == ticket);
        Some(entry)
    }

    fn close(&mut self, pool: PoolKey) {
        if self.pools.get(&pool).is_some_and(|pool| pool.line.is_empty()) {
            self.pools.remove(&pool);
        }
    }
}

impl Held {
    fn add(&mut self, ticket: Ticket, ask: &Ask) {
        self.queued.requests += 1;
        self.queued.tokens += u64::from(ask.tokens);
        self.queued.bytes += ask.bytes;
        let holding = self.callers.entry(ask.caller).or_default();
        holding.tickets.insert(ticket);
        holding.bytes += ask.bytes;
    }

    fn remove(&mut self, ticket: Ticket, ask: &Ask) {
        self.queued.requests -= 1;
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
