//! `warmpath trace convert`, `head`, `slice`, `merge` and `scale`: traces made of traces.

use super::input::{Reading, formats};
use super::output::Writing;
use crate::trace::{Merge, Slice, scaled};
use anyhow::ensure;
use std::path::PathBuf;
use std::time::Duration;

/// Write a trace in another form.
#[derive(Debug, clap::Args)]
#[command(after_help = formats() + "\nExamples:\n  \
    warmpath trace convert BurstGPT_3.csv --overlay inferred --to qwen-bailian --output burstgpt.jsonl\n  \
    zcat trace.jsonl.gz | warmpath trace convert - --to mooncake > mooncake.jsonl")]
pub struct Convert {
    /// The trace; `-` is standard input.
    #[arg(value_name = "TRACE")]
    trace: PathBuf,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    writing: Writing,
}

/// Keep the first requests.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  warmpath trace head qwen_traceA_blksz_16.jsonl -n 1000 | warmpath trace stats -")]
pub struct Head {
    /// The trace; `-` is standard input.
    #[arg(value_name = "TRACE")]
    trace: PathBuf,
    /// How many.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    requests: usize,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    writing: Writing,
}

/// Keep the requests of some time, which then begins at zero.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  warmpath trace slice qwen_traceA_blksz_16.jsonl --from 3600 --to-time 4200 --to qwen-bailian"
)]
pub struct SliceArgs {
    /// The trace; `-` is standard input.
    #[arg(value_name = "TRACE")]
    trace: PathBuf,
    /// The first second kept.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
    from: f64,
    /// The first second not kept. [default: to the end]
    #[arg(long, value_name = "SECONDS")]
    to_time: Option<f64>,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    writing: Writing,
}

/// Put several traces into one, in order of time. They share no blocks and no conversations.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  warmpath trace merge chat.jsonl coder.jsonl --to qwen-bailian --output both.jsonl")]
pub struct MergeArgs {
    /// The traces, of one block size.
    #[arg(required = true, value_name = "TRACE")]
    traces: Vec<PathBuf>,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    writing: Writing,
}

/// Multiply the time between requests: 0.5 brings them twice as fast.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  warmpath trace slice t.jsonl --to-time 600 | warmpath trace scale - --factor 0.5 --to mooncake"
)]
pub struct Scale {
    /// The trace; `-` is standard input.
    #[arg(value_name = "TRACE")]
    trace: PathBuf,
    /// What to multiply by.
    #[arg(long, value_name = "FACTOR")]
    factor: f64,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    writing: Writing,
}

/// Runs `convert`.
pub fn convert(args: Convert) -> anyhow::Result<()> {
    let mut records = args.reading.records(&args.trace)?;
    let (block_size, provenance) = (records.block_size(), records.provenance().clone());
    args.writing.write(records.by_ref(), block_size, &provenance)?;
    for line in records.tally().lines() {
        eprintln!("{}: {line}", args.trace.display());
    }
    Ok(())
}

/// Runs `head`.
pub fn head(args: Head) -> anyhow::Result<()> {
    let records = args.reading.records(&args.trace)?;
    let (block_size, provenance) = (records.block_size(), records.provenance().clone());
    args.writing.write(records.take(args.requests), block_size, &provenance)?;
    Ok(())
}

/// Runs `slice`.
pub fn slice(args: SliceArgs) -> anyhow::Result<()> {
    let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).map_err(|error| anyhow::anyhow!("{error}"));
    let to = args.to_time.map_or(Ok(Duration::MAX), seconds)?;
    let time = seconds(args.from)?..to;
    let records = args.reading.records(&args.trace)?;
    let (block_size, provenance) = (records.block_size(), records.provenance().clone());
    args.writing.write(Slice::new(records, time), block_size, &provenance)?;
    Ok(())
}

/// Runs `merge`.
pub fn merge(args: MergeArgs) -> anyhow::Result<()> {
    let inputs: anyhow::Result<Vec<_>> = args.traces.iter().map(|path| args.reading.records(path)).collect();
    let merged = Merge::new(inputs?)?;
    let (block_size, provenance) = (merged.block_size(), merged.provenance().clone());
    args.writing.write(merged, block_size, &provenance)?;
    Ok(())
}

/// Runs `scale`.
pub fn scale(args: Scale) -> anyhow::Result<()> {
    ensure!(args.factor.is_finite() && args.factor >= 0.0, "--factor must not be negative, as {} is", args.factor);
    let records = args.reading.records(&args.trace)?;
    let (block_size, provenance) = (records.block_size(), records.provenance().clone());
    let scaled = records.map(|record| record.map(|record| scaled(record, args.factor)));
    args.writing.write(scaled, block_size, &provenance)?;
    Ok(())
}
