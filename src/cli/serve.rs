//! `warmpath serve`.

use super::{config, shutdown};
use crate::serve::{App, logs};
use anyhow::{Context, Result};
use std::path::PathBuf;

/// Forward requests to a fleet, and serve routing decisions over gRPC.
///
/// Clients of the OpenAI API talk to the HTTP address; each request goes, byte
/// for byte, to the instance that is chosen for it. Others call
/// warmpath.v1.Router and send their prompts themselves: Route names the instance
/// for a prompt and books its load, FirstToken and Complete report how it went.
/// Reflection and grpc.health.v1 are there too, and so are vLLM's own gRPC
/// services (VllmEngine, Inference), forwarded like the rest. Operators find
/// /metrics, /healthz, /readyz and /instances on the admin address. SIGTERM or
/// Ctrl-C lets calls under way end, then stops.
///
/// Example:
///
///   warmpath serve --config warmpath.toml
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Serve {
    /// The configuration file; `warmpath config example` prints one.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

impl Serve {
    pub fn run(self) -> Result<()> {
        let config = config::read(&self.config)?;
        logs::start()?;
        let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
        runtime.block_on(async {
            let shutdown = shutdown::requested()?;
            Ok(App::bind(config).await?.run(shutdown).await?)
        })
    }
}
