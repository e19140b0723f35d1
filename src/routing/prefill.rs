//! How long a prompt takes to prefill, as the router estimates it.

/// Prefill and decode cost of one instance, fitted per (model, GPU, tensor parallelism).
///
/// Prefilling `u` uncached tokens of a prompt of `n` takes, in chunks of `step_tokens`,
/// `chunks · step + max(token · u, weights · chunks) + attention · (n² − (n − u)²) / 2` seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PrefillModel {
    /// Seconds that every engine step costs by itself.
    pub step: f64,
    /// Seconds to read the model's weights once: the least that a step's linear layers take.
    pub weights: f64,
    /// Seconds a token in the linear layers.
    pub token: f64,
    /// Seconds a (token, context token) pair in attention.
    pub attention: f64,
    /// Seconds that one token of decode context adds to a decode step.
    pub decode_context: f64,
    /// Tokens that one engine step can take (`max_num_batched_tokens`).
    pub step_tokens: u32,
}

impl PrefillModel {
    /// Qwen3-32B on 2 × H100, tensor parallel: 15,928 prefill tokens/s (llm-d's measured default), attention
    /// 4 · 64 layers · 8192 FLOP a pair at half of 2 × 989.5 TFLOP/s, 65.5 GB of weights at 0.8 × 6.7 TB/s,
    /// 262,144 B of KV a token at 0.7 × 6.7 TB/s.
    pub const QWEN3_32B_H100_TP2: PrefillModel = PrefillModel {
        step: 0.002,
        weights: 0.0122,
        token: 1.0 / 15928.0,
        attention: 2.12e-9,
        decode_context: 5.6e-8,
        step_tokens: 8192,
    };

    /// The same instance, `factor` times as fast.
    pub fn faster(self, factor: f64) -> PrefillModel {
        PrefillModel {
            step: self.step / factor,
            weights: self.weights / factor,
            token: self.token / factor,
            attention: self.attention / factor,
            decode_context: self.decode_context / factor,
            step_tokens: self.step_tokens,
        }
    }

    /// Seconds of a step that prefills as much as one can.
    pub fn full_step_seconds(&self) -> f64 {
        let seconds = self.step + (self.token * f64::from(self.step_tokens)).max(self.weights);
        seconds.clamp(0.0, MAX_SECONDS)
    }

    /// Seconds of a step in which next to nothing is computed.
    pub fn idle_step_seconds(&self) -> f64 {
        (self.step + self.weights).clamp(0.0, MAX_SECONDS)
    }

    /// Seconds that decodes under way, attending to so many tokens, add to each step.
    pub fn decode_seconds(&self, context_tokens: u64) -> f64 {
        (self.decode_context * context_tokens as f64).clamp(0.0, MAX_SECONDS)
    }

    /// Engine steps that so many tokens fill.
    pub fn steps(&self, tokens: u32) -> f64 {
        f64::from(tokens) / self.step_tokens()
    }

    /// Seconds that prefilling such a prompt adds to steps that others pay for, too.
    pub fn shared_prefill_seconds(&self, prompt_tokens: u32, cached_tokens: u32) -> f64 {
        let (uncached, attended) = self.computed(prompt_tokens, cached_tokens);
        let seconds = uncached / self.step_tokens() * self.step + self.token * uncached + attended;
        seconds.clamp(0.0, MAX_SECONDS)
    }

    /// Seconds to prefill a prompt of `prompt_tokens` of which `cached_tokens` need no computing.
    pub fn prefill_seconds(&self, prompt_tokens: u32, cached_tokens: u32) -> f64 {
        let (uncached, attended) = self.computed(prompt_tokens, cached_tokens);
        let chunks = (uncached / self.step_tokens()).ceil();
        let seconds = chunks * self.step + (self.token * uncached).max(self.weights * chunks) + attended;
        seconds.clamp(0.0, MAX_SECONDS)
    }

    fn step_tokens(&self) -> f64 {
        f64::from(self.step_tokens.max(1))
    }

    /// Tokens to be computed, and the seconds that attention takes for them.
    fn computed(&self, prompt_tokens: u32, cached_tokens: u32) -> (f64, f64) {
        let (prompt, cached) = (f64::from(prompt_tokens), f64::from(cached_tokens.min(prompt_tokens)));
        let uncached = f64::from(prompt_tokens.saturating_sub(cached_tokens).max(1));
        (uncached, self.attention * (prompt * prompt - cached * cached) / 2.0)
    }
}

/// A year: keeps sums of estimates far from overflow, whatever the coefficients.
const MAX_SECONDS: f64 = 365.0 * 86_400.0;

impl Default for PrefillModel {
    fn default() -> Self {
        Self::QWEN3_32B_H100_TP2
    }
}
