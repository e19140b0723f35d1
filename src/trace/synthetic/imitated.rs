//! What was published of the traces that are imitated, and how near to that an imitation comes.
//!
//! Source: the audits of alibaba-edu/qwen-bailian-usagetraces-anon (Wang et al., USENIX ATC 2025), and the statistics of the
//! Mooncake conversation trace, which is at hand.

use super::preset::SyntheticPreset;
use serde::Serialize;

/// What was published of a trace, and how far from that a whole imitation of it may be, whatever its seed. Serialises to JSON
/// with these field names.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Imitated {
    /// How long it is; everything was counted in all of it.
    pub seconds: f64,
    /// Requests.
    pub requests: Figure,
    /// Of all blocks, the hits of an infinite cache.
    pub block_hit_ratio: Figure,
    /// Of all requests, those that continue another.
    pub child_share: Figure,
    /// Of all sessions, those of a single request; `None` where none is published.
    pub single_request_share: Option<Figure>,
    /// Of all blocks, the hits of LRU caches of 5, 10, 25 and 50 % of the distinct blocks; `None` where an imitation was not
    /// fitted to them.
    pub lru_hit_ratios: Option<[Figure; 4]>,
    /// Prompt tokens of a request, on average. How near an imitation must come was not fixed.
    pub input_tokens_mean: f64,
    /// Output tokens of a request, on average; likewise.
    pub output_tokens_mean: f64,
}

/// A published number.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// The number.
    pub published: f64,
    /// The largest difference from it that is accepted.
    pub within: f64,
}

impl Figure {
    /// How far `number` is from what was published, as a share of what is accepted.
    pub fn missed_by(self, number: f64) -> f64 {
        (number - self.published).abs() / self.within
    }
}

const fn figure(published: f64, within: f64) -> Figure {
    Figure { published, within }
}

/// A Qwen-Bailian trace; their tolerances are the same.
const fn qwen(requests: f64, ideal: f64, child: f64, single: f64, lru: [f64; 4], means: [f64; 2]) -> Imitated {
    let [five, ten, quarter, half] = lru;
    Imitated {
        seconds: 7200.0,
        requests: figure(requests, 0.02 * requests),
        block_hit_ratio: figure(ideal, 0.02),
        child_share: figure(child, 0.02),
        single_request_share: Some(figure(single, 0.02)),
        lru_hit_ratios: Some([figure(five, 0.03), figure(ten, 0.03), figure(quarter, 0.03), figure(half, 0.03)]),
        input_tokens_mean: means[0],
        output_tokens_mean: means[1],
    }
}

const QWEN_A: Imitated = qwen(43_058.0, 0.579, 0.463, 0.610, [0.410, 0.500, 0.562, 0.578], [2331.0, 430.0]);
const QWEN_B: Imitated = qwen(172_800.0, 0.541, 0.0, 1.0, [0.516, 0.528, 0.537, 0.541], [915.0, 92.0]);
const QWEN_CODER: Imitated = qwen(43_011.0, 0.6645, 0.386, 0.747, [0.553, 0.604, 0.645, 0.660], [5748.0, 808.0]);
const QWEN_THINKING: Imitated = qwen(10_812.0, 0.462, 0.111, 0.947, [0.430, 0.445, 0.457, 0.460], [4763.0, 3651.0]);
const MOONCAKE: Imitated = Imitated {
    seconds: 3537.0,
    requests: figure(12_031.0, 0.03 * 12_031.0),
    block_hit_ratio: figure(0.366, 0.03),
    child_share: figure(0.33, 0.03),
    single_request_share: None,
    lru_hit_ratios: None,
    input_tokens_mean: 12_035.0,
    output_tokens_mean: 343.0,
};

impl SyntheticPreset {
    /// What was published of the trace that it imitates.
    pub const fn imitates(self) -> &'static Imitated {
        match self {
            SyntheticPreset::QwenA => &QWEN_A,
            SyntheticPreset::QwenB => &QWEN_B,
            SyntheticPreset::QwenCoder => &QWEN_CODER,
            SyntheticPreset::QwenThinking => &QWEN_THINKING,
            SyntheticPreset::Mooncake => &MOONCAKE,
        }
    }
}
