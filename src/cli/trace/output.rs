//! Where subcommands write the traces they make, and in which form.

use super::input::is_pipe;
use crate::routing::block::BlockSize;
use crate::trace::{Provenance, Record, Target, TraceError, Writer, sidecar};
use anyhow::Context;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

/// Where to write a trace.
#[derive(Debug, clap::Args)]
pub struct Writing {
    /// The form to write: `native`, which loses nothing and goes through pipes, `qwen-bailian`, or `mooncake`.
    #[arg(long, value_name = "FORM", default_value = "native")]
    to: Target,

    /// The file to write; `-` is standard output.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
}

impl Writing {
    /// Writes `records`; gives how many there were.
    ///
    /// A form that cannot say where its prefix structure comes from gets a file beside it that does.
    pub fn write(
        &self,
        records: impl Iterator<Item = Result<Record, TraceError>>,
        block_size: BlockSize,
        provenance: &Provenance,
    ) -> anyhow::Result<u64> {
        let failed = || format!("cannot write {}", self.output.display());
        let out: Box<dyn Write> = match is_pipe(&self.output) {
            true => Box::new(io::stdout().lock()),
            false => Box::new(File::create(&self.output).with_context(failed)?),
        };
        let mut writer = Writer::new(BufWriter::with_capacity(1 << 16, out), self.to, block_size, provenance)
            .with_context(failed)?;
        let mut count = 0;
        for record in records {
            match writer.write(&record?) {
                Ok(()) => count += 1,
                // Who reads has enough: `| warmpath trace head`.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(count),
                Err(error) => return Err(error).with_context(failed),
            }
        }
        match writer.finish() {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error).with_context(failed),
            Ok(_) | Err(_) => {}
        }
        if !self.to.says_provenance() && *provenance != Provenance::Real {
            self.say(provenance)?;
        }
        Ok(count)
    }

    fn say(&self, provenance: &Provenance) -> anyhow::Result<()> {
        if is_pipe(&self.output) {
            eprintln!("warmpath: note: {} cannot say that its prefix structure is {provenance}", self.to.name());
            return Ok(());
        }
        let path = sidecar(&self.output);
        let said =
            serde_json::json!({ "prefix": provenance, "generator": concat!("warmpath ", env!("CARGO_PKG_VERSION")) });
        std::fs::write(&path, format!("{said:#}\n")).with_context(|| format!("cannot write {}", path.display()))
    }
}
