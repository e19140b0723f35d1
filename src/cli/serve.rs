//! `warmpath serve`.

use super::shutdown;
use crate::config::Origin;
use crate::serve::{App, Watched, logs};
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
/// Ctrl-C lets calls under way end, then stops. The file is read again on SIGHUP
/// and when it changes: the fleet, limits and the policy follow without a lost
/// request, and a file that cannot be put in force is refused whole.
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
        let origin = Origin::new(&self.config);
        let config = origin.read()?;
        logs::start(config.logs.format)?;
        let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
        runtime.block_on(async {
            let shutdown = shutdown::requested()?;
            let watched = Watched::new(origin).context("cannot listen for SIGHUP")?;
            Ok(App::bind(config).await?.watching(watched).run(shutdown).await?)
        })
    }
}
