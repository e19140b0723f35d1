//! Step times from one's own measurements: least squares of the [`StepModel`]'s coefficients.
//!
//! Errors count relative to what was measured, as times span orders of magnitude. Which rows have too few tokens to hide
//! the reading of the weights is found by turns: fit, sort the rows by the fit, fit again. A coefficient that comes out
//! negative is zero; one that the measurements cannot tell from the others is zero, too, and named.

mod csv;
mod least_squares;

pub use csv::MeasurementsError;

use super::cost::StepModel;
use crate::routing::PrefillModel;
use least_squares::{Coefficients, NAMES, solve};

/// What some engine steps computed together, and how long they took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measurement {
    /// How many steps.
    pub steps: f64,
    /// Tokens computed.
    pub tokens: f64,
    /// (token, token attended to) pairs in prefill.
    pub pairs: f64,
    /// Tokens that decoding requests attended to, summed over the steps.
    pub decode_context: f64,
    /// Requests running, summed over the steps.
    pub sequences: f64,
    /// How long, in seconds.
    pub seconds: f64,
}

impl Measurement {
    /// The prefill of one prompt, alone, of which `cached` tokens were cached, in steps of `step_tokens`.
    pub fn prefill(prompt: f64, cached: f64, step_tokens: f64, seconds: f64) -> Self {
        let tokens = (prompt - cached).max(1.0);
        let steps = (tokens / step_tokens).ceil();
        let pairs = (prompt * prompt - cached * cached).max(0.0) / 2.0;
        Measurement { steps, tokens, pairs, decode_context: 0.0, sequences: steps, seconds }
    }

    /// One step of `sequences` decoding requests that attend to `context` tokens together.
    pub fn decode(sequences: f64, context: f64, seconds: f64) -> Self {
        Measurement { steps: 1.0, tokens: sequences, pairs: 0.0, decode_context: context, sequences, seconds }
    }

    /// What `model` says.
    pub fn predicted(&self, model: &StepModel) -> f64 {
        let PrefillModel { step, weights, token, attention, decode_context, .. } = model.prefill;
        step * self.steps
            + (token * self.tokens).max(weights * self.steps)
            + attention * self.pairs
            + decode_context * self.decode_context
            + model.sequence * self.sequences
    }
}

/// A model and how well it fits.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// The model.
    pub model: StepModel,
    /// Measurements that it was fitted to.
    pub measurements: usize,
    /// Mean of |model − measured| / measured.
    pub mean_error: f64,
    /// The largest.
    pub worst_error: f64,
    /// The share of the measured variance that the model explains, at most 1.
    pub r_squared: f64,
    /// Coefficients that are zero because the measurements cannot tell them.
    pub undetermined: Vec<&'static str>,
}

/// Why nothing can be fitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FitError {
    /// Too few rows.
    #[error("{given} measurements are too few to fit; at least {MEASUREMENTS_MIN} are needed")]
    TooFew {
        /// How many there are.
        given: usize,
    },
    /// A row is not of this world.
    #[error("measurement {number} has a negative, infinite or missing number, or took no time")]
    Number {
        /// Which, from 1.
        number: usize,
    },
}

const MEASUREMENTS_MIN: usize = 4;
/// Turns of sorting rows and fitting; they settle in two or three.
const TURNS_MAX: usize = 50;

/// Fits a model with steps of `step_tokens` tokens.
pub fn fit(measurements: &[Measurement], step_tokens: u32) -> Result<Fit, FitError> {
    if measurements.len() < MEASUREMENTS_MIN {
        return Err(FitError::TooFew { given: measurements.len() });
    }
    if let Some(at) = measurements.iter().position(|row| !row.is_sound()) {
        return Err(FitError::Number { number: at + 1 });
    }
    let mut light: Vec<bool> = measurements.iter().map(|row| row.tokens <= TOKENS_HIDDEN * row.steps).collect();
    let mut coefficients = solve(measurements, &light);
    for _ in 0..TURNS_MAX {
        let [_, token, _, _, weights, _] = coefficients.values;
        let sorted: Vec<bool> = measurements.iter().map(|row| token * row.tokens <= weights * row.steps).collect();
        if sorted == light {
            break;
        }
        light = sorted;
        coefficients = solve(measurements, &light);
    }
    Ok(coefficients.judged(measurements, step_tokens))
}

/// Where the turns begin: with so few tokens a step, reading the weights takes longer than computing, on today's GPUs.
const TOKENS_HIDDEN: f64 = 64.0;

impl Measurement {
    fn is_sound(&self) -> bool {
        let Measurement { steps, tokens, pairs, decode_context, sequences, seconds } = *self;
        let all = [steps, tokens, pairs, decode_context, sequences, seconds];
        all.iter().all(|number| number.is_finite() && *number >= 0.0) && seconds > 0.0 && steps > 0.0
    }
}

