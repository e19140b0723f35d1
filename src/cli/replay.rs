//! `warmpath replay`: a recorded trace through a simulated fleet, under several policies.

use crate::replay::{Experiment, Fleet, Report};
use crate::routing::policy::{PolicyKind, PolicySpec};
use crate::sim::Preset;
use crate::trace::{TimeUnit, Trace};
use anyhow::Context;
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::Write;
use std::path::PathBuf;

/// Replay recorded traces through a simulated fleet and compare policies.
///
/// The requests of each TRACE go, at the times at which they were recorded, through the very router that serves, to
/// vLLM instances simulated on virtual time. The table shows, for each policy, how much of the prompts came from a
/// cache, beside the best that any cache could do (`ideal`: infinite, shared by all), how long the first token took, and
/// how evenly the load was spread (1.00 is even). The same arguments give the same bytes.
///
/// Formats are recognised by content, gzipped or not: Qwen-Bailian (seconds, 16-token blocks) and Mooncake
/// (milliseconds, 512-token blocks).
#[derive(Debug, clap::Args)]
#[command(after_help = examples())]
pub struct Args {
    /// Trace files; each is replayed and reported by itself.
    #[arg(required = true, value_name = "TRACE")]
    traces: Vec<PathBuf>,

    /// vLLM instances in the fleet.
    #[arg(long, value_name = "N", default_value_t = 8)]
    instances: u16,

    /// KV cache blocks in each instance, of the trace's block size. [default: what fits beside the preset's weights]
    #[arg(long, value_name = "N")]
    blocks: Option<u32>,

    /// Policies to compare, separated by commas.
    #[arg(
        long,
        value_name = "POLICY,…",
        value_delimiter = ',',
        default_value = "round_robin,longest_prefix,prefix_cost"
    )]
    policy: Vec<PolicySpec>,

    /// Model and GPU to simulate.
    #[arg(long, value_name = "PRESET", default_value_t)]
    preset: Preset,

    /// Multiply the time between requests: 0.5 sends them twice as fast.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    time_scale: f64,

    /// Replay only the first N requests.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,

    /// Seed of all chance.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,

    /// Let requests that share a timestamp arrive all at once. Traces round their clocks (Mooncake's to three seconds),
    /// so by default such requests are spread evenly up to the next timestamp.
    #[arg(long)]
    keep_ties: bool,

    /// What the traces count time in, if not what their format says.
    #[arg(long, value_name = "UNIT")]
    time_unit: Option<Unit>,

    /// Write the report as JSON, too; `-` writes it to standard output instead of the table.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Unit {
    /// Seconds.
    S,
    /// Milliseconds.
    Ms,
}

fn examples() -> String {
    let mut text = "Policies:\n".to_owned();
    for policy in PolicyKind::ALL {
        text += &format!("  {:<20} {}\n", policy.name(), policy.summary());
    }
    text += &format!("\nPresets: {}\n", Preset::ALL.map(Preset::name).join(", "));
    text += "\nExamples:\n  \
        warmpath replay conversation_trace.jsonl.gz --instances 8 --blocks 20000\n  \
        warmpath replay qwen_traceA_blksz_16.jsonl --policy prefix_cost,least_loaded --time-scale 0.5 --json report.json";
    text
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let mut reports = Vec::with_capacity(args.traces.len());
    for path in &args.traces {
        let mut trace = Trace::open(path)?;
        if let Some(unit) = args.time_unit {
            trace = trace.with_time_unit(match unit {
                Unit::S => TimeUnit::Seconds,
                Unit::Ms => TimeUnit::Milliseconds,
            });
        }
        reports.push(replay(&args, trace)?);
    }
    let to_stdout = args.json.as_ref().is_some_and(|file| file.as_os_str() == "-");
    let mut out = std::io::stdout().lock();
    if !to_stdout {
        let texts: Vec<String> = reports.iter().map(Report::to_text).collect();
        write!(out, "{}", texts.join("\n")).context("cannot write the table to standard output")?;
    }
    if let Some(file) = &args.json {
        let mut json = serde_json::to_string_pretty(&reports).context("cannot write the report as JSON")?;
        json.push('\n');
        if to_stdout {
            out.write_all(json.as_bytes()).context("cannot write the report to standard output")?;
        } else {
            std::fs::write(file, json).with_context(|| format!("cannot write {}", file.display()))?;
        }
    }
    Ok(())
}

fn replay(args: &Args, trace: Trace) -> anyhow::Result<Report> {
    let blocks = args.blocks.unwrap_or_else(|| args.preset.kv_tokens() / trace.format().block_size().tokens());
    let fleet = Fleet { instances: args.instances, blocks, preset: args.preset };
    let experiment = Experiment {
        trace,
        fleet,
        time_scale: args.time_scale,
        limit: args.limit,
        seed: args.seed,
        spread_ties: !args.keep_ties,
    };
    let bar = ProgressBar::new_spinner().with_style(style());
    bar.set_message(experiment.trace.path().display().to_string());
    let report = experiment.run(&args.policy, &|requests| bar.inc(requests));
    bar.finish_and_clear();
    Ok(report?)
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {msg}  {human_pos} requests replayed  {per_sec}  {elapsed}")
        .expect("the template is well-formed")
}
