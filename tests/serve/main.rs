//! The live router and its mock, through their sockets.
#![cfg(feature = "serve")]

mod admin;
mod admission;
mod asked;
mod binary;
mod codec;
mod config;
mod deploy;
mod discovery;
mod drill;
mod fleet;
mod grpc;
mod grpc_engine;
mod http;
mod hybrid;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod kv_events;
mod load;
mod mock;
mod placement;
mod process;
mod recorder;
mod reload;
mod replay;
mod security;
mod support;
mod tokenizer;
mod tracing;
mod zmtp;
