//! When requests come.

use super::distribution::Distribution;
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
    /// The median of the same over whole windows of five minutes, which leaves slow changes of the rate out. 0 without any.
    pub interarrival_cv_5min: f64,
    /// Variance of the requests in each whole second over their mean: 1 for a Poisson process.
    pub dispersion_1s: f64,
    /// The same for each minute.
    pub dispersion_60s: f64,
    /// The width of each bin of `rate`.
    pub bin_seconds: f64,
    /// Requests a second over time.
    pub rate: Vec<f64>,
}

impl Arrivals {
    /// `rate` without its last bin, which the trace did not fill, where there are others.
    pub(super) fn whole_bins(&self) -> &[f64] {
        &self.rate[..self.rate.len().saturating_sub(1).max(self.rate.len().min(1))]
    }
}

/// Takes times in order and keeps a few numbers, however many there are.
pub(super) struct Collector {
    first: Duration,
    last: Duration,
    count: u64,
    /// Of the gaps: their mean, and the sum of their squared distances from it (Welford's algorithm).
    gap_mean: f64,
    gap_squares: f64,
    five_minutes: GapWindows,
    seconds: Windows,
    minutes: Windows,
    /// Requests in each `bin_seconds` since the first.
    bins: Vec<u64>,
    bin_seconds: u64,
}

/// Times between the requests of each five minutes since the first request.
#[derive(Default)]
struct GapWindows {
    current: u64,
    gaps: u64,
    sum: f64,
    squares: f64,
    /// Of the windows before.
    cvs: Vec<f64>,
}

/// Requests in each window of some whole seconds since the first request.
struct Windows {
    seconds: u64,
    /// Which window it is, and its requests so far.
    current: u64,
    count: u64,
    /// Over the windows before: sum and sum of squares.
    sum: u64,
    squares: u128,
}

/// Of `rate`, at most.
const BINS: usize = 240;

impl Default for Collector {
    fn default() -> Self {
        Collector {
            first: Duration::ZERO,
            last: Duration::ZERO,
            count: 0,
            gap_mean: 0.0,
            gap_squares: 0.0,
            five_minutes: GapWindows::default(),
            seconds: Windows::of(1),
            minutes: Windows::of(60),
            bins: Vec::new(),
            bin_seconds: 1,
        }
    }
}

impl Collector {
    #[inline]
    pub(super) fn add(&mut self, at: Duration) {
        if self.count == 0 {
            (self.first, self.last) = (at, at);
        }
        let second = (at - self.first).as_secs();
        if self.count > 0 {
            let gap = (at - self.last).as_secs_f64();
            self.five_minutes.add(second, gap);
            let off = gap - self.gap_mean;
            self.gap_mean += off / self.count as f64;
            self.gap_squares += off * (gap - self.gap_mean);
            self.last = at;
        }
        self.count += 1;
        self.seconds.add(second);
        self.minutes.add(second);
        while second / self.bin_seconds >= BINS as u64 {
            // Bins twice as wide, two of the old ones in each.
            self.bins = self.bins.chunks(2).map(|pair| pair.iter().sum()).collect();
            self.bin_seconds *= 2;
        }
        let bin = (second / self.bin_seconds) as usize;
        if bin >= self.bins.len() {
            self.bins.resize(bin + 1, 0);
        }
        self.bins[bin] += 1;
    }

    pub(super) fn finish(self) -> Arrivals {
        if self.count == 0 {
            return Arrivals::default();
        }
        let seconds = (self.last - self.first).as_secs_f64();
        let variance = self.gap_squares / (self.count - 1).max(1) as f64;
        Arrivals {
            seconds,
            rate_per_second: self.count as f64 / seconds.max(1e-9),
            interarrival_cv: if self.gap_mean > 0.0 { variance.sqrt() / self.gap_mean } else { 0.0 },
            interarrival_cv_5min: self.five_minutes.median_cv(),
            dispersion_1s: self.seconds.dispersion(),
            dispersion_60s: self.minutes.dispersion(),
            bin_seconds: self.bin_seconds as f64,
            rate: self.bins.into_iter().map(|count| count as f64 / self.bin_seconds as f64).collect(),
        }
    }
}

impl GapWindows {
    const SECONDS: u64 = 300;

    /// A request came `gap` after the one before. The gap that leads into a window belongs to none.
    fn add(&mut self, second: u64, gap: f64) {
        let window = second / Self::SECONDS;
        if window != self.current {
            self.end();
            (self.current, self.gaps, self.sum, self.squares) = (window, 0, 0.0, 0.0);
        } else {
            self.gaps += 1;
            self.sum += gap;
            self.squares += gap * gap;
        }
    }

