//! What an operator can see: metrics and logs.

mod declaration;
mod document;
pub(super) mod labels;
pub mod logs;
pub(super) mod metrics;
mod process;
mod registry;

pub use document::document as metrics_document;
