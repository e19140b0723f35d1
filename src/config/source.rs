//! Where a configuration came from, so that it can be read again.

use super::Config;
use super::problem::Invalid;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How the file is read again while the router runs. On SIGHUP it always is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reload {
    /// Time between two looks at it; without it none is taken.
    pub poll: Option<Duration>,
}

impl Default for Reload {
    fn default() -> Self {
        Reload { poll: Some(Duration::from_secs(2)) }
    }
}

/// A file under an environment, which stays as it was.
#[derive(Clone, Debug)]
pub struct Origin {
    path: PathBuf,
    environment: Vec<(String, String)>,
}

/// A configuration that could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("cannot read {path}: {reason}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        reason: io::Error,
    },
    /// It is not valid.
    #[error("{path} is not a valid configuration")]
    Invalid {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: Invalid,
    },
}

impl Origin {
    /// A file under the environment of this process.
    pub fn new(path: &Path) -> Self {
        // What is not Unicode can be no setting of ours.
        let environment =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Origin { path: path.to_owned(), environment: environment.collect() }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's text as it is now.
    pub fn text(&self) -> Result<String, ReadError> {
        let failed = |reason| ReadError::Read { path: self.path.clone(), reason };
        std::fs::read_to_string(&self.path).map_err(failed)
    }

    /// What the text says under the environment.
    pub fn parse(&self, text: &str) -> Result<Config, ReadError> {
        let invalid = |source| ReadError::Invalid { path: self.path.clone(), source };
        Config::parse_under(text, self.environment.iter().cloned()).map_err(invalid)
    }

    /// The configuration as it is now.
    pub fn read(&self) -> Result<Config, ReadError> {
        self.parse(&self.text()?)
    }
}
