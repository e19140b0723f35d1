//! What an operator can see: metrics and logs.

mod declaration;
pub(super) mod labels;
pub mod logs;
pub(super) mod metrics;
