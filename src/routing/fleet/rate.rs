//! How much of something happens a second, lately.

use crate::routing::time::Time;

/// An exponentially decaying rate with a time constant of a minute.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::routing) struct DecayingRate {
    /// Decayed sum of amounts at `at`.
    sum: f64,
    at: Time,
    first: Option<Time>,
}

const WINDOW_SECONDS: f64 = 60.0;
/// What was watched for longer was watched for as good as ever, to the last bit.
const WHOLE_SECONDS: f64 = 40.0 * WINDOW_SECONDS;
/// A rate over less than this long would be mostly chance: the first burst would read as a rate that goes on for ever.
const OBSERVED_SECONDS_MIN: f64 = 30.0;

impl DecayingRate {
    pub fn add(&mut self, now: Time, amount: f64) {
        self.sum = self.decayed(now) + amount;
        self.at = self.at.max(now);
        self.first.get_or_insert(now);
    }

    /// The rate a second. Corrected for having watched less than a window so far.
    pub fn per_second(&self, now: Time) -> f64 {
        self.per_second_over(now, OBSERVED_SECONDS_MIN)
    }

    /// The same, where what was watched for a shorter time than this is as if it had been watched for so long.
    pub fn per_second_over(&self, now: Time, seconds_min: f64) -> f64 {
        let Some(first) = self.first else {
            return 0.0;
        };
        let observed = now.seconds_since(first).max(seconds_min);
        let share = if observed > WHOLE_SECONDS { 1.0 } else { 1.0 - (-observed / WINDOW_SECONDS).exp() };
        self.decayed(now) / (WINDOW_SECONDS * share)
    }

    fn decayed(&self, now: Time) -> f64 {
        self.sum * (-now.seconds_since(self.at) / WINDOW_SECONDS).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_steady_stream_reads_as_its_rate_early_and_late() {
        let mut rate = DecayingRate::default();
        let mut now = Time::ZERO;
        for event in 1..=6000 {
            now = now + Duration::from_millis(100);
            rate.add(now, 1.0);
            if event == 300 || event == 6000 {
                let error = (rate.per_second(now) - 10.0).abs();
                assert!(error < 0.5, "after {event} events: {}", rate.per_second(now));
            }
        }
        let later = now + Duration::from_secs(600);
        assert!(rate.per_second(later) < 0.01);
    }
}
