//! What is wrong with a configuration.

use std::fmt;

/// One thing that is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: `routing.block_size`, `instances[2].url`. Empty when the file is not TOML at all.
    pub path: String,
    /// What is wrong there.
    pub what: String,
    /// What to do.
    pub advice: String,
}

/// A configuration that cannot be run: everything that is wrong with it, unknown fields first.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Invalid {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl From<Problem> for Invalid {
    fn from(problem: Problem) -> Self {
        Invalid { problems: vec![problem] }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { path, what, advice } = self;
        if path.is_empty() { write!(f, "{what}; {advice}") } else { write!(f, "{path}: {what}; {advice}") }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [problem] => write!(f, "{problem}"),
            problems => {
                write!(f, "{} problems:", problems.len())?;
                problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}
