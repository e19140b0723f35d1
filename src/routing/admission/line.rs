//! The order of those who wait for the same instances: classes by weight, within a class callers by deficit round robin over
//! tokens (Shreedhar and Varghese, SIGCOMM 1995), of one caller first come, first served.

use super::queue::Ticket;
use super::{CallerKey, Priority};
use std::collections::{BTreeMap, VecDeque};

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
    /// Ascending by ticket.
    waiting: VecDeque<(Ticket, u64)>,
}

impl Line {
    pub fn is_empty(&self) -> bool {
        self.classes.iter().all(|class| class.ring.is_empty())
    }

    /// Tokens that wait.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// The ticket must be later than all before.
    pub fn push(&mut self, priority: Priority, caller: CallerKey, ticket: Ticket, tokens: u64) {
        let class = &mut self.classes[priority.position()];
        if class.ring.is_empty() {
            class.pass = class.pass.max(self.served);
        }
        let flow = class.flows.entry(caller).or_insert_with(|| {
            class.ring.push_back(caller);
            Flow::default()
        });
        flow.waiting.push_back((ticket, tokens));
        self.tokens += tokens;
    }

    /// Who is next; the same one until it is taken or leaves, or someone comes whose class is served first.
    pub fn next(&mut self) -> Option<Ticket> {
        let waiting = self.classes.iter_mut().filter(|class| !class.ring.is_empty());
        // Of equals the most urgent is first.
        waiting.min_by_key(|class| class.pass)?.next()
    }

    /// It was admitted: its class and its caller pay for it.
    pub fn take(&mut self, priority: Priority, caller: CallerKey, ticket: Ticket) {
        let class = &mut self.classes[priority.position()];
        let tokens = class.withdraw(caller, ticket, true);
        self.served = self.served.max(class.pass);
        class.pass += tokens * (SCALE / priority.weight());
        self.tokens -= tokens;
    }

    /// It gave up.
    pub fn remove(&mut self, priority: Priority, caller: CallerKey, ticket: Ticket) {
        self.tokens -= self.classes[priority.position()].withdraw(caller, ticket, false);
    }
}

impl Class {
    fn next(&mut self) -> Option<Ticket> {
        let mut visits = 0;
        loop {
            let flow = self.flows.get_mut(self.ring.front()?).expect("who is in the ring waits");
            let &(ticket, tokens) = flow.waiting.front().expect("a flow is gone when nobody waits in it");
            if flow.deficit >= tokens {
                return Some(ticket);
            }
            if self.visited {
                self.ring.rotate_left(1);
                self.visited = false;
                visits += 1;
                if visits == self.ring.len() {
                    self.skip_rounds();
                }
            } else {
                flow.deficit += QUANTUM_TOKENS;
                self.visited = true;
            }
        }
    }

    /// The rounds in which nobody could be served, all at once: a long prompt takes hundreds.
    fn skip_rounds(&mut self) {
        let missing = |flow: &Flow| flow.waiting.front().map_or(0, |(_, tokens)| tokens.saturating_sub(flow.deficit));
        let rounds = self.flows.values().map(|flow| missing(flow).div_ceil(QUANTUM_TOKENS)).min();
        let idle = rounds.unwrap_or(0).saturating_sub(1) * QUANTUM_TOKENS;
        self.flows.values_mut().for_each(|flow| flow.deficit += idle);
    }

    /// The tokens that it waited with. It must be there.
    fn withdraw(&mut self, caller: CallerKey, ticket: Ticket, pays: bool) -> u64 {
        let flow = self.flows.get_mut(&caller).expect("whoever waits has a flow");
        let at = flow.waiting.binary_search_by_key(&ticket, |(ticket, _)| *ticket).expect("it waits in its flow");
        let (_, tokens) = flow.waiting.remove(at).expect("it was just found");
        if pays {
            flow.deficit = flow.deficit.saturating_sub(tokens);
        } else if let (0, Some((_, next))) = (at, flow.waiting.front()) {
            // What was saved up for it is not for the others, or asking and leaving would pay.
            flow.deficit = flow.deficit.min(*next);
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
