//! The published procedure that makes a trace anonymous: what remains is when, how long, and what is shared with what.
//!
//! Each block is hashed with SipHash-2-4 under a salt that is drawn afresh for every file, never written and wiped at the
//! end; the hashes are then renumbered by first appearance, so that nothing of them remains either. Requests are numbered,
//! parents keep pointing at them, times count from the first request. Kinds stay: they are the service's own words, not
//! its users'. Source: Wang et al., "KVCache Cache in the Wild", USENIX ATC 2025, on how the Qwen-Bailian traces were made.

use super::lineage::Lineage;
use super::record::Record;
use crate::routing::block::{ContentHash, Namespace};
use siphasher::sip::SipHasher24;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::io;
use std::time::Duration;
use zeroize::Zeroizing;

/// A secret of one file. Wiped when dropped; not printable.
pub struct Salt(Zeroizing<[u8; 16]>);

impl Salt {
    /// The salt of these bytes, which must be fresh from the system's own source of chance.
    pub fn new(bytes: [u8; 16]) -> Self {
        Salt(Zeroizing::new(bytes))
    }

    /// A fresh one; what was drawn is wiped.
    pub(super) fn drawn(draw: &mut dyn FnMut() -> io::Result<[u8; 16]>) -> io::Result<Self> {
        let bytes = Zeroizing::new(draw()?);
        Ok(Salt(bytes))
    }

    /// The hash of who may share a cache.
    pub(super) fn hash_namespace(&self, namespace: &Namespace<'_>) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        namespace.hash(&mut hasher);
        hasher.finish()
    }

    /// The hash of a block's tokens, which only those of one namespace share.
    pub(super) fn hash_block(&self, namespace: u64, tokens: &[u32]) -> ContentHash {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write_u64(namespace);
        hasher.write(bytemuck::cast_slice(tokens));
        ContentHash(hasher.finish())
    }

    fn hash(&self, bytes: &[u8]) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(bytes);
        hasher.finish()
    }
}

/// Makes records of one file anonymous. Remembers a number for each distinct block and each request.
pub struct Anonymizer {
    salt: Salt,
    numbers: HashMap<u64, u64>,
    lineage: Lineage,
    start: Option<Duration>,
}

impl Anonymizer {
    /// Nothing seen yet.
    pub fn new(salt: Salt) -> Self {
        Anonymizer { salt, numbers: HashMap::new(), lineage: Lineage::default(), start: None }
    }

    /// The same record, anonymous. Records must come in order of time.
    pub fn anonymize(&mut self, record: &Record) -> Record {
        let blocks = record.blocks.iter().map(|block| self.number(&block.0.to_le_bytes())).collect();
        self.with_blocks(record, blocks)
    }

    /// Distinct blocks seen.
    pub fn distinct_blocks(&self) -> usize {
        self.numbers.len()
    }

    fn number(&mut self, content: &[u8]) -> ContentHash {
        let next = self.numbers.len() as u64;
        ContentHash(*self.numbers.entry(self.salt.hash(content)).or_insert(next))
    }

    fn with_blocks(&mut self, record: &Record, blocks: Vec<ContentHash>) -> Record {
        let place = self.lineage.place(record);
        let start = *self.start.get_or_insert(record.at);
        Record {
            at: record.at.saturating_sub(start),
            prompt_tokens: record.prompt_tokens,
            output_tokens: record.output_tokens,
            blocks,
            chat: Some(place.chat),
            parent: place.parent,
            session: None,
            turn: Some(place.turn),
            kind: record.kind.clone(),
        }
    }
}
