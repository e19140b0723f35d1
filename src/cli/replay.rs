//! `warmpath replay`: a recorded trace through a simulated fleet, under several policies.

mod run;

pub(super) use run::{Files, write_file};

use super::trace::Reading;
use crate::replay::{Fleet, Slo, StudyReport, Workload};
use crate::routing::policy::{PolicyKind, PolicySpec};
use crate::sim::{Conditions, Eviction, Fit, Measurement, Preset, StepModel, fit};
use crate::trace::Trace;
use anyhow::Context;
use run::{run_reports, run_study, write_requests};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Replay recorded traces through a simulated fleet and compare policies.
///
/// The requests of each TRACE go, at the times at which they were recorded, through the very router that serves, to
/// vLLM instances simulated on virtual time. The table shows, for each policy, how much of the prompts came from a
/// cache, beside the best that any cache could do (`ideal`: infinite, shared by all, with what was generated in it), how long
/// the first token took, and how evenly the load was spread (1.00 is even). The same arguments give the same bytes.
///
/// Several fleet sizes, loads or seeds, worse conditions, or a report as Markdown or HTML make it a study: one table for
/// each trace, fleet size and load, every figure a mean over the seeds, and how each policy fared over all of them.
///
/// Formats are recognised by content, plain, gzipped or compressed with Zstandard; `warmpath trace stats --help` lists
/// them. Beside the trace stands where its prefix structure, and with it every hit ratio, comes from.
#[derive(Debug, clap::Args)]
#[command(after_help = examples())]
pub(super) struct Replay {
    /// Trace files; each is replayed and reported by itself.
    #[arg(required_unless_present_any = ["compare", "fit"], value_name = "TRACE")]
    traces: Vec<PathBuf>,

    /// vLLM instances in the fleet; several sizes are studied one by one.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "8")]
    instances: Vec<u16>,

    /// KV cache blocks in each instance, of the trace's block size. [default: what fits beside the preset's weights]
    #[arg(long, value_name = "N")]
    blocks: Option<u32>,

    /// Policies to compare, separated by commas; numbers of a policy after colons: `dynamo:overlap_weight=20`. With `hold=1`
    /// under any policy, the router holds a request while the step under way has more than so many engine steps full of prefill to go,
    /// or others would wait long for it in the next one, and places the shortest first, as `hold_steps` has it do when it serves;
    /// `prefix_cost` does so by 0.4 unless `hold=0` is said.
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

    /// Fit step times to measurements of one's own and replay with them instead of the preset's; without TRACE, only tell
    /// them. A CSV file with a row a step (prefill_tokens, prefill_context_tokens, decode_sequences, decode_context_tokens,
    /// seconds), or with a row a request sent alone, as `warmpath load --in-flight-max 1 --csv FILE` writes.
    #[arg(long, value_name = "FILE")]
    fit: Option<PathBuf>,

    /// Which free block an instance evicts first: lru (vLLM), fifo, lfu, gdfs, s3_fifo, workload_aware, flop_aware, or
    /// clairvoyant (a bound: in hindsight).
    #[arg(long, value_name = "POLICY", default_value_t)]
    eviction: Eviction,

    /// Multiply the time between requests: 0.5 sends them twice as fast. Several are studied one by one.
    #[arg(long, value_name = "FACTOR,…", value_delimiter = ',', default_value = "1")]
    time_scale: Vec<f64>,

    /// Load, as shares of the fleet's capacity, which is measured first: where Mooncake's policy still answers nine
    /// requests in ten within the service level.
    #[arg(long, value_name = "SHARE,…", value_delimiter = ',', conflicts_with = "time_scale")]
    load: Vec<f64>,

    /// Replay only the first N requests.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,

    /// Seed of all chance.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,

    /// Seeds to take the mean over, from `--seed` on. They also move requests within their timestamp.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seeds: u64,

    /// How late cache events reach the router, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    index_delay: u64,

    /// The share of cache events that never reach the router, 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    events_lost: f64,

    /// How late instances' metrics reach the router, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    report_delay: u64,

    /// How late the router learns of first tokens and ends, in milliseconds. What streams through it, it sees at once.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    answer_delay: u64,

    /// Routers that share the requests and do not know of one another's.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    routers: u16,

    /// Service level: time to first token, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 5000)]
    slo_ttft: u64,

    /// Service level: mean time a token after the first, in milliseconds. [default: any]
    #[arg(long, value_name = "MS")]
    slo_tpot: Option<u64>,