    /// One gap alone says nothing, nor do requests that all came at once.
    fn end(&mut self) {
        if self.gaps > 1 && self.sum > 0.0 {
            let mean = self.sum / self.gaps as f64;
            self.cvs.push((self.squares / self.gaps as f64 - mean * mean).max(0.0).sqrt() / mean);
        }
    }

    /// The window that is not over yet does not count.
    fn median_cv(self) -> f64 {
        Distribution::of(self.cvs).p50
    }
}

impl Windows {
    fn of(seconds: u64) -> Self {
        Windows { seconds, current: 0, count: 0, sum: 0, squares: 0 }
    }

    fn add(&mut self, second: u64) {
        let window = second / self.seconds;
        if window != self.current {
            self.sum += self.count;
            self.squares += u128::from(self.count).pow(2);
            // Windows without a request add nothing.
            (self.current, self.count) = (window, 0);
        }
        self.count += 1;
    }

    /// Variance over mean of whole windows. The last one is not over yet, but where there is no other it counts.
    fn dispersion(&self) -> f64 {
        if self.current == 0 {
            return 0.0;
        }
        let windows = self.current as f64;
        let mean = self.sum as f64 / windows;
        // Exact up to the division: the difference of two large numbers may be small.
        let variance = (u128::from(self.current) * self.squares - u128::from(self.sum).pow(2)) as f64 / windows.powi(2);
        variance / mean.max(f64::MIN_POSITIVE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Mean and variance of a whole population.
    fn moments(numbers: &[f64]) -> (f64, f64) {
        let count = numbers.len().max(1) as f64;
        let mean = numbers.iter().sum::<f64>() / count;
        (mean, numbers.iter().map(|number| (number - mean).powi(2)).sum::<f64>() / count)
    }

    fn dispersion(times_ms: &[u64], width_ms: u64) -> f64 {
        let mut counts = vec![0.0; (times_ms[times_ms.len() - 1] / width_ms) as usize + 1];
        times_ms.iter().for_each(|at| counts[(at / width_ms) as usize] += 1.0);
        if counts.len() > 1 {
            counts.pop();
        }
        let (mean, variance) = moments(&counts);
        variance / mean.max(f64::MIN_POSITIVE)
    }

    fn cv_of_whole_windows(times_ms: &[u64]) -> f64 {
        let window = |at: u64| at / 300_000;
        let mut cvs: Vec<f64> = (0..window(times_ms[times_ms.len() - 1]))
            .filter_map(|this| {
                let inside: Vec<u64> = times_ms.iter().copied().filter(|&at| window(at) == this).collect();
                let gaps: Vec<f64> = inside.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
                let (mean, variance) = moments(&gaps);
                (gaps.len() > 1 && mean > 0.0).then(|| variance.sqrt() / mean)
            })
            .collect();
        cvs.sort_unstable_by(f64::total_cmp);
        let middle = cvs.len() / 2;
        match cvs.len() {
            0 => 0.0,
            odd if odd % 2 == 1 => cvs[middle],
            _ => (cvs[middle - 1] + cvs[middle]) / 2.0,
        }
    }

    proptest! {
        #[test]
        fn what_is_counted_on_the_way_is_what_all_times_say(
            gaps_ms in prop::collection::vec(prop_oneof![Just(0_u64), 0..900_u64, 1000..200_000_u64], 1..80),
        ) {
            let times_ms: Vec<u64> = std::iter::once(0)
                .chain(gaps_ms.iter().scan(0, |at, gap| { *at += gap; Some(*at) }))
                .collect();
            let mut collector = Collector::default();
            times_ms.iter().for_each(|&ms| collector.add(Duration::from_secs(7) + Duration::from_millis(ms)));
            let found = collector.finish();
            let gaps: Vec<f64> = gaps_ms.iter().map(|&ms| ms as f64 / 1e3).collect();
            let (mean, variance) = moments(&gaps);
            let near = |a: f64, b: f64| (a - b).abs() <= 1e-9 * b.abs().max(1.0);
            let cv = if mean > 0.0 { variance.sqrt() / mean } else { 0.0 };
            prop_assert!(near(found.interarrival_cv, cv));
            prop_assert!(near(found.dispersion_1s, dispersion(&times_ms, 1000)));
            prop_assert!(near(found.dispersion_60s, dispersion(&times_ms, 60_000)));
            prop_assert!((found.interarrival_cv_5min - cv_of_whole_windows(&times_ms)).abs() < 1e-6);
            prop_assert!(found.rate.len() <= BINS);
            let all = found.rate.iter().sum::<f64>() * found.bin_seconds;
            prop_assert!(near(all, times_ms.len() as f64), "every request is in a bin");
        }
    }
}
