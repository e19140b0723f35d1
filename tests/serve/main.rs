//! The live router and its mock, through their sockets.
#![cfg(feature = "serve")]

mod admin;
mod codec;
mod config;
mod grpc;
mod grpc_engine;
mod http;
mod kv_events;
mod mock;
mod process;
mod replay;
mod support;
mod tokenizer;
mod zmtp;
