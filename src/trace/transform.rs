//! Traces made of traces: a part of one, several at once, one at another pace.

use super::error::TraceError;
use super::provenance::Provenance;
use super::reader::Records;
use super::record::Record;
use crate::routing::block::{BlockHash, BlockSize, ContentHash};
use std::ops::Range;
use std::time::Duration;

/// The records of some time, which then begins at zero.
pub struct Slice<I> {
    records: I,
    time: Range<Duration>,
}

impl<I> Slice<I> {
    /// Those of `records`, which must be in order, from the start of `time` until before its end.
    pub fn new(records: I, time: Range<Duration>) -> Self {
        Slice { records, time }
    }
}

impl<I: Iterator<Item = Result<Record, TraceError>>> Iterator for Slice<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        loop {
            match self.records.next()? {
                Ok(record) if record.at >= self.time.end => return None,
                Ok(record) if record.at < self.time.start => {}
                Ok(record) => return Some(Ok(Record { at: record.at - self.time.start, ..record })),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// A record `factor` times as long after the start; `factor` is finite and not negative.
pub fn scaled(record: Record, factor: f64) -> Record {
    Record { at: Duration::try_from_secs_f64(record.at.as_secs_f64() * factor).unwrap_or(Duration::MAX), ..record }
}

/// Several traces at once, in order of time. They share no blocks and no conversations, even where they use the same ids.
pub struct Merge {
    inputs: Vec<Input>,
    block_size: BlockSize,
    provenance: Provenance,
}

/// One of the traces, and what comes next of it.
struct Input {
    records: Records,
    next: Option<Result<Record, TraceError>>,
}

/// Why traces cannot be merged.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// There are none.
    #[error("nothing to merge")]
    Nothing,
    /// Their blocks differ.
    #[error("cannot merge blocks of {first} tokens and of {other}; convert one of the traces first")]
    BlockSize {
        /// Tokens a block of the first trace.
        first: u32,
        /// Of another one.
        other: u32,
    },
}

impl Merge {
    /// Merges `inputs`, each in order of time.
    pub fn new(inputs: Vec<Records>) -> Result<Merge, MergeError> {
        let Some(first) = inputs.first() else { return Err(MergeError::Nothing) };
        let block_size = first.block_size();
        if let Some(other) = inputs.iter().find(|input| input.block_size() != block_size) {
            return Err(MergeError::BlockSize { first: block_size.tokens(), other: other.block_size().tokens() });
        }
        let provenance = inputs.iter().map(|input| input.provenance().clone()).reduce(weaker);
        let provenance = provenance.expect("there is a first one");
        let ahead = |mut records: Records| Input { next: records.next(), records };
        Ok(Merge { inputs: inputs.into_iter().map(ahead).collect(), block_size, provenance })
    }

    /// Tokens in each block of all inputs.
    pub fn block_size(&self) -> BlockSize {
        self.block_size
    }

    /// The inputs, of which more or less was read.
    pub fn inputs(&self) -> impl Iterator<Item = &Records> {
        self.inputs.iter().map(|input| &input.records)
    }

    /// Where the weakest prefix structure of the inputs comes from.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }
}

/// What may be said of both together: no more than of the weaker one.
fn weaker(one: Provenance, other: Provenance) -> Provenance {
    match (one, other) {
        (Provenance::Overlay { name, seed }, Provenance::Overlay { name: other, seed: other_seed }) => {
            let name = if (&name, seed) == (&other, other_seed) { name } else { format!("{name} + {other}") };
            Provenance::Overlay { name, seed }
        }
        // Both are named: where nothing is shared in one of them, what is shared in the other one remains.
        (Provenance::Overlay { name, seed }, known @ (Provenance::Real | Provenance::Inferred))
        | (known @ (Provenance::Real | Provenance::Inferred), Provenance::Overlay { name, seed }) => {
            Provenance::Overlay { name: format!("{name} + {known}"), seed }
        }
        (Provenance::Inferred, Provenance::Real | Provenance::Inferred) | (Provenance::Real, Provenance::Inferred) => {
            Provenance::Inferred
        }
        (Provenance::Real, Provenance::Real) => Provenance::Real,
    }
}

/// The same in a name space of the input's own.
fn apart(record: Record, input: usize) -> Record {
    let scope = BlockHash(input as u64 + 1);
    let own = |id: u64| scope.child(ContentHash(id)).0;
    Record {
        blocks: record.blocks.into_iter().map(|block| scope.child(block)).map(|hash| ContentHash(hash.0)).collect(),
        chat: record.chat.map(own),
        parent: record.parent.map(own),
        session: record.session.map(own),
        ..record
    }
}

impl Iterator for Merge {
    type Item = Result<Record, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut earliest: Option<(Duration, usize)> = None;
        for (index, input) in self.inputs.iter().enumerate() {
            let at = match &input.next {
                Some(Ok(record)) => record.at,
                // An error goes out at once.
                Some(Err(_)) => Duration::ZERO,
                None => continue,
            };
            if earliest.is_none_or(|(least, _)| at < least) {
                earliest = Some((at, index));
            }
        }
        let (_, index) = earliest?;
        let Input { records, next } = &mut self.inputs[index];
        let next = std::mem::replace(next, records.next())?;
        Some(next.map(|record| apart(record, index)))
    }
}
