//! How fast an instance really prefills, beside what was estimated.
//!
//! Learnt from first tokens: the seconds from one to the next, while prefills were queued, over the seconds that the model
//! had estimated for them. Several prefills that end in one step count the step once, because it is sums that are compared.
//! So a fleet needs no model of its GPUs that is right, only one that is right up to a factor for each instance.

/// Seconds taken over seconds estimated, lately.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    taken: f64,
    estimated: f64,
}

/// What the model's own estimate weighs at first, in estimated seconds.
const PRIOR_SECONDS: f64 = 20.0;
/// Estimated seconds after which an observation weighs a third.
const MEMORY_SECONDS: f64 = 200.0;
/// No instance is believed to be further off than this.
const RATIO_MAX: f64 = 16.0;

impl Pace {
    pub fn observe(&mut self, taken: f64, estimated: f64) {
        let keep = (-estimated / MEMORY_SECONDS).exp();
        self.taken = self.taken * keep + taken;
        self.estimated = self.estimated * keep + estimated;
    }

    /// What to multiply estimates by.
    pub fn ratio(&self) -> f64 {
        (self.taken / self.estimated.max(f64::MIN_POSITIVE)).clamp(1.0 / RATIO_MAX, RATIO_MAX)
    }
}

impl Default for Pace {
    fn default() -> Self {
        Pace { taken: PRIOR_SECONDS, estimated: PRIOR_SECONDS }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_three_times_slower_than_its_model_is_found_out() {
        let mut pace = Pace::default();
        assert_eq!(pace.ratio(), 1.0);
        for _ in 0..1000 {
            pace.observe(1.5, 0.5);
        }
        assert!((pace.ratio() - 3.0).abs() < 0.2, "{}", pace.ratio());
        for _ in 0..10_000 {
            pace.observe(100.0, 0.1);
        }
        assert_eq!(pace.ratio(), RATIO_MAX);
    }
}