    /// Let requests that share a timestamp arrive all at once. Traces round their clocks (Mooncake's to three seconds),
    /// so by default such requests are spread evenly up to the next timestamp.
    #[arg(long)]
    keep_ties: bool,

    /// Let no prompt repeat an earlier output. By default the blocks of a conversation's next turn are taken for what the turn
    /// before it generated and its instance kept, where the trace has both; but an endpoint that `load` sends a trace to
    /// answers in its own words.
    #[arg(long)]
    unknown_outputs: bool,

    #[command(flatten)]
    reading: Reading,

    /// Write the report as JSON, too; `-` writes it to standard output instead of the table.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write the study as Markdown, too.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,

    /// Write the study as one HTML page with plots, too.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Write every request that was served as a row, as `load --csv` does, instead of a report. For one trace, fleet size, load
    /// and policy.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "markdown", "html", "load"])]
    csv: Option<PathBuf>,

    /// Keep what is finished in this file, line by line, and do not do again what it has: a study that was cut off goes on where it
    /// was. It may have been another study's.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["csv", "compare"])]
    resume: Option<PathBuf>,

    /// Compare two studies written with `--json`, the older one first, instead of replaying.
    #[arg(long, value_names = ["A", "B"], num_args = 2, conflicts_with = "traces")]
    compare: Vec<PathBuf>,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| format!("{text:?} is not a number from 0 to 1"))
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

fn read_study(path: &Path) -> anyhow::Result<StudyReport> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not a study written by replay --json", path.display()))
}

impl Replay {
    pub fn run(self) -> anyhow::Result<()> {
        if let [older, newer] = self.compare.as_slice() {
            let text = read_study(newer)?.compare(&read_study(older)?);
            return write!(std::io::stdout().lock(), "{text}").context("cannot write to standard output");
        }
        let fit = self.fit()?;
        if let Some(fit) = &fit {
            if self.traces.is_empty() {
                return write!(std::io::stdout().lock(), "{}", fit.to_text())
                    .context("cannot write to standard output");
            }
            eprint!("{}", fit.to_text());
        }
        let fitted = fit.map(|fit| fit.model);
        match &self.csv {
            Some(file) => write_requests(&self, fitted, file),
            None if self.is_study() => run_study(&self, fitted),
            None => run_reports(&self, fitted),
        }
    }

    fn fit(&self) -> anyhow::Result<Option<Fit>> {
        let Some(file) = &self.fit else { return Ok(None) };
        let step_tokens = self.preset.step_model().prefill.step_tokens;
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let fitted = Measurement::read_csv(&text, step_tokens)
            .map_err(anyhow::Error::from)
            .and_then(|measurements| Ok(fit(&measurements, step_tokens)?));
        fitted.map(Some).with_context(|| format!("cannot fit step times to {}", file.display()))
    }

    fn is_study(&self) -> bool {
        self.instances.len() > 1
            || self.time_scale.len() > 1
            || !self.load.is_empty()
            || self.seeds > 1
            || self.conditions() != Conditions::default()
            || self.slo() != Slo::default()
            || self.markdown.is_some()
            || self.html.is_some()
            || self.resume.is_some()
    }

    fn fleet(&self, fitted: Option<StepModel>, trace: &Trace) -> Fleet {
        let fits = self.preset.kv_tokens() / trace.block_size().tokens();
        let blocks = self.blocks.unwrap_or(fits);
        Fleet { instances: self.instances[0], blocks, preset: self.preset, fitted, eviction: self.eviction }
    }

    fn conditions(&self) -> Conditions {
        let [index_delay, report_delay, answer_delay] =
            [self.index_delay, self.report_delay, self.answer_delay].map(Duration::from_millis);
        Conditions { index_delay, events_lost: self.events_lost, report_delay, answer_delay, routers: self.routers }
    }

    fn slo(&self) -> Slo {
        Slo { ttft: Duration::from_millis(self.slo_ttft), tpot: self.slo_tpot.map(Duration::from_millis) }
    }

    fn workload(&self, trace: &Trace) -> anyhow::Result<Workload> {
        let workload = Workload::load(trace, self.limit, !self.keep_ties)?;
        Ok(if self.unknown_outputs { workload.with_unknown_outputs() } else { workload })
    }

    fn trace(&self, path: &Path) -> anyhow::Result<Trace> {
        self.reading.trace(path)
    }
}
