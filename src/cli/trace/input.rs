//! How all subcommands name a trace and say how to read it.

use crate::routing::block::BlockSize;
use crate::serve::tokenizer_for_traces;
use crate::trace::{ChatArrivals, Format, How, Overlay, Records, TimeUnit, Trace};
use anyhow::{Context, bail};
use clap::ValueEnum;
use std::path::{Path, PathBuf};

/// How to read a trace, where not as its format says.
#[derive(Debug, clap::Args)]
pub struct Reading {
    /// What the trace counts time in, if not what its format says.
    #[arg(long, value_name = "UNIT")]
    time_unit: Option<Unit>,

    /// Tokens a block, for formats that do not say, and for traces of tokens.
    #[arg(long, value_name = "TOKENS", value_parser = block_size)]
    block_size: Option<BlockSize>,

    /// Prefix structure for a trace that has none: `none`, `inferred`, `apps`, `sessions`, or `target=H` for an ideal hit
    /// ratio of H. It is a hypothesis, and is printed beside every hit ratio.
    #[arg(long, value_name = "OVERLAY", default_value = "none")]
    overlay: String,

    /// Seed of the overlay.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    overlay_seed: u64,

    /// For traces of texts: the model's folder, with tokenizer.json and its chat template, as on Hugging Face's hub.
    #[arg(long, value_name = "FOLDER")]
    tokenizer: Option<PathBuf>,

    /// For traces without times: conversations that begin in a second. The next question comes once the answer has been
    /// read.
    #[arg(long, value_name = "RATE", default_value_t = 1.0, value_parser = rate)]
    sessions_per_second: f64,

    /// Seed of those times.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    arrival_seed: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Unit {
    /// Seconds.
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

fn block_size(text: &str) -> Result<BlockSize, String> {
    let tokens = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    BlockSize::new(tokens).map_err(|error| error.to_string())
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| rate.is_finite() && *rate > 0.0);
    rate.ok_or_else(|| format!("{text:?} is not a number above 0"))
}

impl Reading {
    /// As the library takes it.
    pub fn how(&self) -> anyhow::Result<How> {
        let time_unit = self.time_unit.map(|unit| match unit {
            Unit::S => TimeUnit::Seconds,
            Unit::Ms => TimeUnit::Milliseconds,
            Unit::Us => TimeUnit::Microseconds,
            Unit::Ns => TimeUnit::Nanoseconds,
        });
        let seed = self.overlay_seed;
        let overlay = match self.overlay.split_once('=') {
            None if self.overlay == "none" => Overlay::None,
            None if self.overlay == "inferred" => Overlay::Inferred,
            None if self.overlay == "apps" => Overlay::Apps { seed },
            None if self.overlay == "sessions" => Overlay::Sessions { seed },
            Some(("target", ratio)) => match ratio.parse() {
                Ok(ratio) if (0.0..1.0).contains(&ratio) => Overlay::Target { ratio, seed },
                _ => bail!("the target hit ratio must be from 0 to below 1, not {ratio:?}"),
            },
            _ => bail!("unknown overlay {:?}; known are none, inferred, apps, sessions, target=H", self.overlay),
        };
        let tokenizer = self.tokenizer.as_deref().map(tokenizer_for_traces).transpose()?;
        let arrivals = ChatArrivals { sessions_per_second: self.sessions_per_second, seed: self.arrival_seed };
        Ok(How { time_unit, block_size: self.block_size, overlay, tokenizer, arrivals })
    }

    /// The records of a file, or of standard input for `-`.
    pub fn records(&self, path: &Path) -> anyhow::Result<Records> {
        let how = self.how()?;
        Ok(if is_pipe(path) {
            Records::of_stream(Path::new("standard input"), Box::new(std::io::stdin()), &how)?
        } else {
            Trace::open_as(path, how)?.records()?
        })
    }

    /// A file, to be read several times.
    pub fn trace(&self, path: &Path) -> anyhow::Result<Trace> {
        Ok(Trace::open_as(path, self.how()?)?)
    }
}

/// Whether a path stands for standard input or output.
pub fn is_pipe(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Its name in reports.
pub fn name(path: &Path) -> String {
    if is_pipe(path) {
        return "standard input".to_owned();
    }
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Writes `text` to a file, or to standard output for `-`.
pub fn write(path: &PathBuf, text: &str) -> anyhow::Result<()> {
    if is_pipe(path) {
        return std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes())
            .context("cannot write to standard output");
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// What can be read, for the help.
pub fn formats() -> String {
    let mut text = "Formats, recognised by content:\n".to_owned();
    for format in Format::ALL {
        text += &format!("  {}\n", format.description());
    }
    text
}
