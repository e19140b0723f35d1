//! The longest cached prefix, whatever the load; ties go to the least loaded.
//!
//! Where all prompts share a head, this sends nearly everything to the one instance that saw the first of them. It is
//! here as the bound on cache hits, and as the warning.

use super::{Policy, View, smallest};

pub(super) struct LongestPrefix;

impl Policy for LongestPrefix {
    fn choose(&self, view: &View<'_>) -> usize {
        smallest(view, |a, b| b.overlap_tokens.cmp(&a.overlap_tokens).then_with(|| a.load.order().cmp(&b.load.order())))
    }
}
