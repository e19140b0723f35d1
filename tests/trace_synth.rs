//! Synthetic traces against the published figures of the traces that they imitate.
//!
//! Thinking is made whole. A, B and coder, of six, ten and fifteen million blocks, are cut to 900 s here, over which only
//! rows, shares and lengths can be compared; `cargo bench --bench trace` makes them whole and prints every figure.

use warmpath::routing::block::BlockSize;
use warmpath::trace::stats::{About, Stats};
use warmpath::trace::{Figure, Synthetic, SyntheticPreset};

fn stats(synthetic: &Synthetic) -> Stats {
    let about = About {
        file: "synthetic",
        format: "none",
        block_size: synthetic.block_size,
        prefix: synthetic.provenance.clone(),
    };
    Stats::of_any(about, synthetic.records.iter().cloned().map(Ok), &mut |_| {}).unwrap()
}

#[track_caller]
fn near(what: &str, value: f64, target: f64, by: f64) {
    assert!((value - target).abs() <= by, "{what} is {value:.4}, not {target} ± {by}");
}

#[track_caller]
fn meets(what: &str, value: f64, figure: Figure) {
    near(what, value, figure.published, figure.within);
}

#[track_caller]
fn check_whole(preset: SyntheticPreset, seed: u64) {
    let targets = preset.imitates();
    let stats = stats(&Synthetic::generate(preset, seed, targets.seconds));
    meets("rows", stats.requests as f64, targets.requests);
    let sessions = stats.sessions.as_ref().unwrap();
    meets("the share of children", sessions.child_share, targets.child_share);
    if let Some(single_request_share) = targets.single_request_share {
        meets("the share of single requests", sessions.single_request_share, single_request_share);
    }
    let reuse = stats.reuse.as_ref().unwrap();
    meets("the ideal hit ratio", reuse.block_hit_ratio, targets.block_hit_ratio);
    for (size, figure) in reuse.cache_sizes[1..].iter().zip(targets.lru_hit_ratios.into_iter().flatten()) {
        meets(&format!("LRU at {:.0} %", size.share * 100.0), size.lru, figure);
    }
    near("the mean prompt", stats.input_tokens.mean, targets.input_tokens_mean, 0.1 * targets.input_tokens_mean);
    near("the mean output", stats.output_tokens.mean, targets.output_tokens_mean, 0.1 * targets.output_tokens_mean);
}

#[test]
fn thinking_whatever_the_seed() {
    (1..=3).for_each(|seed| check_whole(SyntheticPreset::QwenThinking, seed));
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
fn mooncake_whatever_the_seed() {
    (1..=3).for_each(|seed| check_whole(SyntheticPreset::Mooncake, seed));
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
