//! `warmpath metrics`.

use crate::serve::metrics_document;
use anyhow::Result;
use std::io::Write;

/// Print every metric of `warmpath serve`, with its type, unit, labels and
/// meaning, in Markdown.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Metrics {}

impl Metrics {
    pub fn run(self) -> Result<()> {
        Ok(std::io::stdout().lock().write_all(metrics_document().as_bytes())?)
    }
}
