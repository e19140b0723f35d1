#![doc = include_str!("ARCHITECTURE.md")]

#[cfg(feature = "serve")]
pub mod cli;
pub mod replay;
pub mod routing;
pub mod sim;
pub mod trace;
