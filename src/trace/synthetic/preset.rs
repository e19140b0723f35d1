//! The presets: what was fitted to the published figures of each trace.

use super::super::format::block_size;
use crate::routing::block::BlockSize;
use std::fmt;
use std::str::FromStr;

/// A trace to imitate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyntheticPreset {
    /// Qwen-Bailian A: a chat service for consumers.
    QwenA,
    /// Qwen-Bailian B: an API for businesses; every request stands alone.
    QwenB,
    /// Qwen-Bailian coder.
    QwenCoder,
    /// Qwen-Bailian thinking.
    QwenThinking,
    /// Mooncake conversation, in 512-token blocks.
    Mooncake,
}

/// Not a preset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown preset {name:?}; known are {}", SyntheticPreset::ALL.map(SyntheticPreset::name).join(", "))]
pub struct UnknownPreset {
    /// What was asked for.
    pub name: String,
}

/// How a trace is made. Lengths are in tokens unless said otherwise.
pub(super) struct Model {
    pub(super) block_tokens: u32,
    pub(super) warmup_seconds: f64,
    pub(super) context_max: u32,
    /// More sessions than `rows` asks for: some requests do not fit their context and never come.
    pub(super) session_factor: f64,
    /// How much sessions differ in size: sigma of a log-normal factor.
    pub(super) session_sigma: f64,
    /// Blocks of the chat template, which begins every head.
    pub(super) template_blocks: usize,
    pub(super) sorts: &'static [Sort],
    /// The chance of a next turn after the first, second, …; the last one holds for all that follow.
    pub(super) go_on: &'static [f64],
    pub(super) gap_seconds_min: f64,
    /// Of an output, what the next prompt does not repeat.
    pub(super) stripped_share: f64,
    /// Of first requests, those that continue a recent one without saying so.
    pub(super) fork_share: f64,
    /// How many recent requests they choose from.
    pub(super) fork_memory: usize,
}

/// One sort of requests.
pub(super) struct Sort {
    pub(super) name: &'static str,
    pub(super) share: f64,
    pub(super) heads: &'static [Head],
    /// Content of a first request's own.
    pub(super) root: Length,
    /// What a turn adds.
    pub(super) added: Length,
    pub(super) output: Length,
    /// Phases of the time to the next turn: share and mean, in seconds.
    pub(super) gaps: &'static [(f64, f64)],
}

/// A class of shared heads.
pub(super) struct Head {
    pub(super) share: f64,
    pub(super) count: usize,
    /// Exponent of their popularity.
    pub(super) zipf: f64,
    /// In blocks.
    pub(super) blocks: Length,
}

/// A log-normal length; always the median where sigma is zero.
#[derive(Clone, Copy)]
pub(super) struct Length {
    pub(super) median: f64,
    pub(super) sigma: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

const fn log_normal(median: f64, sigma: f64, min: f64, max: f64) -> Length {
    Length { median, sigma, min, max }
}

/// One head of fixed length.
const fn one(share: f64, blocks: f64) -> Head {
    Head { share, count: 1, zipf: 0.0, blocks: log_normal(blocks, 0.0, 1.0, blocks) }
}

impl Model {
    pub(super) fn requests_per_session(&self) -> f64 {
        let (mut sum, mut reached) = (0.0, 1.0);
        for turn in 0..200 {
            sum += reached;
            reached *= self.go_on[turn.min(self.go_on.len() - 1)];
        }
        sum
    }
}

impl SyntheticPreset {
    /// All presets.
    pub const ALL: [SyntheticPreset; 5] = [
        SyntheticPreset::QwenA,
        SyntheticPreset::QwenB,
        SyntheticPreset::QwenCoder,
        SyntheticPreset::QwenThinking,
        SyntheticPreset::Mooncake,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            SyntheticPreset::QwenA => "qwen-a",
            SyntheticPreset::QwenB => "qwen-b",
            SyntheticPreset::QwenCoder => "qwen-coder",
            SyntheticPreset::QwenThinking => "qwen-thinking",
            SyntheticPreset::Mooncake => "mooncake",
        }
    }

