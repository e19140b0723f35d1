//! When requests come.

use serde::Serialize;
use std::time::Duration;

/// When requests come.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Arrivals {
    /// From the first request to the last.
    pub seconds: f64,
    /// Requests a second.
    pub rate_per_second: f64,
    /// Standard deviation of the time between requests over its mean: 1 for a Poisson process.
    pub interarrival_cv: f64,
    /// Variance of the requests in each whole second over their mean: 1 for a Poisson process.
    pub dispersion_1s: f64,
    /// The same for each minute.
    pub dispersion_60s: f64,
    /// The width of each bin of `rate`.
    pub bin_seconds: f64,
    /// Requests a second over time.
    pub rate: Vec<f64>,
}

#[derive(Default)]
pub(super) struct Collector {
    times: Vec<Duration>,
}

/// Of `rate`.
const BINS: usize = 120;

impl Collector {
    pub(super) fn add(&mut self, at: Duration) {
        self.times.push(at);
    }

    pub(super) fn finish(self) -> Arrivals {
        let times = self.times;
        let (Some(&first), Some(&last)) = (times.first(), times.last()) else { return Arrivals::default() };
        let seconds = (last - first).as_secs_f64();
        let gaps = times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64());
        let (mean, variance) = moments(gaps);
        let counts = |width: f64| {
            let mut counts = vec![0_u64; (seconds / width) as usize + 1];
            for &at in &times {
                counts[((at - first).as_secs_f64() / width) as usize] += 1;
            }
            counts
        };
        let dispersion = |width: f64| {
            let mut counts = counts(width);
            if counts.len() > 1 {
                // The last one is not over yet.
                counts.pop();
            }
            let (mean, variance) = moments(counts.into_iter().map(|count| count as f64));
            variance / mean.max(f64::MIN_POSITIVE)
        };
        // A bin more than needed would hold the last request alone.
        let bin_seconds = (seconds / BINS as f64).max(1.0) * (1.0 + 1e-9);
        Arrivals {
            seconds,
            rate_per_second: times.len() as f64 / seconds.max(1e-9),
            interarrival_cv: if mean > 0.0 { variance.sqrt() / mean } else { 0.0 },
            dispersion_1s: dispersion(1.0),
            dispersion_60s: dispersion(60.0),
            bin_seconds,
            rate: counts(bin_seconds).into_iter().map(|count| count as f64 / bin_seconds).collect(),
        }
    }
}

/// Mean and variance of a whole population.
fn moments(numbers: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let count = numbers.clone().count().max(1) as f64;
    let mean = numbers.clone().sum::<f64>() / count;
    (mean, numbers.map(|number| (number - mean).powi(2)).sum::<f64>() / count)
}
