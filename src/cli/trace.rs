//! `warmpath trace`: what is in a trace, and traces made from others or from nothing.

mod anonymize;
mod input;
mod output;
mod progress;
mod rewrite;
mod stats;
mod synth;
mod transform;

use clap::Subcommand;
pub(super) use input::Reading;

/// Characterise recorded traces, and make new ones.
///
/// Formats are recognised by content; `.gz` and `.zst` are read directly, and `-` is standard input.
#[derive(Debug, clap::Args)]
pub(super) struct Trace {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Stats(stats::Args),
    Synth(synth::Args),
    Convert(transform::Convert),
    Head(transform::Head),
    Slice(transform::SliceArgs),
    Merge(transform::MergeArgs),
    Scale(transform::Scale),
    Anonymize(anonymize::Args),
}

impl Trace {
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Stats(args) => stats::run(args),
            Command::Synth(args) => synth::run(args),
            Command::Convert(args) => transform::convert(args),
            Command::Head(args) => transform::head(args),
            Command::Slice(args) => transform::slice(args),
            Command::Merge(args) => transform::merge(args),
            Command::Scale(args) => transform::scale(args),
            Command::Anonymize(args) => anonymize::run(args),
        }
    }
}
