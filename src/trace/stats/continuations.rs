//! Conversations of a trace that names none, as far as prompts show them.

use super::distribution::Distribution;
use serde::Serialize;
use std::collections::HashMap;
use std::time::Duration;

/// Requests that begin with all blocks but the last of an earlier one, two at least: the last one is partial and changes as
/// soon as an answer is appended, and a single block is what a service begins every prompt with.
///
/// A rule of thumb: of some forty such rules it is the one that finds the shares which were published of the two whole Mooncake
/// traces (33.0 % and 36.2 %), whose own rule is not known.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Continued {
    /// Of all requests, theirs.
    pub share: f64,
    /// From the latest request that they begin with, in seconds.
    pub gap_seconds: Distribution,
}

/// Finds them. Remembers one entry a request.
#[derive(Default)]
pub(super) struct Continuations {
    /// When a request came of which this block was the last but one.
    open: HashMap<u32, Duration>,
    gaps: Vec<f64>,
    requests: usize,
}

impl Continuations {
    const BLOCKS_MIN: usize = 2;

    /// Takes the blocks of the next request, numbered so that a number stands for a block and all before it.
    pub(super) fn add(&mut self, blocks: &[u32], at: Duration) {
        self.requests += 1;
        let beginnings = blocks.iter().skip(Self::BLOCKS_MIN - 1).rev();
        if let Some(parent_at) = beginnings.filter_map(|block| self.open.get(block)).next() {
            self.gaps.push((at - *parent_at).as_secs_f64());
        }
        if let [beginning @ .., _] = blocks
            && let [.., last] = beginning
        {
            self.open.insert(*last, at);
        }
    }

    /// What was found in a trace of `requests`; `None` where some of them said what they continue.
    pub(super) fn finish(self, requests: usize) -> Option<Continued> {
        (self.requests == requests && requests > 0).then(|| Continued {
            share: self.gaps.len() as f64 / requests as f64,
            gap_seconds: Distribution::of(self.gaps),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_with_all_but_the_last_block_of_an_earlier_one_continues_it() {
        let mut continuations = Continuations::default();
        let prompts: [&[u32]; 7] =
            [&[0, 1, 2], &[0, 3], &[0, 4], &[0, 1, 5, 6], &[0, 1, 5, 7, 8], &[], &[0, 1, 5, 7, 9]];
        for (prompt, second) in prompts.into_iter().zip(0..) {
            continuations.add(prompt, Duration::from_secs(second * second));
        }
        let continued = continuations.finish(7).unwrap();
        // Of the first one, then of that; the last one continues the fifth. Only the first block is common to the others.
        assert_eq!((continued.gap_seconds.count, continued.gap_seconds.max), (3, 20.0));
        assert_eq!(continued.share, 3.0 / 7.0);
        assert_eq!(Continuations::default().finish(1), None);
    }
}