    /// Tokens in each of its blocks.
    pub const fn block_size(self) -> BlockSize {
        block_size(self.model().block_tokens)
    }

    pub(super) const fn model(self) -> &'static Model {
        match self {
            SyntheticPreset::QwenA => &QWEN_A,
            SyntheticPreset::QwenB => &QWEN_B,
            SyntheticPreset::QwenCoder => &QWEN_CODER,
            SyntheticPreset::QwenThinking => &QWEN_THINKING,
            SyntheticPreset::Mooncake => &MOONCAKE,
        }
    }
}

impl FromStr for SyntheticPreset {
    type Err = UnknownPreset;

    fn from_str(name: &str) -> Result<Self, UnknownPreset> {
        let found = SyntheticPreset::ALL.into_iter().find(|preset| preset.name() == name);
        found.ok_or_else(|| UnknownPreset { name: name.to_owned() })
    }
}

impl fmt::Display for SyntheticPreset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What never occurs.
const NOTHING: Length = log_normal(1.0, 0.0, 1.0, 1.0);

const QWEN_A: Model = Model {
    block_tokens: 16,
    warmup_seconds: 1800.0,
    context_max: 20_000,
    session_factor: 1.021,
    session_sigma: 0.0,
    template_blocks: 3,
    sorts: &[
        Sort {
            name: "text",
            share: 0.737,
            heads: &[one(0.42, 45.0), one(0.58, 3.0)],
            root: log_normal(80.0, 1.5, 3.0, 6000.0),
            added: log_normal(40.0, 1.45, 3.0, 4000.0),
            output: log_normal(375.0, 0.62, 1.0, 8000.0),
            gaps: &[(0.72, 88.0), (0.28, 700.0)],
        },
        Sort {
            name: "search",
            share: 0.190,
            heads: &[one(0.38, 46.0), one(0.62, 3.0)],
            root: log_normal(2900.0, 0.7, 60.0, 12_000.0),
            added: log_normal(1650.0, 0.7, 20.0, 5500.0),
            output: log_normal(420.0, 0.55, 1.0, 8000.0),
            gaps: &[(0.58, 150.0), (0.42, 800.0)],
        },
        Sort {
            name: "image",
            share: 0.038,
            heads: &[one(0.95, 20.0), one(0.05, 3.0)],
            root: log_normal(45.0, 0.9, 5.0, 2000.0),
            added: log_normal(40.0, 0.9, 5.0, 800.0),
            output: log_normal(120.0, 0.9, 1.0, 3000.0),
            gaps: &[(0.9, 40.0), (0.1, 300.0)],
        },
        Sort {
            name: "file",
            share: 0.035,
            heads: &[one(0.5, 45.0), one(0.5, 3.0)],
            root: log_normal(1500.0, 1.0, 60.0, 15_000.0),
            added: log_normal(45.0, 1.3, 3.0, 6000.0),
            output: log_normal(380.0, 0.7, 1.0, 6000.0),
            gaps: &[(0.5, 200.0), (0.5, 850.0)],
        },
    ],
    go_on: &[0.405, 0.53, 0.565, 0.60, 0.62, 0.64, 0.68, 0.74, 0.78],
    gap_seconds_min: 10.0,
    stripped_share: 0.0,
    fork_share: 0.0,
    fork_memory: 1,
};

