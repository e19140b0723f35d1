//! Synthetic traces against the published figures of the traces that they imitate.
//!
//! Thinking is made whole. A, B and coder, of six, ten and fifteen million blocks, are cut to 900 s here, over which only
//! rows, shares and lengths can be compared; `cargo bench --bench trace` makes them whole and prints every figure.

use warmpath::routing::block::BlockSize;
use warmpath::trace::stats::{About, Stats};
use warmpath::trace::{Synthetic, SyntheticPreset};

fn stats(synthetic: &Synthetic) -> Stats {
    let about = About {
        file: "synthetic",
        format: "none",
        block_size: synthetic.block_size,
        prefix: synthetic.provenance.clone(),
    };
    Stats::of_any(about, synthetic.records.iter().cloned().map(Ok), &mut |_| {}).unwrap()
}

/// Published figures; LRU at 5, 10, 25 and 50 % of the distinct blocks.
struct Target {
    preset: SyntheticPreset,
    rows: f64,
    ideal: f64,
    lru: [f64; 4],
    child_share: f64,
    single_request_share: f64,
}

#[track_caller]
fn near(what: &str, value: f64, target: f64, by: f64) {
    assert!((value - target).abs() <= by, "{what} is {value:.4}, not {target} ± {by}");
}

#[track_caller]
fn check_shares(stats: &Stats, target: &Target) {
    let sessions = stats.sessions.as_ref().unwrap();
    near("the share of children", sessions.child_share, target.child_share, 0.02);
    near("the share of single requests", sessions.single_request_share, target.single_request_share, 0.02);
}

#[track_caller]
fn check_whole(target: &Target, seed: u64) {
    let synthetic = Synthetic::generate(target.preset, seed, 7200.0);
    let stats = stats(&synthetic);
    // Sessions come at random: of another seed than the first, a hundredth more or fewer are to be expected, so three may be.
    let rows = if seed == 1 { 0.02 } else { 0.04 };
    near("rows", stats.requests as f64, target.rows, rows * target.rows);
    check_shares(&stats, target);
    let reuse = stats.reuse.as_ref().unwrap();
    near("the ideal hit ratio", reuse.block_hit_ratio, target.ideal, 0.02);
    for (size, published) in reuse.cache_sizes[1..].iter().zip(target.lru) {
        near(&format!("LRU at {:.0} %", size.share * 100.0), size.lru, published, 0.03);
    }
}

#[test]
fn thinking_whatever_the_seed() {
    let target = Target {
        preset: SyntheticPreset::QwenThinking,
        rows: 10_812.0,
        ideal: 0.462,
        lru: [0.430, 0.445, 0.457, 0.460],
        child_share: 0.111,
        single_request_share: 0.947,
    };
    (1..=3).for_each(|seed| check_whole(&target, seed));
}

#[test]
fn a_in_part() {
    let synthetic = Synthetic::generate(SyntheticPreset::QwenA, 1, 900.0);
    // Half an hour of warm-up is not enough for its longest sessions, so the beginning has fewer requests than the rest.
    near("rows", synthetic.records.len() as f64, 43_058.0 / 8.0, 0.08 * 43_058.0 / 8.0);
    let tokens: f64 = synthetic.records.iter().map(|record| f64::from(record.prompt_tokens)).sum();
    near("the mean prompt", tokens / synthetic.records.len() as f64, 2331.0, 400.0);
    let outputs: f64 = synthetic.records.iter().map(|record| f64::from(record.output_tokens)).sum();
    near("the mean output", outputs / synthetic.records.len() as f64, 430.0, 40.0);
}

#[test]
fn b_in_part() {
    let synthetic = Synthetic::generate(SyntheticPreset::QwenB, 1, 900.0);
    near("rows", synthetic.records.len() as f64, 172_800.0 / 8.0, 0.02 * 172_800.0 / 8.0);
    assert!(synthetic.records.iter().all(|record| record.parent.is_none()));
    let tokens: f64 = synthetic.records.iter().map(|record| f64::from(record.prompt_tokens)).sum();
    near("the mean prompt", tokens / synthetic.records.len() as f64, 915.0, 50.0);
}

#[test]
fn coder_in_part() {
    // Half an hour of warm-up is not enough for its longest sessions, so the beginning has fewer requests than the rest.
    let synthetic = Synthetic::generate(SyntheticPreset::QwenCoder, 1, 900.0);
    near("rows", synthetic.records.len() as f64, 43_011.0 / 8.0, 0.12 * 43_011.0 / 8.0);
    let tokens: f64 = synthetic.records.iter().map(|record| f64::from(record.prompt_tokens)).sum();
    near("the mean prompt", tokens / synthetic.records.len() as f64, 5748.0, 500.0);
}

#[test]
fn mooncake() {
    let synthetic = Synthetic::generate(SyntheticPreset::Mooncake, 1, 3537.0);
    let stats = stats(&synthetic);
    near("rows", stats.requests as f64, 12_031.0, 0.03 * 12_031.0);
    near("the ideal hit ratio", stats.reuse.unwrap().block_hit_ratio, 0.366, 0.03);
    near("the share of children", stats.sessions.unwrap().child_share, 0.33, 0.03);
    near("the mean prompt", stats.input_tokens.mean, 12_035.0, 1200.0);
}

#[test]
fn every_preset_keeps_the_rules_of_the_format() {
    for preset in SyntheticPreset::ALL {
        let synthetic = Synthetic::generate(preset, 7, 60.0);
        assert!(synthetic.records.len() > 50, "{preset}");
        assert!(synthetic.records.windows(2).all(|pair| pair[0].at <= pair[1].at), "{preset}: time goes on");
        for record in &synthetic.records {
            let touched = synthetic.block_size.touched_blocks(record.prompt_tokens) as usize;
            assert_eq!(record.blocks.len(), touched, "{preset}");
            assert!(record.parent < record.chat, "{preset}: parents come before children");
        }
        let again = Synthetic::generate(preset, 7, 60.0);
        assert_eq!(synthetic.records, again.records, "{preset}: the same seed gives the same trace");
        assert_ne!(synthetic.records, Synthetic::generate(preset, 8, 60.0).records, "{preset}");
        assert_eq!(synthetic.provenance.to_string(), format!("overlay(synthetic {preset}, 7)"));
    }
    assert_eq!(SyntheticPreset::QwenA.block_size(), BlockSize::DEFAULT);
}
