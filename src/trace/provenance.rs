//! Where a trace's prefix structure comes from.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Where a trace's prefix structure comes from. It is printed beside every hit ratio: a ratio says as much as this does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provenance {
    /// Recorded: ids or tokens of the prompts themselves.
    Real,
    /// Lengths, times and conversations are recorded, the shared content is concluded from them.
    Inferred,
    /// Invented: a hypothesis.
    Overlay {
        /// Which.
        name: String,
        /// What seeded it.
        seed: u64,
    },
}

impl Provenance {
    /// Every prompt unlike every other: what a trace without prefix ids has as long as nothing is laid over it.
    pub fn none() -> Self {
        Provenance::Overlay { name: "none".to_owned(), seed: 0 }
    }

    /// Whether nothing is shared by construction, so that no hit ratio means anything.
    pub fn is_none(&self) -> bool {
        matches!(self, Provenance::Overlay { name, .. } if name == "none")
    }
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Provenance::Real => f.write_str("real"),
            Provenance::Inferred => f.write_str("inferred"),
            Provenance::Overlay { name, seed } => write!(f, "overlay({name}, {seed})"),
        }
    }
}
