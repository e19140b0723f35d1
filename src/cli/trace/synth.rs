//! `warmpath trace synth`: traces made from nothing.

use super::input::is_pipe;
use super::output::Destination;
use crate::trace::{Synthetic, SyntheticPreset, Target, Writer, sidecar};
use anyhow::{Context, ensure};
use std::path::PathBuf;

/// Make a synthetic trace, calibrated to the published figures of a real one.
///
/// It is not real data: its name says `synthetic`, and a file beside it says preset, seed and targets. Readers take where
/// the prefix structure comes from out of that file. The same arguments give the same bytes.
///
/// Presets: qwen-a, qwen-b, qwen-coder, qwen-thinking (written as Qwen-Bailian), mooncake (written as Mooncake).
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    warmpath trace synth --preset qwen-a --seed 1 --seconds 600\n  \
    warmpath trace synth --preset qwen-coder --seed 1 --output - | warmpath trace stats -")]
pub struct Args {
    /// The trace to imitate.
    #[arg(long, value_name = "PRESET")]
    preset: SyntheticPreset,

    /// Seed of all chance.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,

    /// How long the trace is. [default: as long as the one it imitates]
    #[arg(long, value_name = "T")]
    seconds: Option<f64>,

    /// The file to write; `-` is standard output. [default: synthetic-PRESET-seedSEED.jsonl]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let Args { preset, seed, .. } = args;
    let (rows, full_seconds) = preset.target();
    let seconds = args.seconds.unwrap_or(full_seconds);
    ensure!(seconds > 0.0 && seconds <= 86_400.0, "--seconds must be above 0 and at most 86400, not {seconds}");
    let path = args.output.unwrap_or_else(|| PathBuf::from(format!("synthetic-{preset}-seed{seed}.jsonl")));
    let synthetic = Synthetic::generate(preset, seed, seconds);
    let failed = || format!("cannot write {}", path.display());
    let (out, destination) = Destination::open(&path)?;
    let target = match preset {
        SyntheticPreset::Mooncake => Target::Mooncake,
        SyntheticPreset::QwenA
        | SyntheticPreset::QwenB
        | SyntheticPreset::QwenCoder
        | SyntheticPreset::QwenThinking => Target::QwenBailian,
    };
    let mut writer = Writer::new(out, target, synthetic.block_size, &synthetic.provenance).with_context(failed)?;
    for record in &synthetic.records {
        writer.write(record).with_context(failed)?;
    }
    writer.finish().with_context(failed)?;
    if !is_pipe(&path) {
        let said = serde_json::json!({
            "prefix": synthetic.provenance,
            "synthetic": { "preset": preset.name(), "seed": seed, "seconds": seconds },
            "imitates": { "requests": rows, "seconds": full_seconds },
            "generator": concat!("warmpath ", env!("CARGO_PKG_VERSION")),
        });
        let beside = sidecar(&path);
        std::fs::write(&beside, format!("{said:#}\n")).with_context(|| format!("cannot write {}", beside.display()))?;
    }
    destination.complete()?;
    eprintln!("{}: {} requests, synthetic ({preset}, seed {seed})", path.display(), synthetic.records.len());
    Ok(())
}
