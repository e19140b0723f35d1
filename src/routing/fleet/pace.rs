//! How fast an instance really prefills, beside what was estimated.
//!
//! Learnt from first tokens: the seconds from one to the next, while prefills were queued, over the seconds that the model
//! had estimated for them. Several prefills that end in one step count the step once, because it is sums that are compared.
//! So a fleet needs no model of its GPUs that is right, only one that is right up to a factor for each instance.
//!
//! Until an instance has shown its own pace it is taken to be as fast as the fleet. Taken to be as the model says, it would be
//! shunned where the model is too pessimistic: whoever was asked first is known to be faster, is asked again, and the others
//! never get to show theirs.

/// Seconds taken over seconds estimated, lately.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    taken: f64,
    estimated: f64,
    /// First tokens, of which the older ones count less, as in the sums.
    observed: f64,
}

/// First tokens after which one weighs a third.
const MEMORY: f64 = 1000.0;
/// No instance is believed to be further off than this.
const RATIO_MAX: f64 = 64.0;

impl Pace {
    pub fn observe(&mut self, taken: f64, estimated: f64) {
        let keep = (-1.0 / MEMORY).exp();
        self.taken = self.taken * keep + taken;
        self.estimated = self.estimated * keep + estimated;
        self.observed = self.observed * keep + 1.0;
    }

    /// Seconds taken for each that was estimated, as far as is known.
    pub fn known(&self) -> Option<f64> {
        (self.estimated > 0.0).then(|| self.taken / self.estimated)
    }

    /// What to multiply estimates by; `believed` is what to multiply them by before anything is known, weighing as much as `prior`
    /// first tokens.
    pub fn ratio(&self, believed: f64, prior: f64) -> f64 {
        let Some(known) = self.known() else { return believed };
        let known = known.clamp(1.0 / RATIO_MAX, RATIO_MAX);
        (known * self.observed + believed * prior) / (self.observed + prior)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_three_times_slower_than_its_model_is_found_out() {
        let mut pace = Pace::default();
        assert_eq!((pace.ratio(1.0, 10.0), pace.known()), (1.0, None));
        (0..30).for_each(|_| pace.observe(1.5, 0.5));
        assert!((pace.ratio(1.0, 10.0) - 2.5).abs() < 0.01, "soon: {}", pace.ratio(1.0, 10.0));
        (0..1000).for_each(|_| pace.observe(1.5, 0.5));
        assert!((pace.ratio(1.0, 10.0) - 3.0).abs() < 0.05, "{}", pace.ratio(1.0, 10.0));
        (0..10_000).for_each(|_| pace.observe(100.0, 0.1));
        assert_eq!(pace.ratio(1.0, 0.0), RATIO_MAX);
    }

    #[test]
    fn a_prompt_of_a_few_tokens_says_as_much_as_its_estimate() {
        let mut pace = Pace::default();
        (0..100).for_each(|_| pace.observe(1.0, 1.0));
        (0..100).for_each(|_| pace.observe(0.05, 0.01));
        assert!((pace.ratio(1.0, 10.0) - 1.04).abs() < 0.01, "{}", pace.ratio(1.0, 10.0));
    }

    #[test]
    fn an_unknown_instance_is_as_fast_as_is_believed_and_a_known_one_as_it_was_seen() {
        let (unknown, mut known) = (Pace::default(), Pace::default());
        (0..10_000).for_each(|_| known.observe(0.2, 0.1));
        assert_eq!(unknown.ratio(0.25, 10.0), 0.25);
        assert!((known.ratio(0.25, 10.0) - 2.0).abs() < 0.02, "{}", known.ratio(0.25, 10.0));
    }
}
