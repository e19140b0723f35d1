//! Whether batches are missing, from their sequence numbers alone.
//!
//! A publisher numbers its batches from 0 and says nothing about its own incarnation, so a restart shows only as numbers
//! going back. One that restarts while we are away, and has counted past where it was before we are back, looks like a gap,
//! or like nothing at all when it is at exactly the next number.

/// The sequence numbers of one publisher, as far as they came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Order {
    last: Option<u64>,
    reconnected: bool,
    /// Batches up to here were replayed on this connection, and may come live as well.
    replayed: Option<u64>,
}

/// What a batch's sequence number says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It is the one after the last, or the first of all: nothing is missing.
    Next,
    /// It came already.
    Duplicate,
    /// This many before it did not come.
    Gap {
        /// At least one.
        missed: u64,
    },
    /// The publisher counts anew, and this many since it began did not come.
    Restart {
        /// Zero when this is its first one.
        missed: u64,
    },
}

impl Order {
    /// A new connection was made: the publisher at its end may be another one.
    pub fn reconnected(&mut self) {
        self.reconnected = true;
        self.replayed = None;
    }

    /// All that was published so far was replayed.
    pub fn replayed(&mut self) {
        self.reconnected = false;
        self.replayed = self.last;
    }

    /// The publisher is another one than before: what it counts has not begun.
    pub fn restarted(&mut self) {
        *self = Order::default();
    }

    /// The number of the last batch that came.
    pub fn last(&self) -> Option<u64> {
        self.last
    }

    /// Takes in the number of a batch that came.
    pub fn arrived(&mut self, sequence: u64) -> Arrival {
        let reconnected = std::mem::take(&mut self.reconnected);
        if self.replayed.is_some_and(|replayed| sequence <= replayed) {
            return Arrival::Duplicate;
        }
        self.replayed = None;
        let arrival = match self.last {
            None if sequence == 0 => Arrival::Next,
            None => Arrival::Gap { missed: sequence },
            // One connection does not repeat a message; a publisher that restarted may well be at the same number.
            Some(last) if sequence == last && !reconnected => Arrival::Duplicate,
            Some(last) if sequence <= last => Arrival::Restart { missed: sequence },
            Some(last) if sequence == last + 1 => Arrival::Next,
            Some(last) => Arrival::Gap { missed: sequence - last - 1 },
        };
        self.last = Some(sequence);
        arrival
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each batch says; `None` stands for a reconnection.
    fn check(arrivals: &[(Option<u64>, Option<Arrival>)]) {
        let mut order = Order::default();
        for &(sequence, expected) in arrivals {
            let said = match sequence {
                Some(sequence) => Some(order.arrived(sequence)),
                None => {
                    order.reconnected();
                    None
                }
            };
            assert_eq!(said, expected, "at {sequence:?} of {arrivals:?}");
        }
    }

    fn batch(sequence: u64, arrival: Arrival) -> (Option<u64>, Option<Arrival>) {
        (Some(sequence), Some(arrival))
    }

    const RECONNECTION: (Option<u64>, Option<Arrival>) = (None, None);

    #[test]
    fn from_the_start_nothing_is_missing() {
        check(&[RECONNECTION, batch(0, Arrival::Next), batch(1, Arrival::Next), RECONNECTION, batch(2, Arrival::Next)]);
    }

    #[test]
    fn coming_late_and_losing_some_are_gaps() {
        check(&[batch(3, Arrival::Gap { missed: 3 }), batch(4, Arrival::Next), batch(9, Arrival::Gap { missed: 4 })]);
    }

    #[test]
    fn numbers_that_go_back_are_a_restart() {
        check(&[batch(0, Arrival::Next), batch(1, Arrival::Next), batch(0, Arrival::Restart { missed: 0 })]);
        check(&[batch(7, Arrival::Gap { missed: 7 }), RECONNECTION, batch(2, Arrival::Restart { missed: 2 })]);
    }

    #[test]
    fn the_same_number_is_a_duplicate_on_one_connection_and_a_restart_on_another() {
        check(&[batch(0, Arrival::Next), batch(0, Arrival::Duplicate), batch(1, Arrival::Next)]);
        check(&[batch(0, Arrival::Next), RECONNECTION, batch(0, Arrival::Restart { missed: 0 })]);
    }

    #[test]
    fn what_was_replayed_may_come_again_until_something_new_does() {
        let mut order = Order::default();
        order.reconnected();
        (0..5).for_each(|sequence| assert_eq!(order.arrived(sequence), Arrival::Next));
        order.replayed();
        (2..5).for_each(|sequence| assert_eq!(order.arrived(sequence), Arrival::Duplicate));
        assert_eq!(order.arrived(5), Arrival::Next);
        assert_eq!(order.arrived(0), Arrival::Restart { missed: 0 });
    }

    #[test]
    fn the_largest_number_does_not_overflow() {
        check(&[batch(u64::MAX, Arrival::Gap { missed: u64::MAX }), batch(0, Arrival::Restart { missed: 0 })]);
        check(&[batch(u64::MAX, Arrival::Gap { missed: u64::MAX }), batch(u64::MAX, Arrival::Duplicate)]);
    }
}
