//! Each instance in turn: the usual baseline, even in requests and blind to everything else.

use super::{Policy, View};

pub(super) struct RoundRobin;

impl Policy for RoundRobin {
    fn choose(&self, view: &View<'_>) -> usize {
        (view.sequence % view.candidates.len() as u64) as usize
    }
}
