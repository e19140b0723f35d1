//! Any instance: what every other policy must beat.

use super::{Policy, View};

pub(super) struct Random;

impl Policy for Random {
    fn choose(&self, view: &View<'_>) -> usize {
        let mut dice = view.dice;
        dice.below(view.candidates.len())
    }
}
