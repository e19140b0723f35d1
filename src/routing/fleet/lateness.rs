//! How late the router hears of first tokens.
//!
//! Where a request finds nothing before it, its first token takes what its prefill takes, and then as long as the news of it takes.
//! Among a few requests some hardly waited: so, of the short prompts and of the long ones, those that took least beyond what was
//! estimated are two points of a straight line, whose slope is the pace and which begins at the lateness. It needs no queue to be
//! known, which cannot be where news is late, nor a pace, which would take the lateness for slowness. What streams through the router
//! is known at once; who only asks it for decisions may tell late.

/// What first tokens told lately.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lateness {
    /// Estimated seconds, on average: a prompt is short below.
    typical: f64,
    short: Least,
    long: Least,
    /// As the last so many tell.
    found: f64,
    seconds: f64,
}

/// Of some first tokens, the one that took least beyond what was estimated.
#[derive(Clone, Copy, Debug, Default)]
struct Least {
    observed: u32,
    taken: f64,
    estimated: f64,
}

/// So many of either kind tell.
const OBSERVED_MIN: u32 = 64;
/// The average moves by this share with each.
const TYPICAL_MOVES: f64 = 0.01;
/// What is not later than this is as good as at once: a step under way when a request comes takes no less.
const AT_ONCE_SECONDS: f64 = 0.1;

impl Least {
    fn observe(&mut self, taken: f64, estimated: f64) {
        if self.observed == 0 || taken - estimated < self.taken - self.estimated {
            (self.taken, self.estimated) = (taken, estimated);
        }
        self.observed += 1;
    }
}

impl Lateness {
    /// A first token was told so many seconds after its request was given. Returns whether what was learnt from first tokens so far
    /// was learnt under a wrong belief of how late they are told.
    pub fn observe(&mut self, taken: f64, estimated: f64) -> bool {
        let moves = if self.typical > 0.0 { TYPICAL_MOVES } else { 1.0 };
        self.typical += (estimated - self.typical) * moves;
        let kind = if estimated > self.typical { &mut self.long } else { &mut self.short };
        kind.observe(taken, estimated);
        if self.short.observed.min(self.long.observed) < OBSERVED_MIN {
            return false;
        }
        let (short, long) = (std::mem::take(&mut self.short), std::mem::take(&mut self.long));
        let slope = (long.taken - short.taken) / (long.estimated - short.estimated).max(f64::MIN_POSITIVE);
        let begins = short.taken - slope.max(0.0) * short.estimated;
        let found = if begins > AT_ONCE_SECONDS { begins } else { 0.0 };
        // Whatever a burst makes wait is not late: twice it must be so.
        let seconds = found.min(std::mem::replace(&mut self.found, found));
        (seconds - std::mem::replace(&mut self.seconds, seconds)).abs() > AT_ONCE_SECONDS
    }

    pub fn seconds(&self) -> f64 {
        self.seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(pace: f64, late: f64) -> f64 {
        let mut lateness = Lateness::default();
        for request in 0..1000 {
            let estimated = 0.05 + 0.01 * f64::from(request % 97);
            // Whoever waits says little of either.
            let wait = f64::from(request % 7) * 0.3;
            lateness.observe(pace * estimated + late + 0.02 + wait, estimated);
        }
        lateness.seconds()
    }

    #[test]
    fn what_is_late_by_a_second_is_told_from_an_instance_that_is_slow() {
        for (pace, late) in [(1.0, 0.0), (3.0, 0.0), (0.1, 0.0), (1.0, 1.0), (2.0, 0.5)] {
            assert!((told(pace, late) - late).abs() < 0.15, "pace {pace}, late {late}: {}", told(pace, late));
        }
    }

    #[test]
    fn what_was_learnt_is_wrong_once_for_each_change() {
        let mut lateness = Lateness::default();
        let mut wrong = |late: f64| {
            (0..1000)
                .filter(|request| {
                    lateness.observe(late + 0.01 * f64::from(request % 97), 0.01 * f64::from(request % 97))
                })
                .count()
        };
        assert_eq!([wrong(0.0), wrong(1.0), wrong(1.05), wrong(0.0)], [0, 1, 0, 1]);
    }

    #[test]
    fn few_observations_and_prompts_that_are_all_alike_say_nothing() {
        let mut lateness = Lateness::default();
        (0..10).for_each(|request| _ = lateness.observe(5.0, 0.1 * f64::from(request)));
        assert_eq!(lateness.seconds(), 0.0);
        let mut lateness = Lateness::default();
        (0..1000).for_each(|_| _ = lateness.observe(5.0, 0.1));
        assert_eq!(lateness.seconds(), 0.0);
    }
}
