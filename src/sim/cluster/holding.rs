//! Requests that a router holds for a moment, where whoever would get them has enough to do.
//!
//! Placed late, a request finds out more; and among those held the one that takes least is placed first, with the time it waited
//! counting for it.

use super::{Arrival, Cluster, Due, Refused, request};
use crate::routing::{Decision, Placement, Time};
use std::time::Duration;

/// A request that waits for its turn.
pub(super) type Held = Arrival;

/// How many seconds later a request may come, for each second that its prefill takes less.
const PATIENCE: f64 = 3.0;
/// Estimates of room are not looked after more closely than this.
const LOOK_AFTER_MIN: Duration = Duration::from_millis(20);
/// Of those held, how many are tried whenever there may be room: the most urgent.
const TRIED_MAX: usize = 64;

impl Cluster {
    /// Places a request that just came, or holds it.
    pub(super) fn come(
        &mut self,
        router: usize,
        id: u64,
        arrival: Arrival,
        wait_max: Duration,
    ) -> Result<Option<Decision>, Refused> {
        let now = arrival.at;
        match self.routers[router].route_soon(&request(&arrival), &|_| true, wait_max, now)? {
            Placement::Now(decision) => {
                self.give(router, id, arrival, decision, now);
                Ok(Some(decision))
            }
            Placement::Later { prefill, room_in } => {
                let urgency = now + prefill.mul_f64(PATIENCE);
                self.held[router].insert((urgency, id), arrival);
                self.look_later(router, now + room_in);
                Ok(None)
            }
        }
    }

    /// Tries those whose router was told of room since this was last called.
    pub(super) fn place_held(&mut self) {
        for router in 0..self.routers.len() {
            if let (Some(now), Some(wait_max)) = (self.room[router].take(), self.wait_max) {
                while self.place_one(router, wait_max, now) {}
            }
        }
    }

    /// Has a router look for room at some time, whatever it is told until then; one time is enough.
    fn look_later(&mut self, router: usize, at: Time) {
        if !std::mem::replace(&mut self.looks[router], true) {
            self.agenda.add(at + LOOK_AFTER_MIN, Due::Room(router));
        }
    }

    /// `false` when nobody is to be placed.
    fn place_one(&mut self, router: usize, wait_max: Duration, now: Time) -> bool {
        let engine = &self.routers[router];
        let mut tries = self.held[router].iter().take(TRIED_MAX);
        let found =
            tries.find_map(|(key, arrival)| match engine.route_soon(&request(arrival), &|_| true, wait_max, now) {
                Ok(Placement::Now(decision)) => Some((*key, decision)),
                Ok(Placement::Later { .. }) => None,
                Err(error) => unreachable!("it could be placed when it came: {error}"),
            });
        let Some((key, decision)) = found else { return false };
        let arrival = self.held[router].remove(&key).expect("it was just found");
        self.give(router, key.1, arrival, decision, now);
        true
    }
}
