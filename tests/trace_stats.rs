//! Statistics of real traces, to the digits that were published or measured on them.

use flate2::{Compression, write::GzEncoder};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use warmpath::trace::stats::{Arrivals, Distribution, ReuseStats, Stats};
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
    /// CV of the interarrival times, and its median over five minutes; dispersion in 1 s and 60 s.
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
    let Arrivals { interarrival_cv, interarrival_cv_5min, dispersion_1s, dispersion_60s, .. } = *arrivals;
    let bursts = [interarrival_cv, interarrival_cv_5min, dispersion_1s, dispersion_60s];
    assert_eq!(digits(&bursts, 2), golden.bursts);
    let lengths = |d: &Distribution| format!("{:.1} {:.0} {:.0}", d.mean, d.p50, d.p99);
    assert_eq!(lengths(&stats.input_tokens), golden.input);
    assert_eq!(lengths(&stats.output_tokens), golden.output);
}

/// What prompts share in it.
struct GoldenReuse {
    /// And distinct ones.
    blocks: (u64, u64),
    /// Ideal hit ratio of blocks, of tokens, and of tokens where only full blocks are kept.
    ideal: &'static str,
    /// The first two of the second half.
    last_half: &'static str,
    /// Share of the blocks that are reused.
    reused: &'static str,
    /// Share of reuse of the top 1, 10 and 20 % of the blocks.
    top: &'static str,
    /// Quartiles.
    reuse_seconds: &'static str,
    stack_distance: &'static str,
    /// At 1, 5, 10, 25 and 50 % of the distinct blocks.
    lru: &'static str,
    /// The same as the traces' survey gives it.
    lru_to_three_digits: &'static str,
    /// Distinct first blocks, and the share of prompts that begin with the most frequent.
    roots: (u64, &'static str),
    /// Share of the requests that look like continuations, and the median time since what they continue.
    continued: &'static str,
}

#[track_caller]
fn check_reuse(stats: &Stats, golden: GoldenReuse) {
    let reuse: &ReuseStats = stats.reuse.as_ref().unwrap();
    let quartiles = |d: &Distribution| digits(&[d.p25, d.p50, d.p75], 0);
    let continued = reuse.continued.as_ref().unwrap();
    let top = reuse.popularity.iter().filter(|top| [0.01, 0.1, 0.2].contains(&top.top_share));
    let top: Vec<f64> = top.map(|top| top.reuse_share).collect();
    let lru: Vec<f64> = reuse.cache_sizes.iter().map(|size| size.lru).collect();
    let ideal = [reuse.block_hit_ratio, reuse.token_hit_ratio, reuse.full_block_token_hit_ratio];
    assert_eq!((reuse.blocks, reuse.distinct_blocks), golden.blocks);
    assert_eq!(digits(&ideal, 4), golden.ideal);
    assert_eq!(digits(&[reuse.last_half_block_hit_ratio, reuse.last_half_token_hit_ratio], 4), golden.last_half);
    assert_eq!(digits(&[reuse.reused_block_share], 3), golden.reused);
    assert_eq!(digits(&top, 3), golden.top);
    assert_eq!(quartiles(&reuse.reuse_seconds), golden.reuse_seconds);
    assert_eq!(quartiles(&reuse.stack_distance_blocks), golden.stack_distance);
    assert_eq!(digits(&lru, 4), golden.lru);
    let to_three_digits = lru.iter().map(|ratio| format!(".{:03}", ((ratio * 1e4).round() as u32 + 5) / 10));
    assert_eq!(to_three_digits.collect::<Vec<_>>().join(" "), golden.lru_to_three_digits);
    assert_eq!((reuse.roots, digits(&[reuse.top_root_share], 3).as_str()), golden.roots);
    let said = format!("{:.3} {:.0}", continued.share, continued.gap_seconds.p50);
    assert_eq!(said, golden.continued);
}

#[test]
fn mooncake_conversation() {
    let stats = stats("mooncake/conversation_trace.jsonl.gz", Overlay::None);
    check(
        &stats,
        Golden {
            requests: 12_031,
            pace: "3536.999 3.40",
            bursts: "3.03 3.08 7.90 2.89",
            input: "12035.1 6909 85400",
            output: "342.6 350 1119",
        },
    );
    // This trace's survey says .053 and .354 of LRU at 1 % and 25 %, where .05247 and .35348 are .0525 and .3535 to four digits
    // and .052 and .353 to three: it rounded twice. So do `lru_to_three_digits`, and all ten of its figures are met.
    check_reuse(
        &stats,
        GoldenReuse {
            blocks: (288_500, 182_790),
            ideal: "0.3664 0.3736 0.3734",
            last_half: "0.3900 0.3981",
            reused: "0.242",
            top: "0.317 0.751 0.928",
            reuse_seconds: "54 114 267",
            stack_distance: "4292 8356 17849",
            lru: "0.0525 0.1958 0.2789 0.3535 0.3631",
            lru_to_three_digits: ".053 .196 .279 .354 .363",
            roots: (1, "1.000"),
            // The survey's 126 s is the upper of the two in the middle, 123 and 126.
            continued: "0.330 124",
        },
    );
}

#[test]
fn mooncake_synthetic() {
    let stats = stats("mooncake/synthetic_trace.jsonl.gz", Overlay::None);
    check(
        &stats,
        Golden {
            requests: 3993,
            pace: "1022.025 3.91",
            bursts: "1.01 0.99 1.09 1.19",
            input: "15325.5 11587 66456",
            output: "149.1 69 768",
        },
    );
    check_reuse(
        &stats,
        GoldenReuse {
            blocks: (121_877, 43_924),
            ideal: "0.6396 0.6512 0.6504",
            last_half: "0.8511 0.8627",
            reused: "0.416",
            top: "0.101 0.496 0.753",
            reuse_seconds: "18 59 158",
            stack_distance: "2269 6265 12728",
            lru: "0.0381 0.1566 0.2623 0.4441 0.5888",
            lru_to_three_digits: ".038 .157 .262 .444 .589",
            roots: (2211, "0.006"),
            // The survey says 54 s: it may have taken another of several requests that a prompt begins with.
            continued: "0.362 53",
        },
    );
}

#[test]
fn mooncake_toolagent_slice() {
    let stats = stats("mooncake/toolagent_arxiv_slice_93rows.jsonl", Overlay::None);
    check(
        &stats,
        Golden {
            requests: 93,
            pace: "12.215 7.61",
            bursts: "4.69 0.00 14.40 0.00",
            input: "7694.8 6182 30325",
            output: "200.1 35 787",
        },
    );
    check_reuse(
        &stats,
        GoldenReuse {
            blocks: (1449, 937),
            ideal: "0.3533 0.3663 0.3663",
            last_half: "0.3488 0.3608",
            reused: "0.019",
            top: "0.617 1.000 1.000",
            reuse_seconds: "0 0 0",
            stack_distance: "13 18 50",
            lru: "0.1373 0.2740 0.3216 0.3533 0.3533",
            // The survey has none of the slice.
            lru_to_three_digits: ".137 .274 .322 .353 .353",
            roots: (3, "0.484"),
            continued: "0.495 0",
        },
    );
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
            bursts: "13.15 10.15 13.19 163.96",
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
            bursts: "1.09 1.03 1.39 16.13",
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
    assert_eq!((found.sha256_matches, found.rows_match, found.curve_matches), (false, false, Some(false)));
    assert!(stats.to_text().contains("sha256 DIFFERS"));
}

fn published(path: &Path, file: &PublishedFile) -> Stats {
    Stats::of_published(path, file, &mut Trace::open(path).unwrap().records().unwrap(), &mut |_| {}).unwrap()
}

/// `published_slice.py` computed by the book what is said of this file; every figure must be found, and every one missed.
#[test]
fn every_published_figure_can_match_and_can_differ() {
    let folder = tempfile::tempdir().unwrap();
    let path = data("mooncake/toolagent_arxiv_slice_93rows.jsonl");
    let text = std::fs::read_to_string(data("mooncake/published_slice.json")).unwrap();
    let [file]: [PublishedFile; 1] = serde_json::from_str(&text).unwrap();
    let matches = |file: &PublishedFile| {
        let found = published(&path, file).published.unwrap();
        let Published { rows_match, ideal_hit_ratio_matches, lru_hit_ratios_match, .. } = found;
        [found.sha256_matches, rows_match, ideal_hit_ratio_matches, lru_hit_ratios_match, found.curve_matches.unwrap()]
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
    let compressed = folder.path().join("toolagent_arxiv_slice_93rows.jsonl.gz");
    let mut gzip = GzEncoder::new(File::create(&compressed).unwrap(), Compression::fast());
    gzip.write_all(&std::fs::read(&path).unwrap()).unwrap();
    gzip.finish().unwrap();
    assert!(published(&compressed, &file).published.unwrap().sha256_matches, "of what is in it");
    let text = published(&path, &file).to_text();
    assert!(
        text.contains("hit ratios by cache size, of the second half's tokens, prefix: real (matches: off by "),
        "{text}"
    );
    assert!(text.contains("0.1668 / 0.1668"), "{text}");
}
