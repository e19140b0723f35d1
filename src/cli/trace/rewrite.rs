//! What all subcommands have in common that make one trace of another.

use super::input::Reading;
use super::output::{About, Writing};
use super::progress::Progress;
use crate::trace::{Record, Records, TraceError};
use std::path::{Path, PathBuf};

/// A trace to read and one to write.
#[derive(Debug, clap::Args)]
pub struct Rewrite {
    /// The trace; `-` is standard input.
    #[arg(value_name = "TRACE")]
    trace: PathBuf,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    writing: Writing,
}

impl Rewrite {
    /// Reads the trace and writes what `change` makes of it.
    pub fn run(
        &self,
        change: impl for<'a> FnOnce(&'a mut Input) -> Box<dyn Iterator<Item = Result<Record, TraceError>> + 'a>,
    ) -> anyhow::Result<()> {
        let records = self.reading.records(&self.trace)?;
        let bar = if self.writing.is_pipe() { Progress::hidden() } else { Progress::of(&self.trace, &records) };
        let about = About::of(&records);
        let mut input = Input { records, bar };
        let written = self.writing.write(change(&mut input), &about);
        input.bar.finish();
        written?;
        say_left_out(&self.trace, &input.records);
        Ok(())
    }
}

/// Says what reading left out, and why.
pub fn say_left_out(trace: &Path, records: &Records) {
    for line in records.tally().lines() {
        eprintln!("{}: {line}", trace.display());
    }
}

/// The records of a trace, with a bar that shows how many have passed.
pub struct Input {
    records: Records,
    bar: Progress,
}

impl Iterator for Input {
    type Item = Result<Record, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.bar.passed(1);
        self.records.next()
    }
}
