//! How evenly work was spread, as time went by.
//!
//! Work is the uncached prompt tokens that an instance was given, by when their requests came. Time is cut into slices that are
//! doubled in length whenever there would be too many, so memory is bounded however long a trace is.

use super::outcome::Balance;
use crate::routing::Time;
use std::time::Duration;

/// Slices, at most; at least half as many once some time passed.
const SLICES_MAX: usize = 96;
/// A slice before the first doubling.
const SLICE: Duration = Duration::from_millis(100);

/// Work by slice of time and instance.
#[derive(Debug)]
pub(super) struct Timeline {
    slice: Duration,
    /// By slice, then by instance as far as any had work.
    work: Vec<Vec<u64>>,
}

impl Default for Timeline {
    fn default() -> Self {
        Timeline { slice: SLICE, work: Vec::new() }
    }
}

impl Timeline {
    pub fn add(&mut self, at: Time, instance: usize, tokens: u64) {
        let since_start = at.since(Time::ZERO).as_nanos();
        let mut place = (since_start / self.slice.as_nanos()) as usize;
        while place >= SLICES_MAX {
            self.double();
            place /= 2;
        }
        if self.work.len() <= place {
            self.work.resize(place + 1, Vec::new());
        }
        let slice = &mut self.work[place];
        if slice.len() <= instance {
            slice.resize(instance + 1, 0);
        }
        slice[instance] += tokens;
    }

    /// The most that an instance was given in each slice, over the mean; 1 where nothing was.
    pub fn max_over_mean(&self, instances: usize) -> Vec<f64> {
        let of = |slice: &Vec<u64>| {
            let mut amounts: Vec<f64> = slice.iter().map(|&tokens| tokens as f64).collect();
            amounts.resize(instances, 0.0);
            Balance::of(&amounts).max_over_mean
        };
        self.work.iter().map(of).collect()
    }

    fn double(&mut self) {
        self.slice *= 2;
        let pairs = self.work.chunks_mut(2).map(|pair| {
            let mut sum = std::mem::take(&mut pair[0]);
            if let Some(second) = pair.get(1) {
                sum.resize(sum.len().max(second.len()), 0);
                sum.iter_mut().zip(second).for_each(|(sum, tokens)| *sum += tokens);
            }
            sum
        });
        self.work = pairs.collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_doubled_and_nothing_is_lost() {
        let mut timeline = Timeline::default();
        for second in 0..1000_u64 {
            // The second half of the time goes to one of two instances alone.
            let instance = if second < 500 { (second % 2) as usize } else { 1 };
            timeline.add(Time::from_secs_f64(second as f64), instance, 7);
        }
        let balance = timeline.max_over_mean(2);
        assert!((SLICES_MAX / 2..=SLICES_MAX).contains(&balance.len()), "{}", balance.len());
        assert_eq!(timeline.work.iter().flatten().sum::<u64>(), 7000);
        let middle = balance.len() / 2;
        assert!(balance[..middle - 1].iter().all(|share| *share < 1.2), "{balance:?}");
        assert!(balance[middle + 1..].iter().all(|share| *share == 2.0), "{balance:?}");
    }
}
