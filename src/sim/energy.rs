//! What a fleet draws, emits and costs.
//!
//! Power is Kavier's, `idle + (max − idle) · (2u − u^1.4)` (the exponent of Fan, Weber, Barroso, ISCA 2007), with a
//! utilisation of 0.95 in a step and 0 between steps.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The GPUs of one instance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gpus {
    /// How many.
    pub count: u32,
    /// What each draws when idle, in watts.
    pub idle_watts: f64,
    /// What each draws at most, in watts.
    pub max_watts: f64,
}

/// What electricity emits and GPUs cost: assumptions, to be replaced by one's own.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Tariff {
    /// Grams of CO₂ a kilowatt-hour.
    pub grams_per_kilowatt_hour: f64,
    /// Dollars a GPU-hour, used or not.
    pub dollars_per_gpu_hour: f64,
}

impl Default for Tariff {
    /// 400 g a kilowatt-hour and 2 dollars a GPU-hour: round numbers, not measurements.
    fn default() -> Self {
        Tariff { grams_per_kilowatt_hour: 400.0, dollars_per_gpu_hour: 2.0 }
    }
}

/// What serving some tokens took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Energy {
    /// Electricity of all GPUs, idle time included.
    pub watt_hours: f64,
    /// The same for a million tokens, prompts and outputs.
    pub watt_hours_per_million_tokens: f64,
    /// CO₂ for a million tokens.
    pub grams_per_million_tokens: f64,
    /// GPU hours for a million tokens, in dollars.
    pub dollars_per_million_tokens: f64,
}

const UTILISATION_IN_A_STEP: f64 = 0.95;
const EXPONENT: f64 = 1.4;

impl Gpus {
    /// What one draws at a utilisation from 0 to 1, in watts.
    pub fn watts(&self, utilisation: f64) -> f64 {
        self.idle_watts + (self.max_watts - self.idle_watts) * (2.0 * utilisation - utilisation.powf(EXPONENT))
    }
}

impl Energy {
    /// Of instances that were each this long in steps, out of `elapsed`, for so many tokens.
    pub fn of(gpus: &Gpus, busy: &[Duration], elapsed: Duration, tokens: u64, tariff: &Tariff) -> Energy {
        let seconds = elapsed.as_secs_f64();
        let joules = |busy: &Duration| {
            let busy = busy.as_secs_f64().min(seconds);
            f64::from(gpus.count) * (busy * gpus.watts(UTILISATION_IN_A_STEP) + (seconds - busy) * gpus.watts(0.0))
        };
        let watt_hours = busy.iter().map(joules).sum::<f64>() / 3600.0;
        let gpu_hours = f64::from(gpus.count) * busy.len() as f64 * seconds / 3600.0;
        let per_million = 1e6 / (tokens as f64).max(1.0);
        Energy {
            watt_hours,
            watt_hours_per_million_tokens: watt_hours * per_million,
            grams_per_million_tokens: watt_hours / 1000.0 * tariff.grams_per_kilowatt_hour * per_million,
            dollars_per_million_tokens: gpu_hours * tariff.dollars_per_gpu_hour * per_million,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_of_two_instances_one_busy_one_idle() {
        let gpus = Gpus { count: 2, idle_watts: 100.0, max_watts: 700.0 };
        assert_eq!((gpus.watts(0.0), gpus.watts(1.0)), (100.0, 700.0));
        let hour = Duration::from_secs(3600);
        let energy = Energy::of(&gpus, &[hour, Duration::ZERO], hour, 2_000_000, &Tariff::default());
        let expected = 2.0 * (gpus.watts(0.95) + 100.0);
        assert!((energy.watt_hours - expected).abs() < 1e-6);
        assert!((energy.watt_hours_per_million_tokens - expected / 2.0).abs() < 1e-6);
        assert!((energy.grams_per_million_tokens - expected / 2.0 * 0.4).abs() < 1e-6);
        assert!((energy.dollars_per_million_tokens - 4.0).abs() < 1e-9);
    }
}
