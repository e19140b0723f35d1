//! What an operator can see: metrics, logs and traces.

mod declaration;
mod document;
pub(super) mod instance;
pub(super) mod labels;
pub mod logs;
pub(super) mod metrics;
mod process;
mod registry;
pub(super) mod spans;
pub(super) mod totals;

pub use document::document as metrics_document;
pub(super) use registry::Histogram;
