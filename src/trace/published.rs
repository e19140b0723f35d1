//! Published files: what they are known to be, and whether a file is one of them.

use super::error::TraceError;
use super::source::decompressed;
use super::stats::{CurvePoint, Stats};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::path::Path;

/// What is known of a published file. Ratios were computed on it by others.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedFile {
    /// Its name.
    pub name: String,
    /// The SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    /// Its rows.
    pub rows: u64,
    /// Of all blocks, the hits of an infinite cache.
    pub ideal: f64,
    /// The same of LRU caches of 1, 5, 10, 25 and 50 % of the distinct blocks.
    pub lru: [f64; 5],
    /// Of the tokens of the second half of the requests, the hits of an infinite cache.
    #[serde(default)]
    pub last_half_token_ideal: Option<f64>,
    /// The same by cache size in blocks, for FIFO, LRU and clairvoyant eviction.
    #[serde(default)]
    pub curve: Vec<(u64, f64, f64, f64)>,
}

/// Upstream commit 5f7439c5 of alibaba-edu/qwen-bailian-usagetraces-anon. The curves are of kvcache-ai/kvcache-blog,
/// `data/kv_cache_lab/precomputed.json`, commit 97532881.
const QWEN_BAILIAN: &str = include_str!("published/qwen_bailian.json");

impl PublishedFile {
    /// Those that are known without being told.
    pub fn known() -> Vec<PublishedFile> {
        serde_json::from_str(QWEN_BAILIAN).expect("what is compiled in is well-formed")
    }

    /// Whether a file is called so, compressed or not.
    pub fn is_called(&self, path: &Path) -> bool {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&self.name))
    }
}

/// How a file compares with the published one of its name.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Published {
    /// Its name.
    pub name: String,
    /// Whether it is the same to the bit; a compressed file is decompressed for that.
    pub sha256_matches: bool,
    /// Rows published.
    pub rows: u64,
    /// Whether there are as many, within 0.5 %: revisions differ by a few.
    pub rows_match: bool,
    /// The published ideal block hit ratio.
    pub ideal_hit_ratio: f64,
    /// Whether it is that, within 0.004: publications differ by as much. So is the second half's, where it is published.
    pub ideal_hit_ratio_matches: bool,
    /// The published LRU hit ratios at 1, 5, 10, 25 and 50 % of the distinct blocks.
    pub lru_hit_ratios: [f64; 5],
    /// Whether all are that, within 0.005.
    pub lru_hit_ratios_match: bool,
    /// The published hit ratios by cache size.
    pub curve: Vec<CurvePoint>,
    /// How far the most different of them is off; `None` where none are published.
    pub curve_largest_difference: Option<f64>,
    /// Whether all are that, within 0.01; `None` where none are published.
    pub curve_matches: Option<bool>,
}

impl Published {
    /// Compares a file with what is published of it.
    pub(super) fn compare(file: &PublishedFile, path: &Path, stats: &Stats) -> Result<Published, TraceError> {
        let sha256_matches =
            sha256(path).map_err(|source| TraceError::Io { path: path.to_owned(), source })? == file.sha256;
        let near = |a: f64, b: f64, by: f64| (a - b).abs() <= by;
        let reuse = stats.reuse.as_ref();
        let ideal_matches = reuse.is_some_and(|reuse| {
            let last_half = file.last_half_token_ideal.unwrap_or(reuse.last_half_token_hit_ratio);
            near(reuse.block_hit_ratio, file.ideal, 0.004) && near(reuse.last_half_token_hit_ratio, last_half, 0.004)
        });
        let lru_matches = reuse.is_some_and(|reuse| {
            reuse.cache_sizes.iter().zip(file.lru).all(|(size, published)| near(size.lru, published, 0.005))
        });
        let curve: Vec<CurvePoint> = file
            .curve
            .iter()
            .map(|&(blocks, fifo, lru, clairvoyant)| CurvePoint { blocks, fifo, lru, clairvoyant })
            .collect();
        let found = reuse.map_or(&[][..], |reuse| &reuse.last_half_curve);
        let differences = curve.iter().enumerate().map(|(index, published)| {
            // Of a trace in which nothing is shared, nothing was found.
            let Some(found) = found.get(index) else { return 1.0 };
            let CurvePoint { fifo, lru, clairvoyant, .. } = *found;
            let pairs = [(fifo, published.fifo), (lru, published.lru), (clairvoyant, published.clairvoyant)];
            pairs.map(|(found, published)| (found - published).abs()).into_iter().fold(0.0, f64::max)
        });
        let largest_difference = (!curve.is_empty()).then(|| differences.fold(0.0, f64::max));
        Ok(Published {
            name: file.name.clone(),
            sha256_matches,
            rows: file.rows,
            rows_match: near(stats.requests as f64, file.rows as f64, file.rows as f64 * 0.005),
            ideal_hit_ratio: file.ideal,
            ideal_hit_ratio_matches: ideal_matches,
            lru_hit_ratios: file.lru,
            lru_hit_ratios_match: lru_matches,
            curve_largest_difference: largest_difference,
            curve_matches: largest_difference.map(|difference| difference <= 0.01),
            curve,
        })
    }
}

fn sha256(path: &Path) -> std::io::Result<String> {
    let mut file = decompressed(Box::new(File::open(path)?))?;
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
