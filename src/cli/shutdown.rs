//! When to stop.

use anyhow::{Context, Result};
use std::future::Future;
use tokio::signal::unix::{SignalKind, signal};

/// Resolves at the first SIGTERM or Ctrl-C from here on. A second one ends the process at once.
pub(super) fn requested() -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::warn!("told to stop twice: ending at once");
            std::process::exit(130);
        });
    })
}
