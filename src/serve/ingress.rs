//! Where callers come in.

pub(super) mod admin;
pub(super) mod grpc;
mod status;
