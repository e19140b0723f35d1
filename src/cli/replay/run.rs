//! What `warmpath replay` runs, and where it writes what came out.

use super::Replay;
use crate::replay::{Answered, Experiment, Ledger, Loads, Report, Setup, Study, StudyReport};
use crate::sim::StepModel;
use crate::trace::Trace;
use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::Write;
use std::path::{Path, PathBuf};

pub(super) fn run_study(args: &Replay, fitted: Option<StepModel>) -> anyhow::Result<()> {
    let workload = |path: &PathBuf| args.workload(&args.trace(path)?);
    let study = Study {
        workloads: args.traces.iter().map(workload).collect::<anyhow::Result<_>>()?,
        instances: args.instances.clone(),
        blocks: args.blocks,
        preset: args.preset,
        fitted,
        eviction: args.eviction,
        loads: if args.load.is_empty() {
            Loads::TimeScales(args.time_scale.clone())
        } else {
            Loads::OfCapacity(args.load.clone())
        },
        policies: args.policy.clone(),
        seeds: (args.seed..args.seed + args.seeds.max(1)).collect(),
        conditions: args.conditions(),
        slo: args.slo(),
    };
    let bar = ProgressBar::new(0).with_style(study_style());
    let progress = |requests, total| {
        bar.set_length(total);
        bar.inc(requests);
    };
    let ledger = args.resume.as_deref().map(Ledger::open).transpose()?;
    let report = match &ledger {
        Some(ledger) => study.resume(ledger, &progress),
        None => study.run(&progress),
    };
    bar.finish_and_clear();
    let files = Files { json: args.json.as_deref(), markdown: args.markdown.as_deref(), html: args.html.as_deref() };
    files.write(&report?)
}

/// Where else than to standard output a study is written.
pub(in crate::cli) struct Files<'a> {
    pub json: Option<&'a Path>,
    pub markdown: Option<&'a Path>,
    pub html: Option<&'a Path>,
}

impl Files<'_> {
    /// Writes a study to all of them, and as Markdown to standard output, or as JSON where that is asked for as `-`.
    pub fn write(&self, report: &StudyReport) -> anyhow::Result<()> {
        let json = || serde_json::to_string_pretty(report).context("cannot write the study as JSON");
        let to_stdout = self.json.is_some_and(|file| file.as_os_str() == "-");
        let text = if to_stdout { json()? + "\n" } else { report.to_markdown() };
        write!(std::io::stdout().lock(), "{text}").context("cannot write to standard output")?;
        if let Some(file) = self.json.filter(|_| !to_stdout) {
            write_file(file, &(json()? + "\n"))?;
        }
        if let Some(file) = self.markdown {
            write_file(file, &report.to_markdown())?;
        }
        if let Some(file) = self.html {
            write_file(file, &report.to_html())?;
        }
        Ok(())
    }
}

pub(in crate::cli) fn write_file(file: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

pub(super) fn run_reports(args: &Replay, fitted: Option<StepModel>) -> anyhow::Result<()> {
    let mut reports = Vec::with_capacity(args.traces.len());
    for path in &args.traces {
        reports.push(replay(args, fitted, args.trace(path)?)?);
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

pub(super) fn write_requests(args: &Replay, fitted: Option<StepModel>, file: &Path) -> anyhow::Result<()> {
    let ([path], [policy], 1, 1) =
        (args.traces.as_slice(), args.policy.as_slice(), args.instances.len(), args.time_scale.len())
    else {
        bail!("--csv takes one trace, fleet size, load and policy");
    };
    let trace = args.trace(path)?;
    let setup = Setup {
        fleet: args.fleet(fitted, &trace),
        policy: *policy,
        time_scale: args.time_scale[0],
        seed: args.seed,
        conditions: args.conditions(),
        slo: args.slo(),
    };
    let workload = args.workload(&trace)?;
    setup.check()?;
    let mut answered = Vec::new();
    setup.replay_each(&workload, &|_| {}, &mut |served| answered.push(Answered::simulated(served)));
    write_file(file, &Answered::to_csv(&answered))
}

fn replay(args: &Replay, fitted: Option<StepModel>, trace: Trace) -> anyhow::Result<Report> {
    let fleet = args.fleet(fitted, &trace);
    let experiment = Experiment {
        trace,
        fleet,
        time_scale: args.time_scale[0],
        limit: args.limit,
        seed: args.seed,
        spread_ties: !args.keep_ties,
        unknown_outputs: args.unknown_outputs,
    };
    let bar = ProgressBar::new_spinner().with_style(style());
    bar.set_message(experiment.trace.path().display().to_string());
    let report = experiment.run(&args.policy, &|requests| bar.inc(requests));
    bar.finish_and_clear();
    Ok(report?)
}

fn study_style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} requests replayed  {elapsed}, {eta} to go")
        .expect("the template is well-formed")
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {msg}  {human_pos} requests replayed  {per_sec}  {elapsed}")
        .expect("the template is well-formed")
}
