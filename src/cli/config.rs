//! `warmpath config`.

use crate::config;
use anyhow::{Context, Result};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Check a configuration, or print an example of one.
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
}

impl Config {
    pub fn run(self) -> Result<()> {
        let mut out = std::io::stdout().lock();
        match self.command {
            Command::Check { config } => {
                let read = read(&config)?;
                writeln!(out, "{}: valid, {} instances", config.display(), read.instances.len())?;
            }
            Command::Example => out.write_all(config::Config::EXAMPLE.as_bytes())?,
        }
        Ok(())
    }
}

/// Reads and checks a file, under the environment.
pub(super) fn read(path: &Path) -> Result<config::Config> {
    let name = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    // What is not Unicode can be no setting of ours.
    let environment =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    config::Config::parse_under(&text, environment).with_context(|| format!("{name} is not a valid configuration"))
}
