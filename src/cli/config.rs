//! `warmpath config`.

use crate::config::{self, Config as Read};
use anyhow::Result;
use std::io::Write;
use std::path::PathBuf;

/// Check a configuration, or print an example of one, or what form it has.
#[derive(Debug, clap::Args)]
pub(super) struct Config {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Check a file and report everything that is wrong with it.
    Check {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Print a documented file with every setting.
    Example,
    /// Print a JSON Schema of the file, for editors and pipelines.
    Schema,
}

impl Config {
    pub fn run(self) -> Result<()> {
        let mut out = std::io::stdout().lock();
        match self.command {
            Command::Check { config } => {
                let read = config::Origin::new(&config).read()?;
                writeln!(out, "{}: valid, {} instances", config.display(), read.instances.len())?;
            }
            Command::Example => out.write_all(Read::EXAMPLE.as_bytes())?,
            Command::Schema => writeln!(out, "{:#}", Read::schema())?,
        }
        Ok(())
    }
}
