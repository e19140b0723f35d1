//! `warmpath trace synth`: traces made from nothing.

use super::input::is_pipe;
use super::output::Destination;
use super::progress::Progress;
use crate::trace::{Synthetic, SyntheticPreset, Target, Writer, sidecar};
use anyhow::{Context, ensure};
use std::io;
use std::path::PathBuf;

/// Make a synthetic trace, calibrated to the published figures of a real one.
///
/// It is not real data: its name says `synthetic`, and a file beside it, FILE.provenance.json, says preset, seed and targets:
/// what was published of the real trace, and how near to each figure a trace of full length comes, whatever its seed. Readers
/// take where the prefix structure comes from out of that file. The same arguments give the same bytes.
///
/// Presets: qwen-a, qwen-b, qwen-coder, qwen-thinking (written as Qwen-Bailian), mooncake (written as Mooncake). Standard output
/// has no file beside it: there, all are written in the native form, which says itself what it holds.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    warmpath trace synth --preset qwen-a --seed 1 --seconds 600\n  \
    warmpath trace synth --preset qwen-coder --seed 1 --output - | warmpath trace stats -\n  \
    warmpath trace synth --preset mooncake --output - | warmpath trace scale - --factor 0.5 --to mooncake --output twice.jsonl")]
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
    let targets = preset.imitates();
    let seconds = args.seconds.unwrap_or(targets.seconds);
    ensure!(seconds > 0.0 && seconds <= 86_400.0, "--seconds must be above 0 and at most 86400, not {seconds}");
    let path = args.output.unwrap_or_else(|| PathBuf::from(format!("synthetic-{preset}-seed{seed}.jsonl")));
    let bar = Progress::counted(format!("making {preset}"), seconds.ceil() as u64, "seconds");
    let synthetic = Synthetic::generate_told(preset, seed, seconds, &mut |made| bar.reached(made as u64));
    bar.finish();
    let failed = || format!("cannot write {}", path.display());
    let (out, destination) = Destination::open(&path)?;
    let target = match preset {
        SyntheticPreset::Mooncake => Target::Mooncake,
        SyntheticPreset::QwenA
        | SyntheticPreset::QwenB
        | SyntheticPreset::QwenCoder
        | SyntheticPreset::QwenThinking => Target::QwenBailian,
    };
    let target = if is_pipe(&path) { Target::Native } else { target };
    let mut writer = Writer::new(out, target, synthetic.block_size, &synthetic.provenance).with_context(failed)?;
    let requests = synthetic.records.len() as u64;
    let bar = Progress::counted(format!("writing {preset}"), requests, "requests");
    for (written, record) in (1..).zip(&synthetic.records) {
        match writer.write(record) {
            // Who reads has enough: `| warmpath trace head`.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            done => done.with_context(failed)?,
        }
        bar.reached(written);
    }
    bar.finish();
    match writer.finish() {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        done => drop(done.with_context(failed)?),
    }
    if !is_pipe(&path) {
        let said = serde_json::json!({
            "prefix": synthetic.provenance,
            "synthetic": { "preset": preset.name(), "seed": seed, "seconds": seconds },
            "targets": targets,
            "generator": concat!("warmpath ", env!("CARGO_PKG_VERSION")),
        });
        let beside = sidecar(&path);
        std::fs::write(&beside, format!("{said:#}\n")).with_context(|| format!("cannot write {}", beside.display()))?;
    }
    destination.complete()?;
    eprintln!("{}: {requests} requests, synthetic ({preset}, seed {seed})", path.display());
    Ok(())
}
