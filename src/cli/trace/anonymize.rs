//! `warmpath trace anonymize`: what remains is when, how long, and what is shared.

use super::rewrite::Rewrite;
use crate::trace::{Anonymizer, Salt};
use anyhow::Context;
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
    #[command(flatten)]
    rewrite: Rewrite,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let mut bytes = [0; 16];
    // The error type of this crate is no standard error without its feature `std`.
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("{error}")).context("cannot draw a salt")?;
    let mut anonymizer = Anonymizer::new(Salt::new(bytes));
    bytes.zeroize();
    args.rewrite.run(move |input| Box::new(input.map(move |record| Ok(anonymizer.anonymize(&record?)))))
}
