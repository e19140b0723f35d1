//! `warmpath trace anonymize`: what remains is when, how long, and what is shared.

use super::input::Reading;
use super::output::Writing;
use crate::trace::{Anonymizer, Salt};
use anyhow::Context;
use std::path::PathBuf;
use zeroize::Zeroize;

/// Make a trace anonymous by the procedure of the published Qwen-Bailian traces.
///
/// Blocks are hashed with SipHash-2-4 under a salt that is drawn for this run, never written, and wiped; then numbered by
/// first appearance. Requests are numbered, parents keep pointing at them, times count from the first request. Which
/// prompts share which prefix is kept exactly. Kinds of requests are kept as they are.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    warmpath trace anonymize own-traffic.jsonl --to qwen-bailian --output to-publish.jsonl")]
pub struct Args {
    /// The trace; `-` is standard input.
    #[arg(value_name = "TRACE")]
    trace: PathBuf,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    writing: Writing,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let mut bytes = [0; 16];
    // The error type of this crate is no standard error without its feature `std`.
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("{error}")).context("cannot draw a salt")?;
    let mut anonymizer = Anonymizer::new(Salt::new(bytes));
    bytes.zeroize();
    let records = args.reading.records(&args.trace)?;
    let (block_size, provenance) = (records.block_size(), records.provenance().clone());
    let anonymous = records.map(|record| record.map(|record| anonymizer.anonymize(&record)));
    args.writing.write(anonymous, block_size, &provenance)?;
    Ok(())
}
