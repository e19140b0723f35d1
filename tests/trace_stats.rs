//! Statistics of real traces, to the digits that were published or measured on them.

use std::path::{Path, PathBuf};
use warmpath::trace::stats::{Distribution, Stats};
use warmpath::trace::{How, Overlay, Published, PublishedFile, Trace};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn stats(name: &str, overlay: Overlay) -> Stats {
    let trace = Trace::open_as(data(name), How { overlay, ..How::default() }).unwrap();
    Stats::of(name, &mut trace.records().unwrap(), &mut |_| {}).unwrap()
}

fn digits(numbers: &[f64], digits: usize) -> String {
    numbers.iter().map(|number| format!("{number:.digits$}")).collect::<Vec<_>>().join(" ")
}

/// Figures of one trace, as text, so that a failure shows all digits.
struct Golden {
    requests: u64,
    /// Duration in seconds, requests a second.
    pace: &'static str,
    /// CV of the interarrival times; dispersion in 1 s and 60 s.
    bursts: &'static str,
    /// Mean, median and 99th percentile.
    input: &'static str,
    output: &'static str,
}

#[track_caller]
fn check(stats: &Stats, golden: Golden) {
    let arrivals = &stats.arrivals;
    assert_eq!(stats.requests, golden.requests);
    assert_eq!(format!("{:.3} {:.2}", arrivals.seconds, arrivals.rate_per_second), golden.pace);
    assert_eq!(digits(&[arrivals.interarrival_cv, arrivals.dispersion_1s, arrivals.dispersion_60s], 2), golden.bursts);
    let lengths = |d: &Distribution| format!("{:.1} {:.0} {:.0}", d.mean, d.p50, d.p99);
    assert_eq!(lengths(&stats.input_tokens), golden.input);
    assert_eq!(lengths(&stats.output_tokens), golden.output);
}

#[test]
fn mooncake_conversation() {
    let stats = stats("mooncake/conversation_trace.jsonl.gz", Overlay::None);
    check(
        &stats,
        Golden {
            requests: 12_031,
            pace: "3536.999 3.40",
            bursts: "3.03 7.90 2.89",
            input: "12035.1 6909 85400",
            output: "342.6 350 1119",
        },
    );
    let reuse = stats.reuse.as_ref().unwrap();
    assert_eq!((reuse.blocks, reuse.distinct_blocks), (288_500, 182_790));
    assert_eq!(digits(&[reuse.block_hit_ratio, reuse.token_hit_ratio], 4), "0.3664 0.3736");
    assert_eq!(digits(&[reuse.last_half_block_hit_ratio, reuse.last_half_token_hit_ratio], 3), "0.390 0.398");
    assert_eq!(digits(&[reuse.reused_block_share], 3), "0.242");
    let top: Vec<f64> = reuse.popularity.iter().map(|top| top.reuse_share).collect();
    assert_eq!(digits(&top, 3), "0.316 0.751 0.928");
    let times = &reuse.reuse_seconds;
    assert_eq!(digits(&[times.p25, times.p50, times.p75], 0), "54 114 267");
    let distances = &reuse.stack_distance_blocks;
    assert_eq!(digits(&[distances.p25, distances.p50, distances.p75], 0), "4292 8356 17849");
    let lru: Vec<f64> = reuse.cache_sizes.iter().map(|size| size.lru).collect();
    assert_eq!(digits(&lru, 3), "0.052 0.196 0.279 0.353 0.363");
}

#[test]
fn mooncake_synthetic() {
    let stats = stats("mooncake/synthetic_trace.jsonl.gz", Overlay::None);
    check(
        &stats,
        Golden {
            requests: 3993,
            pace: "1022.025 3.91",
            bursts: "1.01 1.09 1.19",
            input: "15325.5 11587 66456",
            output: "149.1 69 768",
        },
    );
    let reuse = stats.reuse.as_ref().unwrap();
    assert_eq!((reuse.blocks, reuse.distinct_blocks), (121_877, 43_924));
    assert_eq!(digits(&[reuse.block_hit_ratio, reuse.token_hit_ratio], 4), "0.6396 0.6512");
    assert_eq!(digits(&[reuse.last_half_block_hit_ratio, reuse.last_half_token_hit_ratio], 3), "0.851 0.863");
    assert_eq!(digits(&[reuse.reused_block_share], 3), "0.416");
    let top: Vec<f64> = reuse.popularity.iter().map(|top| top.reuse_share).collect();
    assert_eq!(digits(&top, 3), "0.101 0.496 0.753");
    let times = &reuse.reuse_seconds;
    assert_eq!(digits(&[times.p25, times.p50, times.p75], 0), "18 59 158");
    let distances = &reuse.stack_distance_blocks;
    assert_eq!(digits(&[distances.p25, distances.p50, distances.p75], 0), "2269 6265 12728");
    let lru: Vec<f64> = reuse.cache_sizes.iter().map(|size| size.lru).collect();
    assert_eq!(digits(&lru, 3), "0.038 0.157 0.262 0.444 0.589");
}

