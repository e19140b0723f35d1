//! The order of those who wait for the same instances: classes by weight, within a class callers by deficit round robin over
//! tokens (Shreedhar and Varghese, SIGCOMM 1995), of one caller by [`Place`]: who is due first.
//!
//! Who tried in this round and found no room is passed over until the next one. Its caller keeps what it has saved up for it.

use super::queue::Ticket;
use super::{CallerKey, Priority};
use crate::routing::time::Time;
use std::collections::{BTreeMap, VecDeque};

/// Where one stands among those of its caller: when it is due, then when it came.
pub(super) type Place = (Time, Ticket);

/// What a caller is given in each round: some prompts of ordinary length.
pub const QUANTUM_TOKENS: u64 = 4096;

/// What a token costs a class that has weight 1.
const SCALE: u64 = 16;

#[derive(Debug, Default)]
pub(super) struct Line {
    classes: [Class; Priority::ALL.len()],
    /// Where the class served last stood: one that begins to wait begins here.
    served: u64,
    tokens: u64,
}

#[derive(Debug, Default)]
struct Class {
    /// Tokens served, each by the inverse of the class's weight: who has least is next.
    pass: u64,
    flows: BTreeMap<CallerKey, Flow>,
    /// Callers that wait, the one whose turn it is first.
    ring: VecDeque<CallerKey>,
    /// Whether the first one has had its quantum in this round.
    visited: bool,
}

#[derive(Debug, Default)]
struct Flow {
    deficit: u64,
    waiting: BTreeMap<Place, Waits>,
}

#[derive(Debug)]
struct Waits {
    tokens: u64,
    /// The round in which it tried last.
    tried: u64,
}

impl Flow {
    /// Who of it is next in this round, and with how many tokens.
    fn head(&self, round: u64) -> Option<(Place, u64)> {
        let untried = self.waiting.iter().find(|(_, waits)| waits.tried < round);
        untried.map(|(place, waits)| (*place, waits.tokens))
    }
}

impl Line {
    pub fn is_empty(&self) -> bool {
        self.classes.iter().all(|class| class.ring.is_empty())
    }

    /// Tokens that wait.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// The place must be nobody else's.
    pub fn push(&mut self, priority: Priority, caller: CallerKey, place: Place, tokens: u64) {
        let class = &mut self.classes[priority.position()];
        if class.ring.is_empty() {
            class.pass = class.pass.max(self.served);
        }
        let flow = class.flows.entry(caller).or_insert_with(|| {
            class.ring.push_back(caller);
            Flow::default()
        });
        flow.waiting.insert(place, Waits { tokens, tried: 0 });
        self.tokens += tokens;
    }

    /// Who is next in this round, which is at least 1; the same one until it is taken, leaves or tried, or someone comes who is
    /// served first.
    pub fn next(&mut self, round: u64) -> Option<Ticket> {
        let mut order = [0, 1, 2];
        // Of equals the most urgent is first.
        order.sort_by_key(|&class| (self.classes[class].pass, class));
        order.into_iter().find_map(|class| self.classes[class].next(round))
    }

    /// It found no room in this round.
    pub fn tried(&mut self, priority: Priority, caller: CallerKey, place: Place, round: u64) {
        let flow = self.classes[priority.position()].flows.get_mut(&caller).expect("whoever waits has a flow");
        flow.waiting.get_mut(&place).expect("it waits in its flow").tried = round;
    }

    /// It was admitted: its class and its caller pay for it.
    pub fn take(&mut self, priority: Priority, caller: CallerKey, place: Place) {
        let class = &mut self.classes[priority.position()];
        let tokens = class.withdraw(caller, place, true);
        self.served = self.served.max(class.pass);
        class.pass += tokens * (SCALE / priority.weight());
        self.tokens -= tokens;
    }

    /// It gave up.
    pub fn remove(&mut self, priority: Priority, caller: CallerKey, place: Place) {
        self.tokens -= self.classes[priority.position()].withdraw(caller, place, false);
    }
}

impl Class {
    fn next(&mut self, round: u64) -> Option<Ticket> {
        if self.flows.values().all(|flow| flow.head(round).is_none()) {
            return None;
        }
        let mut visits = 0;
        loop {
            let flow = self.flows.get_mut(self.ring.front()?).expect("who is in the ring waits");
            match flow.head(round) {
                Some(((_, ticket), tokens)) if flow.deficit >= tokens => return Some(ticket),
                Some(_) if !self.visited => {
                    flow.deficit += QUANTUM_TOKENS;
                    self.visited = true;
                }
                // It has had its share of this turn, or all of it tried.
                Some(_) | None => {
                    self.ring.rotate_left(1);
                    self.visited = false;
                    visits += 1;
                    if visits == self.ring.len() {
                        self.skip_turns(round);
                    }
                }
            }
        }
    }

    /// The turns in which nobody could be served, all at once: a long prompt takes hundreds.
    fn skip_turns(&mut self, round: u64) {
        let missing = |flow: &Flow| flow.head(round).map(|(_, tokens)| tokens.saturating_sub(flow.deficit));
        let turns = self.flows.values().filter_map(missing).map(|missing| missing.div_ceil(QUANTUM_TOKENS)).min();
        let idle = turns.unwrap_or(0).saturating_sub(1) * QUANTUM_TOKENS;
        let waiting = self.flows.values_mut().filter(|flow| flow.head(round).is_some());
        waiting.for_each(|flow| flow.deficit += idle);
    }

    /// The tokens that it waited with. It must be there.
    fn withdraw(&mut self, caller: CallerKey, place: Place, pays: bool) -> u64 {
        let flow = self.flows.get_mut(&caller).expect("whoever waits has a flow");
        let was_first = flow.waiting.first_key_value().is_some_and(|(first, _)| *first == place);
        let Waits { tokens, .. } = flow.waiting.remove(&place).expect("it waits in its flow");
        if pays {
            flow.deficit = flow.deficit.saturating_sub(tokens);
        } else if let (true, Some((_, next))) = (was_first, flow.waiting.first_key_value()) {
            // What was saved up for it is not for the others, or asking and leaving would pay.
            flow.deficit = flow.deficit.min(next.tokens);
        }
        if flow.waiting.is_empty() {
            self.flows.remove(&caller);
            let place = self.ring.iter().position(|waiting| *waiting == caller).expect("whoever waits is in the ring");
            self.ring.remove(place);
            self.visited &= place != 0;
        }
        tokens
    }
}
