//! What an operator can see: metrics and logs.

pub(super) mod labels;
pub mod logs;
pub(super) mod metrics;
