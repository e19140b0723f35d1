//! Mooncake's conductor: the least time to first token, queued prefill and the uncached part of this one.
//!
//! Absent: its migration of hot prefixes, which needs a transfer between instances. Source: Qin et al., USENIX FAST 2025,
//! Algorithm 1.

use super::{Policy, View, smallest_of_random};

pub(super) struct Mooncake;

impl Policy for Mooncake {
    fn choose(&self, view: &View<'_>) -> usize {
        smallest_of_random(view, |candidate| candidate.load.prefill_wait_seconds + candidate.prefill_seconds)
    }
}
