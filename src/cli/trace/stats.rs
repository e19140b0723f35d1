//! `warmpath trace stats`: what is in a trace.

use super::input::{Reading, formats, is_pipe, name, write};
use super::progress::Progress;
use crate::trace::PublishedFile;
use crate::trace::stats::Stats;
use anyhow::Context;
use std::path::PathBuf;

/// Characterise traces: arrivals, lengths, conversations, what prompts share, and hit ratios by cache size.
///
/// A hit is contiguous from the start of a prompt. Beside every hit ratio stands where the prefix structure comes from:
/// recorded (`real`), concluded from recorded conversations (`inferred`), or invented (`overlay`). The same trace gives
/// the same bytes. A file that is called like one of the published Qwen-Bailian files is compared with it.
#[derive(Debug, clap::Args)]
#[command(after_help = examples())]
pub struct Args {
    /// Trace files, folders of JSON files, or `-`; each is reported by itself.
    #[arg(required = true, value_name = "TRACE")]
    traces: Vec<PathBuf>,

    #[command(flatten)]
    reading: Reading,

    /// Write the statistics as JSON, too; `-` writes them to standard output instead of the tables.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// What is published of files, by name, instead of what is known of the Qwen-Bailian ones: a JSON array of objects with
    /// name, sha256, rows, ideal, lru, and maybe last_half_token_ideal and curve.
    #[arg(long, value_name = "FILE")]
    published: Option<PathBuf>,

    /// Write one page with plots, too, that needs nothing else. For one trace only.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

fn examples() -> String {
    formats()
        + "\nExamples:\n  \
        warmpath trace stats conversation_trace.jsonl.gz\n  \
        warmpath trace stats qwen_traceA_blksz_16.jsonl --html qwen-a.html --json qwen-a.json\n  \
        warmpath trace stats AzureLLMInferenceTrace_conv.csv --overlay target=0.4 --overlay-seed 7"
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    anyhow::ensure!(args.html.is_none() || args.traces.len() == 1, "--html takes one trace, not {}", args.traces.len());
    let published = match &args.published {
        None => PublishedFile::known(),
        Some(file) => {
            let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            serde_json::from_str(&text).with_context(|| format!("{} does not say what is published", file.display()))?
        }
    };
    let mut all = Vec::with_capacity(args.traces.len());
    for path in &args.traces {
        let mut records = args.reading.records(path)?;
        let bar = Progress::of(path, &records);
        let mut tick = |requests| bar.passed(requests);
        let known = published.iter().find(|published| published.is_called(path) && path.is_file());
        let stats = match known {
            Some(published) => Stats::of_published(path, published, &mut records, &mut tick),
            None => Stats::of(&name(path), &mut records, &mut tick),
        };
        bar.finish();
        all.push(stats?);
    }
    if !args.json.as_deref().is_some_and(is_pipe) {
        let texts: Vec<String> = all.iter().map(Stats::to_text).collect();
        write(&PathBuf::from("-"), &texts.join("\n"))?;
    }
    if let Some(file) = &args.json {
        let json = serde_json::to_string_pretty(&all).context("cannot write the statistics as JSON")?;
        write(file, &(json + "\n"))?;
    }
    if let (Some(file), [stats]) = (&args.html, all.as_slice()) {
        write(file, &stats.to_html())?;
    }
    Ok(())
}
