//! `warmpath completions`.

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::Shell;

/// Print what a shell needs to complete warmpath's commands and options.
///
/// Example:
///
///   warmpath completions bash > /etc/bash_completion.d/warmpath
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Completions {
    /// Which shell.
    shell: Shell,
}

impl Completions {
    pub fn run(self) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::Cli::command(), "warmpath", &mut script);
        Ok(std::io::Write::write_all(&mut std::io::stdout().lock(), &script)?)
    }
}
