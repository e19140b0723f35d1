//! One recorded request.

use crate::routing::block::{BlockSize, ContentHash};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A request as it was recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// When it came, since the start of the trace.
    pub at: Duration,
    /// Prompt length, at least one token.
    pub prompt_tokens: u32,
    /// Output length, at least one token.
    pub output_tokens: u32,
    /// The content of each block of the prompt, in order. The last one may be partial.
    pub blocks: Vec<ContentHash>,
    /// The record's own name, unique in the trace, where the format gives it one.
    pub chat: Option<u64>,
    /// The name of the record that it continues, where the format says so.
    pub parent: Option<u64>,
    /// The conversation that it belongs to, where the format names conversations instead of parents.
    pub session: Option<u64>,
    /// Which turn of its conversation it is, from 1, where the format says so.
    pub turn: Option<u32>,
    /// What sort of request it is, where the format says so.
    pub kind: Option<Kind>,
}

/// What a trace calls a sort of request: `text`, `search`, `API log`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind(Arc<str>);

/// Kinds seen before, so that records share their text.
#[derive(Debug, Default)]
pub(super) struct Kinds {
    known: HashMap<Box<str>, Kind>,
    /// Mostly the next one, too.
    last: Option<Kind>,
}

impl Record {
    /// The blocks that the prompt fills completely: those that an engine can cache.
    pub fn full_blocks(&self, block_size: BlockSize) -> &[ContentHash] {
        &self.blocks[..self.blocks.len().min(block_size.full_blocks(self.prompt_tokens) as usize)]
    }
}

impl Kind {
    /// A longer name is cut: no published trace has one, and it must fit a table.
    const BYTES_MAX: usize = 64;

    /// The kind called `name`.
    pub fn new(name: &str) -> Self {
        Kind(name[..name.floor_char_boundary(Self::BYTES_MAX)].into())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Whether it shares the other's text, as the records of one trace do; else it may still be equal.
    pub(super) fn is(&self, other: &Kind) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Kinds {
    /// Published traces have at most four. Beyond this many, records keep a text of their own.
    const SHARED_MAX: usize = 1024;

    pub(super) fn get(&mut self, name: &str) -> Kind {
        if let Some(last) = &self.last
            && last.name() == name
        {
            return last.clone();
        }
        let kind = self.known.get(name).cloned().unwrap_or_else(|| Kind::new(name));
        if self.known.len() < Self::SHARED_MAX && !self.known.contains_key(name) {
            self.known.insert(name.into(), kind.clone());
        }
        self.last = Some(kind.clone());
        kind
    }
}
