//! What was counted until some moment, as the journal tells it.

use super::registry::Counts;

/// Prompt tokens of some requests, and how many of them the index knew to be cached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cached {
    pub prompt_tokens: u64,
    /// At the instance that had most.
    pub best_tokens: u64,
    /// At the chosen one.
    pub chosen_tokens: u64,
}

/// The same of requests whose instance said what it had cached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Compared {
    pub predicted: Cached,
    pub delivered_tokens: u64,
}

impl Cached {
    /// That of both.
    pub fn plus(&self, other: &Cached) -> Cached {
        Cached {
            prompt_tokens: self.prompt_tokens + other.prompt_tokens,
            best_tokens: self.best_tokens + other.best_tokens,
            chosen_tokens: self.chosen_tokens + other.chosen_tokens,
        }
    }
}

impl Compared {
    /// That of both.
    pub fn plus(&self, other: &Compared) -> Compared {
        let predicted = self.predicted.plus(&other.predicted);
        Compared { predicted, delivered_tokens: self.delivered_tokens + other.delivered_tokens }
    }
}

/// What was counted until some moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    pub requests: u64,
    pub routed: Cached,
    pub compared: Compared,
    pub in_flight: u64,
    pub ttft: Counts,
}
