//! `warmpath load`: a recorded trace against a live endpoint.

mod completion;
mod sender;

use super::reach::Reach;
use super::replay::{Files, write_file};
use super::shutdown;
use super::trace::Reading;
use crate::replay::{Answered, Endpoint, Slo, Workload};
use crate::trace::prompt;
use anyhow::{Context, Result, bail};
use sender::{Outcome, Sender};
use std::path::PathBuf;
use std::time::Duration;

/// Replay a recorded trace against a live endpoint and measure how it answers.
///
/// Each request of TRACE is sent to URL/v1/completions at the time at which it was recorded, whether or not those before
/// it were answered, with a prompt of token ids in which equal blocks have equal tokens: prefixes match as they did. Times
/// count from when a request was due. Hit ratios need an endpoint that tells cached tokens (vLLM: `--enable-prompt-tokens-details`).
///
/// The report is that of `replay`. Say what is behind the endpoint as you would say it to `replay`, and `warmpath replay
/// --compare` sets the two beside one another. Ctrl-C stops, and reports what was answered.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Load {
    /// A trace file, as for `replay`.
    #[arg(value_name = "TRACE")]
    trace: PathBuf,

    /// The endpoint: a router, or an instance.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: String,

    /// The model to be served by.
    #[arg(long)]
    model: String,

    /// Multiply the time between requests: 0.5 sends them twice as fast.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = factor)]
    time_scale: f64,

    /// Send only the first N requests.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,

    /// Moves requests within their timestamp, as in `replay`.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,

    /// Let requests that share a timestamp be sent all at once.
    #[arg(long)]
    keep_ties: bool,

    /// Requests in flight, at most; further ones are late, and are said to be.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    in_flight_max: u32,

    /// Give a request up after so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,

    /// Leave out requests with longer prompts.
    #[arg(long, value_name = "N")]
    prompt_tokens_max: Option<u32>,

    /// Ask for no more than so many tokens.
    #[arg(long, value_name = "N")]
    output_tokens_max: Option<u32>,

    /// Token ids stay below this.
    #[arg(long, value_name = "N", default_value_t = prompt::VOCABULARY,
          value_parser = clap::value_parser!(u32).range(2..))]
    vocabulary: u32,

    /// Instances behind the endpoint, for the report.
    #[arg(long, value_name = "N", default_value_t = 1)]
    instances: u16,

    /// KV cache blocks in each, of the trace's block size, for the report.
    #[arg(long, value_name = "N")]
    blocks: Option<u32>,

    /// What they run, for the report: a preset of `replay`, or any other name.
    #[arg(long, value_name = "NAME", default_value = "unknown")]
    preset: String,

    /// The router's policy, for the report.
    #[arg(long, value_name = "NAME", default_value = "live")]
    policy: String,

    /// Service level: time to first token, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 5000)]
    slo_ttft: u64,

    /// Service level: mean time a token after the first, in milliseconds. [default: any]
    #[arg(long, value_name = "MS")]
    slo_tpot: Option<u64>,

    #[command(flatten)]
    reading: Reading,

    /// Write every request that was answered as a row, too.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,

    /// Write the report as JSON, too; `-` writes it to standard output instead of the table.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write the report as Markdown, too.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,

    /// Write the report as one HTML page, too.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    #[command(flatten)]
    reach: Reach,
}

const EXAMPLES: &str = "Examples:
  warmpath load conversation_trace.jsonl.gz --model Qwen/Qwen3-32B --limit 500 --instances 2 --policy prefix_cost \\
      --preset qwen3-32b-h100-tp2 --blocks 527 --json live.json
  warmpath replay conversation_trace.jsonl.gz --limit 500 --instances 2 --policy prefix_cost --seeds 2 \\
      --unknown-outputs --json sim.json
  warmpath replay --compare sim.json live.json";

fn factor(text: &str) -> Result<f64, String> {
    let factor = text.parse::<f64>().ok().filter(|factor| factor.is_finite() && *factor > 0.0);
    factor.ok_or_else(|| format!("{text:?} is not a number above 0"))
}

impl Load {
    pub fn run(self) -> Result<()> {
        let trace = self.reading.trace(&self.trace)?;
        let workload = Workload::load(&trace, self.limit, !self.keep_ties)?.with_unknown_outputs();
        let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
        let outcome = runtime.block_on(async {
            let stop = shutdown::requested()?;
            Sender::new(&self)?.send(&trace, &workload, stop).await
        })?;
        runtime.shutdown_background();
        for line in outcome.notes() {
            eprintln!("{line}");
        }
        self.report(&workload, &outcome)
    }

    fn report(&self, workload: &Workload, outcome: &Outcome) -> Result<()> {
        if outcome.answered.is_empty() {
            bail!("no request was answered");
        }
        if let Some(file) = &self.csv {
            write_file(file, &Answered::to_csv(&outcome.answered))?;
        }
        let slo = Slo { ttft: Duration::from_millis(self.slo_ttft), tpot: self.slo_tpot.map(Duration::from_millis) };
        let endpoint = Endpoint {
            instances: self.instances,
            blocks: self.blocks,
            preset: self.preset.clone(),
            policy: self.policy.clone(),
            time_scale: self.time_scale,
        };
        let report = endpoint.report(workload, slo, &outcome.answered, outcome.failed());
        let files =
            Files { json: self.json.as_deref(), markdown: self.markdown.as_deref(), html: self.html.as_deref() };
        files.write(&report)
    }
}