const QWEN_B: Model = Model {
    block_tokens: 16,
    warmup_seconds: 0.0,
    context_max: 30_000,
    session_factor: 1.0,
    session_sigma: 0.0,
    template_blocks: 3,
    sorts: &[
        Sort {
            name: "api",
            share: 0.8735,
            heads: &[
                Head { share: 0.88, count: 1500, zipf: 1.25, blocks: log_normal(23.0, 0.9, 2.0, 400.0) },
                one(0.12, 3.0),
            ],
            root: log_normal(112.0, 1.58, 2.0, 12_000.0),
            added: NOTHING,
            output: log_normal(36.0, 1.25, 1.0, 4000.0),
            gaps: &[(1.0, 1.0)],
        },
        Sort {
            name: "text",
            share: 0.1265,
            heads: &[
                Head { share: 0.75, count: 300, zipf: 1.1, blocks: log_normal(24.0, 0.9, 2.0, 300.0) },
                one(0.25, 3.0),
            ],
            root: log_normal(185.0, 1.58, 2.0, 12_000.0),
            added: NOTHING,
            output: log_normal(120.0, 1.2, 1.0, 4000.0),
            gaps: &[(1.0, 1.0)],
        },
    ],
    go_on: &[0.0],
    gap_seconds_min: 2.0,
    stripped_share: 0.0,
    fork_share: 0.0,
    fork_memory: 1,
};

const QWEN_CODER: Model = Model {
    block_tokens: 16,
    warmup_seconds: 1800.0,
    context_max: 14_500,
    session_factor: 1.32,
    session_sigma: 0.8,
    template_blocks: 3,
    sorts: &[Sort {
        name: "coder",
        share: 1.0,
        heads: &[
            Head { share: 0.82, count: 60, zipf: 1.25, blocks: log_normal(128.0, 0.55, 10.0, 500.0) },
            one(0.18, 3.0),
        ],
        root: log_normal(1380.0, 1.35, 20.0, 13_000.0),
        added: log_normal(210.0, 1.3, 5.0, 9000.0),
        output: log_normal(469.0, 1.05, 1.0, 8000.0),
        gaps: &[(0.70, 108.0), (0.30, 1150.0)],
    }],
    go_on: &[0.275, 0.56, 0.66, 0.72, 0.78, 0.82, 0.86, 0.90, 0.92],
    gap_seconds_min: 2.0,
    stripped_share: 0.0,
    fork_share: 0.17,
    fork_memory: 6000,
};

const QWEN_THINKING: Model = Model {
    block_tokens: 16,
    warmup_seconds: 900.0,
    context_max: 31_000,
    session_factor: 1.0,
    session_sigma: 0.5,
    template_blocks: 3,
    sorts: &[Sort {
        name: "thinking",
        share: 1.0,
        heads: &[Head { share: 0.76, count: 40, zipf: 1.2, blocks: log_normal(86.0, 0.7, 5.0, 600.0) }, one(0.24, 3.0)],
        root: log_normal(1500.0, 1.15, 20.0, 28_000.0),
        added: log_normal(300.0, 1.2, 5.0, 9000.0),
        output: log_normal(1665.0, 1.25, 1.0, 38_000.0),
        gaps: &[(0.74, 24.0), (0.26, 330.0)],
    }],
    go_on: &[0.056, 0.46, 0.63, 0.70, 0.72, 0.74, 0.76],
    gap_seconds_min: 2.0,
    stripped_share: 0.8,
    fork_share: 0.05,
    fork_memory: 2000,
};

/// Every prompt begins with the same block, and a third of the requests continue another.
const MOONCAKE: Model = Model {
    block_tokens: 512,
    warmup_seconds: 1200.0,
    context_max: 126_000,
    session_factor: 1.0,
    session_sigma: 0.0,
    template_blocks: 1,
    sorts: &[Sort {
        name: "conversation",
        share: 1.0,
        heads: &[one(1.0, 1.0)],
        root: log_normal(3900.0, 1.35, 100.0, 120_000.0),
        added: log_normal(1200.0, 1.5, 10.0, 60_000.0),
        output: log_normal(300.0, 0.52, 1.0, 2000.0),
        gaps: &[(0.7, 110.0), (0.3, 500.0)],
    }],
    go_on: &[0.27, 0.45, 0.55, 0.60],
    gap_seconds_min: 10.0,
    stripped_share: 0.0,
    fork_share: 0.0,
    fork_memory: 1,
};
