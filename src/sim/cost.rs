//! How long an engine step takes.

use super::energy::Gpus;
use super::kavier::KavierModel;
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
    /// What prefill takes, and what decode context adds.
    pub prefill: PrefillModel,
    /// Seconds that each running request adds.
    pub sequence: f64,
    /// If given, steps take as long as this model says, and not as the rest does.
    pub kavier: Option<KavierModel>,
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
    /// Those of them that decode.
    pub decoding: u32,
    /// Those of them whose first tokens these are.
    pub starting: u32,
}

impl StepModel {
    /// How long the first token of a prompt takes at an idle instance, where `cached_tokens` of it need no computing.
    pub fn first_token_alone(&self, prompt_tokens: u32, cached_tokens: u32) -> Duration {
        let computed = prompt_tokens.saturating_sub(cached_tokens).max(1);
        match &self.kavier {
            Some(kavier) => kavier.step(1, computed, 0),
            None => {
                let steps = computed.div_ceil(self.prefill.step_tokens.max(1));
                let seconds = self.prefill.prefill_seconds(prompt_tokens, cached_tokens);
                Duration::from_secs_f64(seconds + self.sequence * f64::from(steps))
            }
        }
    }

    /// How long a token after that takes there, at least.
    pub fn next_token_alone(&self, prompt_tokens: u32) -> Duration {
        let decode_context = u64::from(prompt_tokens);
        self.duration(&StepLoad { tokens: 1, decode_context, sequences: 1, decoding: 1, ..StepLoad::default() })
    }

    pub(super) fn duration(&self, load: &StepLoad) -> Duration {
        let model = &self.prefill;
        if let Some(kavier) = &self.kavier {
            return kavier.step(load.starting, load.tokens - load.decoding, load.decoding);
        }
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
/// bandwidth), but for the A10: that one is fitted to the 18 measurements that Kavier's authors publish.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preset {
    /// Qwen3-32B on 2 × H100.
    #[default]
    Qwen3_32bH100Tp2,
    /// Qwen2.5-7B on H100.
    Qwen2_5_7bH100,
    /// Llama-3-8B on A10.
    Llama3_8bA10,
    /// Llama-3.1-8B on A100-80G.
    Llama3_8bA100,
    /// Llama-3.1-8B on H100.
    Llama3_8bH100,
    /// Llama-3-8B on A10 as [`KavierModel`] has it: a model of cost, to be compared with.
    KavierLlama3_8bA10,
}

impl Preset {
    /// All presets.
    pub const ALL: [Preset; 6] = [
        Preset::Qwen3_32bH100Tp2,
        Preset::Qwen2_5_7bH100,
        Preset::Llama3_8bA10,
        Preset::Llama3_8bA100,
        Preset::Llama3_8bH100,
        Preset::KavierLlama3_8bA10,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Preset::Qwen3_32bH100Tp2 => "qwen3-32b-h100-tp2",
            Preset::Qwen2_5_7bH100 => "qwen2.5-7b-h100",
            Preset::Llama3_8bA10 => "llama3-8b-a10",
            Preset::Llama3_8bA100 => "llama3-8b-a100",
            Preset::Llama3_8bH100 => "llama3-8b-h100",
            Preset::KavierLlama3_8bA10 => "kavier-llama3-8b-a10",
        }
    }

    /// Its step times.
    pub const fn step_model(self) -> StepModel {
        let prefill = match self {
            Preset::Qwen3_32bH100Tp2 => PrefillModel::QWEN3_32B_H100_TP2,
            // 15.2 GFLOP and 28 layers · 28 heads · 128: 4 · 28 · 3584 FLOP a pair at half of 989.5 TFLOP/s; 15.2 GB of
            // weights at 0.8, and 57,344 B of KV a token at 0.7, of 3.35 TB/s.
            Preset::Qwen2_5_7bH100 => PrefillModel {
                step: 0.002,
                weights: 0.0057,
                token: 3.1e-5,
                attention: 8.1e-10,
                decode_context: 2.4e-8,
                step_tokens: 8192,
            },
            // Fitted to Kavier's measurements (vLLM 0.9.0): prefill of 64 to 16,384 tokens, decode of 53 to 13,940.
            // Attention 4 · 32 · 4096 FLOP a pair at half of 125 TFLOP/s; 131,072 B of KV a token at 0.7 of 600 GB/s.
            Preset::Llama3_8bA10 => PrefillModel {
                step: 0.02,
                weights: 0.0237,
                token: 4.0e-4,
                attention: 8.4e-9,
                decode_context: 3.1e-7,
                step_tokens: 2048,
            },
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
            // The nearest of this form: 2 · 8e9 FLOP a token at 0.3 of 125 TFLOP/s, 16 GB at 0.6 of 600 GB/s.
            Preset::KavierLlama3_8bA10 => PrefillModel {
                step: 0.0,
                weights: 0.0444,
                token: 4.27e-4,
                attention: 0.0,
                decode_context: 0.0,
                step_tokens: 2048,
            },
        };
        let kavier = match self {
            Preset::KavierLlama3_8bA10 => Some(KavierModel::LLAMA3_8B_A10),
            Preset::Qwen3_32bH100Tp2
            | Preset::Qwen2_5_7bH100
            | Preset::Llama3_8bA10
            | Preset::Llama3_8bA100
            | Preset::Llama3_8bH100 => None,
        };
        StepModel { prefill, sequence: 2e-5, kavier }
    }

    /// Requests that run at once, at most (`max_num_seqs`).
    pub const fn sequences_max(self) -> usize {
        match self {
            Preset::Qwen3_32bH100Tp2 | Preset::Qwen2_5_7bH100 | Preset::Llama3_8bH100 => 1024,
            Preset::Llama3_8bA10 | Preset::Llama3_8bA100 | Preset::KavierLlama3_8bA10 => 256,
        }
    }

    /// Tokens of KV cache that fit beside the weights.
    pub const fn kv_tokens(self) -> u32 {
        match self {
            Preset::Qwen3_32bH100Tp2 => 270_000,
            Preset::Qwen2_5_7bH100 => 900_000,
            Preset::Llama3_8bA10 | Preset::KavierLlama3_8bA10 => 30_000,
            Preset::Llama3_8bA100 | Preset::Llama3_8bH100 => 400_000,
        }
    }

    /// What it runs on. Most that is drawn is the board's rated power; idle draw is a round number.
    pub const fn gpus(self) -> Gpus {
        match self {
            Preset::Qwen3_32bH100Tp2 => Gpus { count: 2, idle_watts: 70.0, max_watts: 700.0 },
            Preset::Qwen2_5_7bH100 | Preset::Llama3_8bH100 => Gpus { count: 1, idle_watts: 70.0, max_watts: 700.0 },
            Preset::Llama3_8bA10 | Preset::KavierLlama3_8bA10 => Gpus { count: 1, idle_watts: 20.0, max_watts: 150.0 },
            Preset::Llama3_8bA100 => Gpus { count: 1, idle_watts: 50.0, max_watts: 400.0 },
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
