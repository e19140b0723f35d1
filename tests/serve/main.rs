//! The live router and its mock, through their sockets.
#![cfg(feature = "serve")]

mod admin;
mod admission;
mod asked;
mod codec;
mod config;
mod deploy;
mod drill;
mod fleet;
mod grpc;
mod grpc_engine;
mod http;
mod hybrid;
mod kv_events;
mod load;
mod mock;
mod placement;
mod process;
mod recorder;
mod replay;
mod security;
mod support;
mod tokenizer;
mod zmtp;
