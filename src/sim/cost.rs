//! How long an engine step takes.

use crate::routing::PrefillModel;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The time of one engine step, fitted per (model, GPU, tensor parallelism).
///
/// `step + max(token · tokens, weights) + attention · pairs + decode_context · context + sequence · sequences` seconds,
/// where `pairs` counts (computed token, token attended to) in prefill and `context` the tokens that decoding requests
/// attend to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepModel {
    /// What the router knows of it, too.
    pub prefill: PrefillModel,
    /// Seconds that each running request adds.
    pub sequence: f64,
}

/// What one step has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct StepLoad {
    /// Tokens to compute, prefill and decode.
    pub tokens: u32,
    /// (token, token attended to) pairs in prefill.
    pub attention_pairs: f64,
    /// Tokens that decoding requests attend to.
    pub decode_context: u64,
    /// Requests running.
    pub sequences: u32,
}

impl StepModel {
    pub(super) fn duration(&self, load: &StepLoad) -> Duration {
        let model = &self.prefill;
        Duration::from_secs_f64(
            model.step
                + (model.token * f64::from(load.tokens)).max(model.weights)
                + model.attention * load.attention_pairs
                + model.decode_context * load.decode_context as f64
                + self.sequence * f64::from(load.sequences),
        )
    }
}

/// A model on its hardware, with vLLM's default limits there.
///
/// Derived from published peak figures (token rate from matrix FLOPs at half of peak or a measured rate, attention from
/// `4 · layers · heads · head size` FLOPs a pair at half of peak, weights at 0.8 and KV reads at 0.7 of memory
/// bandwidth), not yet fitted to measurements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preset {
    /// Qwen3-32B on 2 × H100.
    #[default]
    Qwen3_32bH100Tp2,
    /// Llama-3.1-8B on A100-80G.
    Llama3_8bA100,
    /// Llama-3.1-8B on H100.
    Llama3_8bH100,
}

impl Preset {
    /// All presets.
    pub const ALL: [Preset; 3] = [Preset::Qwen3_32bH100Tp2, Preset::Llama3_8bA100, Preset::Llama3_8bH100];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Preset::Qwen3_32bH100Tp2 => "qwen3-32b-h100-tp2",
            Preset::Llama3_8bA100 => "llama3-8b-a100",
            Preset::Llama3_8bH100 => "llama3-8b-h100",
        }
    }

    /// Its step times.
    pub const fn step_model(self) -> StepModel {
        let prefill = match self {
            Preset::Qwen3_32bH100Tp2 => PrefillModel::QWEN3_32B_H100_TP2,
            Preset::Llama3_8bA100 => PrefillModel {
                step: 0.002,
                weights: 0.0098,
                token: 6.65e-5,
                attention: 3.36e-9,
                decode_context: 9.2e-8,
                step_tokens: 2048,
            },
            Preset::Llama3_8bH100 => PrefillModel {
                step: 0.002,
                weights: 0.0062,
                token: 2.5e-5,
                attention: 1.06e-9,
                decode_context: 5.6e-8,
                step_tokens: 8192,
            },
        };
        StepModel { prefill, sequence: 2e-5 }
    }

    /// Requests that run at once, at most (`max_num_seqs`).
    pub const fn sequences_max(self) -> usize {
        match self {
            Preset::Qwen3_32bH100Tp2 | Preset::Llama3_8bH100 => 1024,
            Preset::Llama3_8bA100 => 256,
        }
    }

    /// Tokens of KV cache that fit beside the weights.
    pub const fn kv_tokens(self) -> u32 {
        match self {
            Preset::Qwen3_32bH100Tp2 => 270_000,
            Preset::Llama3_8bA100 | Preset::Llama3_8bH100 => 400_000,
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A preset name that there is none of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown model preset {name:?}; there are {}", Preset::ALL.map(Preset::name).join(", "))]
pub struct UnknownPreset {
    /// What was asked for.
    pub name: String,
}

impl FromStr for Preset {
    type Err = UnknownPreset;
    fn from_str(name: &str) -> Result<Self, UnknownPreset> {
        let known = Preset::ALL.into_iter().find(|preset| preset.name() == name);
        known.ok_or_else(|| UnknownPreset { name: name.to_owned() })
    }
}
