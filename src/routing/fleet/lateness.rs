//! How late the router hears of first tokens.
//!
//! Where a request finds nothing before it, its first token takes what its prefill takes, and then as long as the news of it takes.
//! So over many such requests, a straight line of the seconds taken over the seconds estimated has the pace as its slope and the
//! lateness where it begins. What streams through the router is known at once; who only asks it for decisions may tell late.

/// A straight line through what was observed, older observations counting less.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lateness {
    weight: f64,
    estimated: f64,
    taken: f64,
    estimated_squared: f64,
    product: f64,
}

/// An observation counts a third after so many more.
const MEMORY: f64 = 200.0;
/// Fewer say nothing.
const OBSERVED_MIN: f64 = 20.0;
/// What is not later than this is as good as at once: a step under way when a request comes takes no less.
const AT_ONCE_SECONDS: f64 = 0.1;
/// The slope is believed to be the pace as firmly as if so many squared seconds had shown it.
const PRIOR: f64 = 0.01;

impl Lateness {
    pub fn observe(&mut self, taken: f64, estimated: f64) {
        let keep = (-1.0 / MEMORY).exp();
        for (sum, new) in [
            (&mut self.weight, 1.0),
            (&mut self.estimated, estimated),
            (&mut self.taken, taken),
            (&mut self.estimated_squared, estimated * estimated),
            (&mut self.product, estimated * taken),
        ] {
            *sum = *sum * keep + new;
        }
    }

    /// In seconds; `pace` is what the slope is believed to be.
    pub fn seconds(&self, pace: f64) -> f64 {
        if self.weight < OBSERVED_MIN {
            return 0.0;
        }
        let mean = |sum: f64| sum / self.weight;
        let variance = mean(self.estimated_squared) - mean(self.estimated).powi(2);
        let covariance = mean(self.product) - mean(self.estimated) * mean(self.taken);
        let slope = (covariance + PRIOR * pace) / (variance.max(0.0) + PRIOR);
        let begins = mean(self.taken) - slope * mean(self.estimated);
        if begins > AT_ONCE_SECONDS { begins } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_late_by_a_second_is_told_from_an_instance_that_is_slow() {
        for (pace, late) in [(1.0, 0.0), (3.0, 0.0), (1.0, 1.0), (2.0, 0.5)] {
            let mut lateness = Lateness::default();
            for request in 0..1000 {
                let estimated = 0.05 + 0.01 * f64::from(request % 97);
                lateness.observe(pace * estimated + late + 0.02, estimated);
            }
            let found = lateness.seconds(1.0);
            assert!((found - late).abs() < 0.15, "pace {pace}, late {late}: {found}");
        }
    }

    #[test]
    fn few_observations_say_nothing() {
        let mut lateness = Lateness::default();
        for _ in 0..10 {
            lateness.observe(5.0, 0.1);
        }
        assert_eq!(lateness.seconds(1.0), 0.0);
    }
}
