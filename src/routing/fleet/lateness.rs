//! How late the router hears of first tokens.
//!
//! A first token takes its own prefill, and then as long as the news of it takes. Most wait for more, but among some hundreds the
//! soonest hardly did: what it took beyond its own is the lateness. It needs no queue to be known, which cannot be where news is late:
//! some request is always answered and not told of. Nor does it need a pace that is right, which cannot be before lateness is known:
//! the soonest are short, and theirs is about a step. What streams through the router is known at once; who only asks it for decisions may
//! tell late.

/// What the soonest of some first tokens took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lateness {
    soonest: f64,
    /// Beyond its own prefill.
    beyond: f64,
    observed: u32,
    /// The same of those before, as far as there were any.
    before: [Option<f64>; GROUPS],
}

/// First tokens of which the soonest counts.
const GROUP: u32 = 256;
/// In a burst everybody waits: the least of so many groups tells.
const GROUPS: usize = 4;
/// What is not later than this is as good as at once: in a fleet that is busy, what waits least seems to be late by most of this.
const AT_ONCE_SECONDS: f64 = 0.1;

impl Default for Lateness {
    fn default() -> Self {
        Lateness { soonest: f64::INFINITY, beyond: 0.0, observed: 0, before: [None; GROUPS] }
    }
}

impl Lateness {
    /// A first token was told so many seconds after its request was given, whose own prefill takes so many. Returns whether what was
    /// learnt from first tokens so far was learnt under a wrong belief of how late they are told.
    pub fn observe(&mut self, taken: f64, own: f64) -> bool {
        if taken < self.soonest {
            (self.soonest, self.beyond) = (taken, (taken - own).max(0.0));
        }
        self.observed += 1;
        if self.observed < GROUP {
            return false;
        }
        let before = self.seconds();
        self.before.rotate_right(1);
        self.before[0] = Some(self.beyond);
        (self.soonest, self.observed) = (f64::INFINITY, 0);
        (self.seconds() - before).abs() > AT_ONCE_SECONDS
    }

    /// Whether enough was told.
    pub fn is_known(&self) -> bool {
        self.before.iter().all(Option::is_some)
    }

    /// None before enough was told.
    pub fn seconds(&self) -> f64 {
        let least = self.before.into_iter().map(Option::unwrap_or_default).fold(f64::INFINITY, f64::min);
        if least > AT_ONCE_SECONDS { least } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tells of so many first tokens, most of which waited; how often it was found that the belief had been wrong.
    fn told(lateness: &mut Lateness, first_tokens: u32, late: f64) -> usize {
        let seconds = |request: u32| 0.02 + 0.05 * f64::from(request % 31) + 0.3 * f64::from(request % 7);
        (0..first_tokens).filter(|request| lateness.observe(seconds(*request) + late, 0.02)).count()
    }

    #[test]
    fn the_least_of_many_waits_is_how_late_the_news_is() {
        for late in [0.0, 0.05, 0.2, 1.0] {
            let mut lateness = Lateness::default();
            told(&mut lateness, 2000, late);
            let expected = if late > AT_ONCE_SECONDS { late } else { 0.0 };
            assert!((lateness.seconds() - expected).abs() < 0.01, "{late}: {}", lateness.seconds());
            assert!(lateness.is_known());
        }
    }

    #[test]
    fn what_was_learnt_is_wrong_once_for_each_change() {
        let mut lateness = Lateness::default();
        let wrong = [0.0, 1.0, 1.05, 0.0].map(|late| told(&mut lateness, 2000, late));
        assert_eq!(wrong, [0, 1, 0, 1]);
    }

    #[test]
    fn prompts_that_all_take_long_are_not_late() {
        let mut lateness = Lateness::default();
        (0..2000).for_each(|request| _ = lateness.observe(0.5 + 0.01 * f64::from(request % 7), 0.5));
        assert_eq!(lateness.seconds(), 0.0);
    }

    #[test]
    fn a_burst_and_a_few_first_tokens_say_nothing() {
        let mut lateness = Lateness::default();
        told(&mut lateness, GROUP * (GROUPS as u32 - 1), 1.0);
        assert_eq!((lateness.seconds(), lateness.is_known()), (0.0, false), "a few");
        told(&mut lateness, GROUP, 0.0);
        told(&mut lateness, GROUP * (GROUPS as u32 - 1), 1.0);
        assert_eq!(lateness.seconds(), 0.0, "a burst");
    }
}
