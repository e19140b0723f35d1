//! The published Qwen-Bailian files: what they are known to be, and whether a file is one of them.

use super::error::TraceError;
use super::stats::Stats;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// A published file: upstream commit 5f7439c5 of alibaba-edu/qwen-bailian-usagetraces-anon. The ratios were computed on
/// the files by others; a cache's sizes are 1, 5, 10, 25 and 50 % of the distinct blocks.
struct Known {
    name: &'static str,
    sha256: &'static str,
    rows: u64,
    ideal: f64,
    lru: [f64; 5],
}

const FILES: [Known; 4] = [
    Known {
        name: "qwen_traceA_blksz_16.jsonl",
        sha256: "07cedc9ed8aff301994ac68ed4aede8123b7603673575eeba9dd677de663db17",
        rows: 43_058,
        ideal: 0.5795,
        lru: [0.176, 0.410, 0.500, 0.562, 0.578],
    },
    Known {
        name: "qwen_traceB_blksz_16.jsonl",
        sha256: "68e3f98e2d601d60d0abf4b89bc8a3654372abab7b1cde6373a13d0054379d59",
        rows: 172_800,
        ideal: 0.540,
        lru: [0.462, 0.516, 0.528, 0.537, 0.541],
    },
    Known {
        name: "qwen_thinking_blksz_16.jsonl",
        sha256: "41ac36d9d1b54d084eeb6b05e9d142ba9d02f8bf79cfc9fff418d8ab7cdee906",
        rows: 10_812,
        ideal: 0.462,
        lru: [0.367, 0.430, 0.445, 0.457, 0.460],
    },
    Known {
        name: "qwen_coder_blksz_16.jsonl",
        sha256: "3d74974cebb7bccb69b1ca6ea210a44d9a3033443c0271ed015327284dea1aff",
        rows: 43_011,
        ideal: 0.6645,
        lru: [0.404, 0.553, 0.604, 0.645, 0.660],
    },
];

/// How a file compares with the published one of its name.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Published {
    /// Its name.
    pub name: &'static str,
    /// Whether it is the same to the bit; `None` for a compressed file.
    pub sha256_matches: Option<bool>,
    /// Rows published, and whether there are as many, within 0.5 %: revisions differ by a few.
    pub rows: u64,
    /// Whether there are.
    pub rows_match: bool,
    /// The published ideal block hit ratio.
    pub ideal_hit_ratio: f64,
    /// Whether it is that, within 0.004: publications differ by as much.
    pub ideal_hit_ratio_matches: bool,
    /// The published LRU hit ratios at 1, 5, 10, 25 and 50 % of the distinct blocks.
    pub lru_hit_ratios: [f64; 5],
    /// Whether all are that, within 0.005.
    pub lru_hit_ratios_match: bool,
}

impl Published {
    /// Compares a file with the published one of its name; `None` when there is none.
    pub(super) fn compare(path: &Path, stats: &Stats) -> Result<Option<Published>, TraceError> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let Some(file) = FILES.iter().find(|file| name.starts_with(file.name)) else { return Ok(None) };
        let sha256_matches = match name == file.name {
            true => {
                Some(sha256(path).map_err(|source| TraceError::Io { path: path.to_owned(), source })? == file.sha256)
            }
            false => None,
        };
        let near = |a: f64, b: f64, by: f64| (a - b).abs() <= by;
        let reuse = stats.reuse.as_ref();
        let lru_matches = reuse.is_some_and(|reuse| {
            reuse.cache_sizes.iter().zip(file.lru).all(|(size, published)| near(size.lru, published, 0.005))
        });
        Ok(Some(Published {
            name: file.name,
            sha256_matches,
            rows: file.rows,
            rows_match: near(stats.requests as f64, file.rows as f64, file.rows as f64 * 0.005),
            ideal_hit_ratio: file.ideal,
            ideal_hit_ratio_matches: reuse.is_some_and(|reuse| near(reuse.block_hit_ratio, file.ideal, 0.004)),
            lru_hit_ratios: file.lru,
            lru_hit_ratios_match: lru_matches,
        }))
    }
}

fn sha256(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hasher.update(&buffer[..read]),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
