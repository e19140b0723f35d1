//! Commands: one file per subcommand.

mod replay;
mod trace;

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
    Replay(replay::Args),
    Trace(trace::Args),
}

impl Cli {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Replay(args) => replay::run(args),
            Command::Trace(args) => trace::run(args),
        }
    }
}
