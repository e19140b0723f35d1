//! The fewest requests in flight. Equals share evenly: the one that was given fewer requests so far goes first.

use super::{Policy, View, smallest};

pub(super) struct LeastLoaded;

impl Policy for LeastLoaded {
    fn choose(&self, view: &View<'_>) -> usize {
        smallest(view, |a, b| a.load.order().cmp(&b.load.order()))
    }
}
