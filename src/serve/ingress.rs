//! Where callers come in.

pub(super) mod admin;
pub(super) mod caller;
pub(super) mod grpc;
pub(super) mod guard;
pub(super) mod http;
pub(super) mod listener;
pub(super) mod observed;
mod status;
mod texts;
pub(super) mod traced;
mod ui;
pub(super) mod vllm;
