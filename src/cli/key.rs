//! `warmpath key`.

use crate::config::{is_key_name, key_line};
use anyhow::{Context, Result, anyhow, ensure};
use sha2::{Digest, Sha256};
use std::io::Write;

/// Make a key for a client.
#[derive(Debug, clap::Args)]
pub(super) struct Key {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a key, and print it and its line for the keys file.
    ///
    /// The first line printed is the key: give it to the client, who sends it as
    /// Authorization: Bearer KEY. It is kept nowhere. The second line is for the
    /// file that `keys.file` names, and holds the key's hash only; what the key
    /// may can be written behind it, and how urgent its requests are:
    ///
    ///   warmpath key new team-a
    ///   team-a sha256:... requests_per_second=20 burst=40 priority=low
    ///
    /// A line in the file that `keys.admin_file` names opens the admin port.
    #[command(verbatim_doc_comment)]
    New {
        /// What the key's holder is called in logs.
        name: String,
    },
}

/// As much as the hash can hold.
const KEY_BYTES: usize = 32;

impl Key {
    pub fn run(self) -> Result<()> {
        let Command::New { name } = self.command;
        ensure!(
            is_key_name(&name),
            "{name:?} is no name for a key: write up to 64 letters, digits, dots, dashes and underscores, and not \
             anonymous"
        );
        let mut bytes = [0; KEY_BYTES];
        getrandom::fill(&mut bytes).map_err(|error| anyhow!("{error}")).context("cannot draw a key")?;
        let key: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let key = format!("wp-{key}");
        let line = key_line(&name, &Sha256::digest(&key).into());
        writeln!(std::io::stdout().lock(), "{key}\n{line}")?;
        Ok(())
    }
}
