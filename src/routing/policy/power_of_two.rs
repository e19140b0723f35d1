//! Two instances drawn at random, the less loaded of them (Mitzenmacher 2001): nearly as even as asking all, and immune
//! to every sender picking the same least loaded one.

use super::{Policy, View};

pub(super) struct PowerOfTwo;

impl Policy for PowerOfTwo {
    fn choose(&self, view: &View<'_>) -> usize {
        let count = view.candidates.len();
        if count == 1 {
            return 0;
        }
        let mut dice = view.dice;
        let first = dice.below(count);
        let other = dice.below(count - 1);
        let second = if other >= first { other + 1 } else { other };
        let load = |position: usize| view.candidates[position].load.order();
        if load(second) < load(first) { second } else { first }
    }
}
