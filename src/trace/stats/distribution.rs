//! How some numbers are distributed.

use serde::Serialize;
use std::collections::BTreeMap;

/// Mean, quantiles (interpolated linearly between neighbours) and extremes of some numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Distribution {
    /// How many numbers.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// A quarter is smaller.
    pub p25: f64,
    /// Half is smaller.
    pub p50: f64,
    /// Three quarters are smaller.
    pub p75: f64,
    /// Nine tenths are smaller.
    pub p90: f64,
    /// 95 % are smaller.
    pub p95: f64,
    /// 99 % are smaller.
    pub p99: f64,
    /// The largest.
    pub max: f64,
    /// From the smallest to the largest in steps of 2 %: 51 numbers, or none.
    pub curve: Vec<f64>,
}

/// Whole numbers, counted: cheaper to keep and to put in order than one by one. Most are below 65,536.
#[derive(Default)]
pub(crate) struct Counts {
    small: Vec<u64>,
    large: BTreeMap<u32, u64>,
    count: u64,
    sum: u64,
}

impl Counts {
    const SMALL: u32 = 1 << 16;

    pub(crate) fn add(&mut self, number: u32) {
        self.count += 1;
        self.sum += u64::from(number);
        if number >= Self::SMALL {
            *self.large.entry(number).or_insert(0) += 1;
            return;
        }
        let place = number as usize;
        if place >= self.small.len() {
            self.small.resize((place + 1).next_power_of_two(), 0);
        }
        self.small[place] += 1;
    }

    /// How many there are.
    pub(crate) fn len(&self) -> u64 {
        self.count
    }

    pub(crate) fn distribution(&self) -> Distribution {
        let small = (0_u32..).zip(self.small.iter().copied()).filter(|&(_, count)| count > 0);
        let all = small.chain(self.large.iter().map(|(&number, &count)| (number, count)));
        // Each number with how many there are up to it.
        let mut up_to = Vec::new();
        let mut sum = 0;
        for (number, count) in all {
            sum += count;
            up_to.push((sum, f64::from(number)));
        }
        let at = |place: usize| up_to[up_to.partition_point(|&(up_to, _)| up_to <= place as u64)].1;
        Distribution::by_place(self.count as usize, self.sum as f64, at)
    }
}

impl Distribution {
    /// Of `numbers`, in any order; all zero when there are none.
    pub(crate) fn of(mut numbers: Vec<f64>) -> Self {
        numbers.sort_unstable_by(f64::total_cmp);
        Distribution::by_place(numbers.len(), numbers.iter().sum(), |place| numbers[place])
    }

    /// Of `count` numbers; `at` gives the one at a place in their order.
    fn by_place(count: usize, sum: f64, at: impl Fn(usize) -> f64) -> Self {
        if count == 0 {
            return Distribution::default();
        }
        let quantile = |share: f64| {
            let place = share * (count - 1) as f64;
            let (below, above) = (at(place.floor() as usize), at(place.ceil() as usize));
            below + (above - below) * place.fract()
        };
        Distribution {
            count: count as u64,
            mean: sum / count as f64,
            p25: quantile(0.25),
            p50: quantile(0.5),
            p75: quantile(0.75),
            p90: quantile(0.9),
            p95: quantile(0.95),
            p99: quantile(0.99),
            max: quantile(1.0),
            curve: (0..=50).map(|step| quantile(f64::from(step) / 50.0)).collect(),
        }
    }

    /// The largest distance between the numbers' distribution and the exponential one of the same mean, at the curve's
    /// points: 0 is a perfect fit.
    pub(crate) fn distance_to_exponential(&self) -> f64 {
        let steps = self.curve.iter().zip(0..);
        steps.map(|(&x, step)| (self.exponential(x) - f64::from(step) / 50.0).abs()).fold(0.0, f64::max)
    }

    /// Of an exponential distribution of the same mean, the share up to `x`.
    pub(crate) fn exponential(&self, x: f64) -> f64 {
        1.0 - (-x / self.mean.max(f64::MIN_POSITIVE)).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn counting_is_sorting(numbers in prop::collection::vec(prop_oneof![0..100_u32, 65_530..65_540_u32, any::<u32>()], 0..60)) {
            let mut counts = Counts::default();
            numbers.iter().for_each(|&number| counts.add(number));
            prop_assert_eq!(counts.len(), numbers.len() as u64);
            let sorted = Distribution::of(numbers.iter().map(|&number| number.into()).collect());
            prop_assert_eq!(counts.distribution(), sorted);
        }
    }
}
