//! Kavier's model of prefill and decode (arXiv 2605.25247, release 0.5.3): one request alone, from peak figures.
//!
//! A model of cost, not of load: no batching, no queue. It is here to be compared with, and can be chosen as a preset; the
//! other presets' step times are another model.

use std::time::Duration;

/// A dense model on one GPU, the KV cache on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KavierModel {
    /// Parameters of the language model.
    pub parameters: f64,
    /// Peak matrix throughput, FLOP/s.
    pub flops: f64,
    /// Memory bandwidth, B/s.
    pub bandwidth: f64,
    /// Bytes a parameter.
    pub parameter_bytes: f64,
}

/// Seconds before a prefill begins.
const OVERHEAD_SECONDS: f64 = 0.025;
/// The share of peak throughput that is reached.
const FLOPS_SHARE: f64 = 0.30;
/// The share of memory bandwidth that is reached.
const BANDWIDTH_SHARE: f64 = 0.60;

impl KavierModel {
    /// Llama-3-8B in 16 bits on an A10 (125 TFLOP/s, 600 GB/s): what its authors measured.
    pub const LLAMA3_8B_A10: KavierModel =
        KavierModel { parameters: 8e9, flops: 125e12, bandwidth: 600e9, parameter_bytes: 2.0 };

    /// `0.025 + tokens · 2 · parameters / (0.30 · flops)` seconds.
    pub fn prefill(&self, tokens: u32) -> Duration {
        Duration::from_secs_f64(OVERHEAD_SECONDS + f64::from(tokens) * self.compute())
    }

    /// `tokens` times the larger of computing a token and of reading all parameters once.
    pub fn decode(&self, tokens: u32) -> Duration {
        Duration::from_secs_f64(f64::from(tokens) * self.compute().max(self.read()))
    }

    /// One step of an engine that batches, for which the model has no word: so that one request alone takes what the model
    /// says, prefills are one after another, and decodes share the reading of the parameters.
    pub(super) fn step(&self, starting: u32, prefill_tokens: u32, decoding: u32) -> Duration {
        let prefill = f64::from(starting) * OVERHEAD_SECONDS + f64::from(prefill_tokens) * self.compute();
        let read = if decoding > 0 { self.read() } else { 0.0 };
        Duration::from_secs_f64(prefill + (f64::from(decoding) * self.compute()).max(read))
    }

    /// Seconds to read all parameters once.
    fn read(&self) -> f64 {
        self.parameter_bytes * self.parameters / (self.bandwidth * BANDWIDTH_SHARE)
    }

    /// Seconds to compute a token.
    fn compute(&self) -> f64 {
        2.0 * self.parameters / (self.flops * FLOPS_SHARE)
    }
}
