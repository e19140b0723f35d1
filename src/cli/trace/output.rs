//! Where subcommands write the traces they make, and in which form.

use super::input::is_pipe;
use crate::routing::block::BlockSize;
use crate::trace::{Provenance, Record, Records, Target, TraceError, Writer, sidecar};
use anyhow::Context;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Where to write a trace.
#[derive(Debug, clap::Args)]
pub struct Writing {
    /// The form to write: `native`, which loses nothing and goes through pipes, `qwen-bailian`, or `mooncake`.
    #[arg(long, value_name = "FORM", default_value = "native")]
    to: Target,

    /// The file to write, which appears when it is complete; `-` is standard output.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
}

/// What is said of records once, not by each of them.
pub struct About {
    /// Tokens in each of their blocks.
    pub block_size: BlockSize,
    /// Where their prefix structure comes from.
    pub provenance: Provenance,
}

impl About {
    /// Of what is being read.
    pub fn of(records: &Records) -> Self {
        About { block_size: records.block_size(), provenance: records.provenance().clone() }
    }
}

impl Writing {
    /// Whether it goes to standard output, where a terminal or another command shows how far it is.
    pub fn is_pipe(&self) -> bool {
        is_pipe(&self.output)
    }

    /// Writes `records`; gives how many there were.
    ///
    /// A form that cannot say where its prefix structure comes from gets a file beside it that does.
    pub fn write(
        &self,
        records: impl Iterator<Item = Result<Record, TraceError>>,
        about: &About,
    ) -> anyhow::Result<u64> {
        let About { block_size, provenance } = about;
        let failed = || format!("cannot write {}", self.output.display());
        let (out, destination) = Destination::open(&self.output)?;
        let mut writer = Writer::new(out, self.to, *block_size, provenance).with_context(failed)?;
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
        } else if !self.is_pipe() {
            unsay(&self.output)?;
        }
        destination.complete()?;
        Ok(count)
    }

    fn say(&self, provenance: &Provenance) -> anyhow::Result<()> {
        if self.is_pipe() {
            eprintln!("warmpath: note: {} cannot say that its prefix structure is {provenance}", self.to.name());
            return Ok(());
        }
        let path = sidecar(&self.output);
        let said =
            serde_json::json!({ "prefix": provenance, "generator": concat!("warmpath ", env!("CARGO_PKG_VERSION")) });
        fs::write(&path, format!("{said:#}\n")).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Takes away what was said of an earlier file of this name.
fn unsay(output: &Path) -> anyhow::Result<()> {
    let path = sidecar(output);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}, which belongs to an earlier file", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A file that gets its name when it is complete, so that nobody takes half a trace for a whole one, and a trace can be
/// replaced by what is made of it. Dropped before that, nothing of it remains.
pub struct Destination {
    /// Written now, and what it becomes; `None` for a pipe or a device, which are written to directly.
    partial: Option<(PathBuf, PathBuf)>,
}

impl Destination {
    /// What to write to, buffered, for a file or, for `-`, standard output.
    pub fn open(path: &Path) -> anyhow::Result<(Box<dyn Write>, Destination)> {
        let buffered = |out: Box<dyn Write>| Box::new(BufWriter::with_capacity(1 << 16, out));
        if is_pipe(path) {
            return Ok((buffered(Box::new(io::stdout().lock())), Destination { partial: None }));
        }
        let failed = || format!("cannot write {}", path.display());
        if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
            let out = File::options().write(true).open(path).with_context(failed)?;
            return Ok((buffered(Box::new(out)), Destination { partial: None }));
        }
        let mut name = path.as_os_str().to_owned();
        name.push(".part");
        let partial = PathBuf::from(name);
        let out = File::create(&partial).with_context(failed)?;
        Ok((buffered(Box::new(out)), Destination { partial: Some((partial, path.to_owned())) }))
    }

    /// All was written and flushed.
    pub fn complete(mut self) -> anyhow::Result<()> {
        let Some((partial, path)) = self.partial.take() else { return Ok(()) };
        fs::rename(&partial, &path).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        if let Some((partial, _)) = &self.partial {
            // Nothing better can be done about it here.
            let _ = fs::remove_file(partial);
        }
    }
}
