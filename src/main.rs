//! The `warmpath` command.

use clap::Parser;
use std::process::ExitCode;
use warmpath::cli::Cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("warmpath: {error:#}");
            ExitCode::FAILURE
        }
    }
}
