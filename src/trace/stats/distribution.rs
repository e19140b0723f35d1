//! How some numbers are distributed.

use serde::Serialize;

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

impl Distribution {
    /// Of `numbers`, in any order; all zero when there are none.
    pub(crate) fn of(mut numbers: Vec<f64>) -> Self {
        if numbers.is_empty() {
            return Distribution::default();
        }
        numbers.sort_unstable_by(f64::total_cmp);
        let quantile = |share: f64| {
            let place = share * (numbers.len() - 1) as f64;
            let (below, above) = (numbers[place.floor() as usize], numbers[place.ceil() as usize]);
            below + (above - below) * place.fract()
        };
        Distribution {
            count: numbers.len() as u64,
            mean: numbers.iter().sum::<f64>() / numbers.len() as f64,
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
        let exponential = |x: f64| 1.0 - (-x / self.mean.max(f64::MIN_POSITIVE)).exp();
        let steps = self.curve.iter().zip(0..);
        steps.map(|(&x, step)| (exponential(x) - f64::from(step) / 50.0).abs()).fold(0.0, f64::max)
    }
}