#[test]
fn every_eviction_stays_below_clairvoyance() {
    for name in ["mooncake/conversation_trace.jsonl.gz", "mooncake/synthetic_trace.jsonl.gz"] {
        let reuse = stats(name, Overlay::None).reuse.unwrap();
        for size in &reuse.cache_sizes {
            assert!(size.fifo <= size.clairvoyant && size.lru <= size.clairvoyant, "{name}: {size:?}");
            assert!(size.clairvoyant <= reuse.block_hit_ratio, "{name}: {size:?}");
        }
    }
}

#[test]
fn azure_2023() {
    let code = stats("azure/AzureLLMInferenceTrace_code.csv.gz", Overlay::None);
    check(
        &code,
        Golden {
            requests: 8819,
            pace: "3435.948 2.57",
            bursts: "13.15 13.19 163.96",
            input: "2047.8 1469 7436",
            output: "27.9 13 251",
        },
    );
    assert!(code.reuse.is_none() && code.sessions.is_none(), "nothing is known of either");
    assert!(code.to_text().contains("reuse: none, prefix: overlay(none, 0)"));
    check(
        &stats("azure/AzureLLMInferenceTrace_conv.csv.gz", Overlay::None),
        Golden {
            requests: 19_366,
            pace: "3501.722 5.53",
            bursts: "1.09 1.39 16.13",
            input: "1154.7 1020 4142",
            output: "211.1 129 601",
        },
    );
}

#[test]
fn a_ratio_never_comes_without_its_provenance() {
    let stats = stats("azure/AzureLLMInferenceTrace_code.csv.gz", Overlay::Target { ratio: 0.4, seed: 7 });
    for shown in [stats.to_text(), stats.to_html()] {
        assert!(shown.contains("prefix: overlay(target 0.4, 7)"), "{shown}");
    }
    let json = serde_json::to_value(&stats).unwrap();
    assert_eq!(json["prefix"]["overlay"]["seed"], 7);
    assert!((stats.reuse.unwrap().block_hit_ratio - 0.4).abs() < 0.005);
}

#[test]
fn the_page_needs_nothing_else() {
    let html = stats("mooncake/synthetic_trace.jsonl.gz", Overlay::None).to_html();
    assert!(html.matches("<svg ").count() >= 6);
    for outside in ["http:", "https:", "src=", "href=", "url(", "NaN"] {
        assert!(!html.contains(outside), "{outside}");
    }
}

#[test]
fn a_file_that_claims_to_be_published_is_compared() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("qwen_traceA_blksz_16.jsonl");
    std::fs::copy(data("qwen_bailian/thinking_first_row.jsonl"), &path).unwrap();
    let known = PublishedFile::known();
    assert_eq!(known.len(), 4);
    let file = known.iter().find(|known| known.is_called(&path)).unwrap();
    let stats = published(&path, file);
    let found = stats.published.as_ref().unwrap();
    assert_eq!((found.sha256_matches, found.rows_match, found.curve_matches), (Some(false), false, Some(false)));
    assert!(stats.to_text().contains("sha256 DIFFERS"));
}

fn published(path: &Path, file: &PublishedFile) -> Stats {
    Stats::of_published(path, file, &mut Trace::open(path).unwrap().records().unwrap(), &mut |_| {}).unwrap()
}

/// `published_slice.py` computed by the book what is said of this file; every figure must be found, and every one missed.
#[test]
fn every_published_figure_can_match_and_can_differ() {
    let path = data("mooncake/toolagent_arxiv_slice_93rows.jsonl");
    let text = std::fs::read_to_string(data("mooncake/published_slice.json")).unwrap();
    let [file]: [PublishedFile; 1] = serde_json::from_str(&text).unwrap();
    let matches = |file: &PublishedFile| {
        let found = published(&path, file).published.unwrap();
        let Published { rows_match, ideal_hit_ratio_matches, lru_hit_ratios_match, .. } = found;
        let sha256 = found.sha256_matches.unwrap();
        [sha256, rows_match, ideal_hit_ratio_matches, lru_hit_ratios_match, found.curve_matches.unwrap()]
    };
    assert_eq!(matches(&file), [true; 5]);
    let other = |change: &dyn Fn(&mut PublishedFile)| {
        let mut other = file.clone();
        change(&mut other);
        matches(&other)
    };
    assert_eq!(other(&|file| file.sha256.replace_range(..1, "_")), [false, true, true, true, true]);
    assert_eq!(other(&|file| file.rows += 1), [true, false, true, true, true]);
    assert_eq!(other(&|file| file.ideal += 0.005), [true, true, false, true, true]);
    assert_eq!(other(&|file| file.last_half_token_ideal = Some(0.35)), [true, true, false, true, true]);
    assert_eq!(other(&|file| file.lru[2] -= 0.006), [true, true, true, false, true]);
    assert_eq!(other(&|file| file.curve[1].1 += 0.011), [true, true, true, true, false]);
    assert_eq!(other(&|file| file.curve[1].2 += 0.011), [true, true, true, true, false]);
    assert_eq!(other(&|file| file.curve[1].3 += 0.011), [true, true, true, true, false]);
    let text = published(&path, &file).to_text();
    assert!(text.contains("hit ratios by cache size, of the second half's tokens, prefix: real (matches)"), "{text}");
    assert!(text.contains("0.2095 / 0.2095"), "{text}");
}
