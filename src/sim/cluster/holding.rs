//! Requests that a router holds for a moment, where whoever would get them has enough to do.
//!
//! Who waits, who is next and when they try is the queue that serves; here is only what waits in it.

use super::{Arrival, Cluster, Due, Refused, request};
use crate::routing::admission::{Ask, CallerKey, Limits, PoolKey, Priority, Queue, Refusal, Ticket};
use crate::routing::{Decision, Time};
use std::collections::BTreeMap;
use std::time::Duration;

/// What waits at a router.
pub(super) struct Holding {
    queue: Queue,
    arrivals: BTreeMap<Ticket, (u64, Arrival)>,
    /// When it is to look for room whatever it is told until then.
    looks_at: Option<Time>,
}

impl Holding {
    pub fn new() -> Self {
        let limits = Limits { requests_max: usize::MAX, bytes_max: usize::MAX };
        Holding { queue: Queue::new(limits), arrivals: BTreeMap::new(), looks_at: None }
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

/// All simulated requests are one caller's, for the same instances.
const POOL: PoolKey = PoolKey(0);

impl Cluster {
    /// Places a request that just came, or holds it.
    pub(super) fn come(&mut self, router: usize, id: u64, arrival: Arrival) -> Result<Option<Decision>, Refused> {
        let (now, engine, asked) = (arrival.at, &self.routers[router], request(&arrival));
        let refusal = if self.held[router].queue.waits(POOL) {
            engine.refusal(&asked, &|_| true, now)?
        } else {
            match engine.route_with_room(&asked, &|_| true, Duration::ZERO, now) {
                Ok(decision) => {
                    self.give(router, id, arrival, decision, now);
                    return Ok(Some(decision));
                }
                Err(error) => Refusal::of(&error).ok_or(error)?,
            }
        };
        let (priority, caller, tokens) = (Priority::Normal, CallerKey(0), arrival.prompt_tokens);
        let holding = &mut self.held[router];
        let ask = Ask { priority, caller, pool: POOL, tokens, bytes: 0 };
        let (ticket, _) = holding.queue.push(now, ask, &refusal).expect("a queue without bounds is never full");
        holding.arrivals.insert(ticket, (id, arrival));
        self.place_held(router, now);
        Ok(None)
    }

    /// Something happened that may have made room at a router.
    pub(super) fn make_room(&mut self, router: usize, now: Time) {
        if !self.held[router].is_empty() {
            self.held[router].queue.room();
            self.place_held(router, now);
        }
    }

    /// By estimate there is room at a router by now.
    pub(super) fn look(&mut self, router: usize, now: Time) {
        self.held[router].looks_at.take_if(|at| *at <= now);
        self.held[router].queue.look(now);
        self.place_held(router, now);
    }

    /// Gives everyone a turn who may have one.
    fn place_held(&mut self, router: usize, now: Time) {
        while let Some(ticket) = self.held[router].queue.next_turn() {
            let holding = &mut self.held[router];
            let waited = holding.queue.waited(now, ticket).expect("whoever has the turn waits");
            let asked = request(&holding.arrivals[&ticket].1);
            match self.routers[router].route_with_room(&asked, &|_| true, waited, now) {
                Ok(decision) => {
                    holding.queue.admitted(now, ticket);
                    let (id, arrival) = holding.arrivals.remove(&ticket).expect("it was just looked at");
                    self.give(router, id, arrival, decision, now);
                }
                Err(error) => {
                    let Some(refusal) = Refusal::of(&error) else {
                        unreachable!("it could be placed when it came: {error}")
                    };
                    holding.queue.held_back(now, ticket, &refusal);
                }
            }
        }
        let holding = &mut self.held[router];
        if let Some(at) = holding.queue.next_look()
            && holding.looks_at.is_none_or(|sooner| at < sooner)
        {
            holding.looks_at = Some(at);
            self.agenda.add(at, Due::Room(router));
        }
    }
}
