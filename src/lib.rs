#![doc = include_str!("ARCHITECTURE.md")]

#[cfg(feature = "serve")]
pub mod cli;
#[cfg(feature = "serve")]
pub mod config;
#[cfg(feature = "serve")]
pub mod mock;
pub mod replay;
pub mod routing;
#[cfg(feature = "serve")]
pub mod serve;
pub mod sim;
pub mod trace;
