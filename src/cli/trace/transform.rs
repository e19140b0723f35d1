//! `warmpath trace convert`, `head`, `slice`, `merge` and `scale`: traces made of traces.

use super::input::{Reading, formats};
use super::output::{About, Writing};
use super::progress::Progress;
use super::rewrite::{Rewrite, say_left_out};
use crate::trace::{Merge, Records, Slice, scaled};
use std::path::PathBuf;
use std::time::Duration;

/// Write a trace in another form.
#[derive(Debug, clap::Args)]
#[command(after_help = formats() + "\nExamples:\n  \
    warmpath trace convert BurstGPT_3.csv --overlay inferred --to qwen-bailian --output burstgpt.jsonl\n  \
    zcat trace.jsonl.gz | warmpath trace convert - --to mooncake > mooncake.jsonl")]
pub struct Convert {
    #[command(flatten)]
    rewrite: Rewrite,
}

/// Keep the first requests.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  warmpath trace head qwen_traceA_blksz_16.jsonl -n 1000 | warmpath trace stats -")]
pub struct Head {
    /// How many.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    requests: usize,
    #[command(flatten)]
    rewrite: Rewrite,
}

/// Keep the requests of some time, which then begins at zero.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  warmpath trace slice qwen_traceA_blksz_16.jsonl --from 3600 --until 4200 --to qwen-bailian"
)]
pub struct SliceArgs {
    /// The first second kept.
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds, allow_negative_numbers = true)]
    from: Duration,
    /// The first second not kept. [default: to the end]
    #[arg(long, value_name = "SECONDS", value_parser = seconds, allow_negative_numbers = true)]
    until: Option<Duration>,
    #[command(flatten)]
    rewrite: Rewrite,
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
    after_help = "Example:\n  warmpath trace slice t.jsonl --until 600 | warmpath trace scale - --factor 0.5 --to mooncake"
)]
pub struct Scale {
    /// What to multiply by.
    #[arg(long, value_name = "FACTOR", value_parser = factor, allow_negative_numbers = true)]
    factor: f64,
    #[command(flatten)]
    rewrite: Rewrite,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| format!("{text:?} is not a number of seconds"))
}

fn factor(text: &str) -> Result<f64, String> {
    let factor = text.parse::<f64>().ok().filter(|factor| factor.is_finite() && *factor >= 0.0);
    factor.ok_or_else(|| format!("{text:?} is not a number from 0"))
}

/// Runs `convert`.
pub fn convert(args: Convert) -> anyhow::Result<()> {
    args.rewrite.run(|input| Box::new(input))
}

/// Runs `head`.
pub fn head(args: Head) -> anyhow::Result<()> {
    args.rewrite.run(|input| Box::new(input.take(args.requests)))
}

/// Runs `slice`.
pub fn slice(args: SliceArgs) -> anyhow::Result<()> {
    let until = args.until.unwrap_or(Duration::MAX);
    anyhow::ensure!(args.from < until, "nothing lies between --from {:?} and --until {until:?}", args.from);
    args.rewrite.run(|input| Box::new(Slice::new(input, args.from..until)))
}

/// Runs `merge`.
pub fn merge(args: MergeArgs) -> anyhow::Result<()> {
    let MergeArgs { traces, reading, writing } = args;
    let inputs: Vec<Records> = traces.iter().map(|path| reading.records(path)).collect::<anyhow::Result<_>>()?;
    let bar = match writing.is_pipe() {
        true => Progress::hidden(),
        false => Progress::of_all(format!("{} traces", inputs.len()), &inputs.iter().collect::<Vec<_>>()),
    };
    let mut merged = Merge::new(inputs)?;
    let about = About { block_size: merged.block_size(), provenance: merged.provenance().clone() };
    let written = writing.write(merged.by_ref().inspect(|_| bar.passed(1)), &about);
    bar.finish();
    written?;
    for (path, records) in traces.iter().zip(merged.inputs()) {
        say_left_out(path, records);
    }
    Ok(())
}

/// Runs `scale`.
pub fn scale(args: Scale) -> anyhow::Result<()> {
    let Scale { factor, rewrite } = args;
    rewrite.run(move |input| Box::new(input.map(move |record| Ok(scaled(record?, factor)))))
}
