//! Where callers come in.

pub(super) mod admin;
pub(super) mod grpc;
pub(super) mod http;
mod status;
pub(super) mod vllm;
