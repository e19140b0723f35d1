//! What a study has finished, kept in a file line by line, so that one that was cut off goes on where it was.
//!
//! A line names what was found by everything that decides it: the requests, the fleet, the policy and its numbers, the seed, the
//! conditions, the version of this program. So a ledger may serve several studies, and one that asks for something else finds
//! nothing of it there. What was being written when its writer was killed is a line without an end, and is written again.

use crate::replay::experiment::Setup;
use crate::replay::outcome::Outcome;
use crate::replay::workload::Workload;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use twox_hash::XxHash3_64;

/// The file, and what it has.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    file: File,
    findings: HashMap<String, Finding>,
}

/// A line.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    key: String,
    found: Finding,
}

/// What was found.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Finding {
    /// By a replay.
    Outcome(Box<Outcome>),
    /// The multiple of the recorded pace that a fleet keeps up with.
    Capacity(f64),
}

/// Why a ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file cannot be opened, read or written.
    #[error("cannot use {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is something else.
    #[error("line {line} of {} is not what a study finished: give a file that a study wrote, or a new one", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
}

impl Ledger {
    /// Reads what the file has, and creates it where there is none.
    pub fn open(path: &Path) -> Result<Ledger, LedgerError> {
        let failed = |source| LedgerError::File { path: path.to_owned(), source };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(failed)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut findings = HashMap::new();
        for (at, line) in text[..whole].lines().enumerate() {
            let bad = |_| LedgerError::Line { path: path.to_owned(), line: at + 1 };
            let Line { key, found } = serde_json::from_str(line).map_err(bad)?;
            findings.insert(key, found);
        }
        // A file of one line without an end may be somebody's, not half of ours.
        if whole == 0 && !text.is_empty() && !text.starts_with(LINE_BEGINS) {
            return Err(LedgerError::Line { path: path.to_owned(), line: 1 });
        }
        file.set_len(whole as u64).and_then(|()| file.seek(SeekFrom::End(0))).map_err(failed)?;
        Ok(Ledger { path: path.to_owned(), kept: Mutex::new(Kept { file, findings }) })
    }

    pub(super) fn find(&self, key: &str) -> Option<Finding> {
        self.kept().findings.get(key).cloned()
    }

    /// Adds a line, all of it at once.
    pub(super) fn keep(&self, key: &str, found: Finding) -> Result<(), LedgerError> {
        let line = Line { key: key.to_owned(), found };
        let mut text = serde_json::to_string(&line).expect("what was found is JSON");
        text.push('\n');
        let kept = &mut *self.kept();
        let written = kept.file.write_all(text.as_bytes());
        written.map_err(|source| LedgerError::File { path: self.path.clone(), source })?;
        kept.findings.insert(line.key, line.found);
        Ok(())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("nobody panics with it")
    }
}

/// How each of its lines begins.
const LINE_BEGINS: &str = "{\"key\":";

/// What a replay, or a search for capacity, is called: 16 hexadecimal digits.
pub(super) fn key(what: &str, setup: &Setup, workload: &Workload) -> String {
    let (policy, hold) = (setup.policy.kind.parameters(), setup.policy.hold());
    let version = env!("CARGO_PKG_VERSION");
    let spelt = format!("{what} {version} {setup:?} {policy:?} {hold:?} {:016x}", workload.fingerprint());
    format!("{:016x}", XxHash3_64::oneshot(spelt.as_bytes()))
}