impl Coefficients {
    fn judged(self, measurements: &[Measurement], step_tokens: u32) -> Fit {
        let [step, token, attention, decode_context, weights, sequence] = self.values;
        let prefill = PrefillModel { step, weights, token, attention, decode_context, step_tokens };
        let model = StepModel { prefill, sequence, kavier: None };
        let count = measurements.len() as f64;
        let mean = measurements.iter().map(|row| row.seconds).sum::<f64>() / count;
        let (mut errors, mut worst, mut residual, mut variance) = (0.0, 0.0_f64, 0.0, 0.0);
        for row in measurements {
            let off = row.predicted(&model) - row.seconds;
            errors += off.abs() / row.seconds;
            worst = worst.max(off.abs() / row.seconds);
            residual += off * off;
            variance += (row.seconds - mean).powi(2);
        }
        let r_squared = if variance > 0.0 { 1.0 - residual / variance } else { 0.0 };
        Fit {
            model,
            measurements: measurements.len(),
            mean_error: errors / count,
            worst_error: worst,
            r_squared,
            undetermined: self.undetermined,
        }
    }
}

impl Fit {
    /// Coefficients and residuals, a line each.
    pub fn to_text(&self) -> String {
        let PrefillModel { step, weights, token, attention, decode_context, step_tokens } = self.model.prefill;
        let values = [step, token, attention, decode_context, weights, self.model.sequence];
        let per =
            ["step", "token computed", "pair attended", "token of decode context", "step, reading weights", "request"];
        let mut text = format!("fitted to {} measurements, {step_tokens} tokens a step at most\n", self.measurements);
        for ((name, value), per) in NAMES.iter().zip(values).zip(per) {
            let known = if self.undetermined.contains(name) { " (these measurements cannot tell)" } else { "" };
            text += &format!("  {name:<15} {value:.4e} s a {per}{known}\n");
        }
        text + &format!(
            "  error {:.1} % in the mean, {:.1} % at worst; R² {:.4}\n",
            self.mean_error * 100.0,
            self.worst_error * 100.0,
            self.r_squared
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::cost::Preset;
    use super::*;

    fn rows(model: &StepModel, noise: f64) -> Vec<Measurement> {
        let step_tokens = f64::from(model.prefill.step_tokens);
        let prompts = [100.0, 700.0, 2000.0, 5000.0, 9000.0, 20_000.0, 60_000.0];
        let prefills =
            prompts.iter().flat_map(|&prompt| [0.0, 0.6].map(|cached| (prompt, f64::floor(cached * prompt))));
        let prefills = prefills.map(|(prompt, cached)| Measurement::prefill(prompt, cached, step_tokens, 1.0));
        let batches = [1.0, 4.0, 16.0, 64.0].into_iter().flat_map(|batch| [500.0, 4000.0].map(|each| (batch, each)));
        let decodes = batches.map(|(batch, each)| Measurement::decode(batch, batch * each, 1.0));
        let mut rows: Vec<Measurement> = prefills.chain(decodes).collect();
        for (at, row) in rows.iter_mut().enumerate() {
            row.seconds = row.predicted(model) * (1.0 + noise * (at as f64 * 2.4).sin());
        }
        rows
    }

    #[test]
    fn a_known_model_is_found_again_whatever_the_hardware() {
        for preset in [Preset::Qwen3_32bH100Tp2, Preset::Llama3_8bA10, Preset::Llama3_8bA100] {
            let model = preset.step_model();
            let found = fit(&rows(&model, 0.0), model.prefill.step_tokens).unwrap();
            assert!(found.worst_error < 1e-6 && found.r_squared > 0.999_999, "{preset}: {}", found.to_text());
            assert!(found.undetermined.is_empty(), "{preset}: {}", found.to_text());
            assert!((found.model.prefill.token / model.prefill.token - 1.0).abs() < 1e-6);
            assert!((found.model.sequence / model.sequence - 1.0).abs() < 1e-3, "{}", found.to_text());
        }
    }

    #[test]
    fn noise_does_not_turn_a_coefficient_negative() {
        let model = Preset::Qwen3_32bH100Tp2.step_model();
        let found = fit(&rows(&model, 0.05), model.prefill.step_tokens).unwrap();
        assert!(found.mean_error < 0.05 && found.worst_error < 0.15, "{}", found.to_text());
        let PrefillModel { step, weights, token, attention, decode_context, .. } = found.model.prefill;
        assert!([step, weights, token, attention, decode_context].iter().all(|value| *value >= 0.0));
    }

    #[test]
    fn what_cannot_be_told_is_named_and_nonsense_is_refused() {
        let model = Preset::Qwen3_32bH100Tp2.step_model();
        let prefills: Vec<_> = rows(&model, 0.0).into_iter().filter(|row| row.decode_context == 0.0).collect();
        let found = fit(&prefills, model.prefill.step_tokens).unwrap();
        assert!(found.undetermined.contains(&"decode_context"), "{}", found.to_text());
        assert!(found.worst_error < 1e-6, "{}", found.to_text());
        assert_eq!(fit(&prefills[..3], 8192).unwrap_err(), FitError::TooFew { given: 3 });
        let mut broken = prefills;
        broken[4].seconds = f64::NAN;
        assert_eq!(fit(&broken, 8192).unwrap_err(), FitError::Number { number: 5 });
    }
}
