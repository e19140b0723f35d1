//! A KV-cache-aware router for fleets of vLLM instances.

#[cfg(feature = "serve")]
pub mod cli;
pub mod replay;
pub mod routing;
pub mod sim;
pub mod trace;
