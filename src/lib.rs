//! A KV-cache-aware router for fleets of vLLM instances.

pub mod routing;
pub mod sim;

#[cfg(feature = "serve")]
pub mod config;
