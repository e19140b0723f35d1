//! Whether the router hears of first tokens while that is still of use.
//!
//! Among a few requests some instance was hardly busy for one of them, and more so where requests are held: the least time, beyond
//! its own prefill, from when one was given to the news of its first token is about how late all such news is. Where answers are
//! not streamed, it is as long as the shortest output takes; where nobody tells of first tokens, there is none. Where every prefill
//! takes seconds nothing is known to be prompt: that a prompt was cached after all, which seconds were estimated for, must not
//! pass for good news.

use crate::routing::time::Time;
use std::time::Duration;

/// News later than this, beyond the prefill, is not prompt: who is held by news of six tenths of a second takes three times as long
/// as the best peer on Qwen-B, and 1.08 times by three tenths.
const PROMPT_SECONDS_MAX: f64 = 0.5;
/// Seconds of a request's own prefill that are allowed for.
const PREFILL_SECONDS_MAX: f64 = 1.0;
/// Prompt news counts for so many first tokens, and for so long.
const NEWS_MAX: u32 = 32;
const AGE_MAX: Duration = Duration::from_secs(30);

/// When news was prompt last.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Promptness {
    prompt_at: Option<Time>,
    /// First tokens that were told since.
    since: u32,
}

impl Promptness {
    /// News of a first token came after so many seconds; its prefill was estimated to take so many.
    pub fn observe(&mut self, now: Time, seconds: f64, prefill: f64) {
        if seconds - prefill.min(PREFILL_SECONDS_MAX) <= PROMPT_SECONDS_MAX {
            *self = Promptness { prompt_at: Some(now), since: 0 };
        } else {
            self.since = self.since.saturating_add(1);
        }
    }

    pub fn is_prompt(&self, now: Time) -> bool {
        self.since < NEWS_MAX && self.prompt_at.is_some_and(|at| now.since(at) <= AGE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_was_told_at_once_among_many_that_waited_is_enough() {
        let at = |seconds: u64| Time::ZERO + Duration::from_secs(seconds);
        let mut promptness = Promptness::default();
        assert!(!promptness.is_prompt(at(0)), "nothing was told yet");
        (0..NEWS_MAX).for_each(|_| promptness.observe(at(9), 8.0, 20.0));
        assert!(!promptness.is_prompt(at(9)));
        promptness.observe(at(10), 0.3, 0.1);
        (1..NEWS_MAX).for_each(|_| promptness.observe(at(10), 8.0, 20.0));
        assert!(promptness.is_prompt(at(10)) && promptness.is_prompt(at(40)));
        assert!(!promptness.is_prompt(at(41)), "nothing is told any more");
        promptness.observe(at(11), 8.0, 20.0);
        assert!(!promptness.is_prompt(at(11)));
    }
}
