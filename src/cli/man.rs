//! `warmpath man`.

use anyhow::{Context, Result};
use clap::CommandFactory;
use std::path::PathBuf;

/// Print the manual page, or write one for every command.
///
/// Example:
///
///   warmpath man | man -l -
///   warmpath man --folder /usr/local/share/man/man1
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Man {
    /// Write the pages of all commands to this folder, which must exist.
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

impl Man {
    pub fn run(self) -> Result<()> {
        let command = super::Cli::command();
        match self.folder {
            Some(folder) => clap_mangen::generate_to(command, &folder)
                .with_context(|| format!("cannot write the pages to {}", folder.display()))?,
            None => clap_mangen::Man::new(command).render(&mut std::io::stdout().lock())?,
        }
        Ok(())
    }
}
