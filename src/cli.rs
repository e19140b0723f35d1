//! Commands: one file a subcommand.
//!
//! Help texts are printed as they stand, so their lines are short enough for a terminal of 80 columns.
//!
//! To add one: a file with a `clap::Args` struct that has a `run`, and a variant of `Command`.

mod advise;
mod client;
mod completions;
mod config;
mod demo;
mod events;
mod instances;
mod key;
mod load;
mod man;
mod metrics;
mod mock_vllm;
mod reach;
mod replay;
mod route;
mod serve;
mod shutdown;
mod top;
mod trace;

use clap::{Parser, Subcommand};

/// Routes prompts to the vLLM instance that has most of them cached and least to
/// do.
///
/// Start with a configuration, and serve it:
///
///   warmpath config example > warmpath.toml
///   warmpath serve --config warmpath.toml
///
/// Without a GPU at hand, let mocks stand in for vLLM; they publish the same
/// cache events:
///
///   warmpath mock-vllm --model Qwen/Qwen3-32B
///   warmpath mock-vllm --model Qwen/Qwen3-32B --port 8001 --kv-events-port 5558
///
/// Log lines go to standard error; RUST_LOG says which: debug, warn, ...
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, verbatim_doc_comment)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Demo),
    Replay(Box<replay::Replay>),
    Advise(advise::Advise),
    Load(Box<load::Load>),
    Trace(trace::Trace),
    Route(route::Route),
    Instances(instances::Instances),
    Serve(serve::Serve),
    MockVllm(mock_vllm::MockVllm),
    Config(config::Config),
    Key(key::Key),
    Metrics(metrics::Metrics),
    Top(top::Top),
    Man(man::Man),
    Completions(completions::Completions),
}

impl Cli {
    /// Runs the chosen subcommand to its end.
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Demo(demo) => demo.run(),
            Command::Replay(replay) => replay.run(),
            Command::Advise(advise) => advise.run(),
            Command::Load(load) => load.run(),
            Command::Trace(trace) => trace.run(),
            Command::Route(route) => route.run(),
            Command::Instances(instances) => instances.run(),
            Command::Serve(serve) => serve.run(),
            Command::MockVllm(mock) => mock.run(),
            Command::Config(config) => config.run(),
            Command::Key(key) => key.run(),
            Command::Metrics(metrics) => metrics.run(),
            Command::Top(top) => top.run(),
            Command::Man(man) => man.run(),
            Command::Completions(completions) => completions.run(),
        }
    }
}
