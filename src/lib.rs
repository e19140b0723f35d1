//! A KV-cache-aware router for fleets of vLLM instances.

pub mod routing;
pub mod sim;

#[cfg(feature = "serve")]
pub mod cli;
#[cfg(feature = "serve")]
pub mod config;
#[cfg(feature = "serve")]
pub mod mock;
#[cfg(feature = "serve")]
pub mod serve;
