//! Commands: one file per subcommand.

mod advise;
mod replay;

use clap::{Parser, Subcommand};

/// A KV-cache-aware router for fleets of vLLM instances.
#[derive(Debug, Parser)]
#[command(name = "warmpath", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Replay(Box<replay::Args>),
    Advise(advise::Args),
}

impl Cli {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Replay(args) => replay::run(*args),
            Command::Advise(args) => advise::run(&args),
        }
    }
}
