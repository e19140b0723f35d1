//! Which instance holds which prefix.
//!
//! [`ExactIndex`] serves, with [`ApproximateIndex`] filling in for instances that publish no events; [`ReferenceIndex`] is the same thing written to be obviously right, and is what the property
//! tests hold the other against. Both speak through the types here.

mod approximate;
mod exact;
mod overlaps;
mod reference;

pub use approximate::{ApproximateIndex, Use};
pub(super) use exact::Chain;
pub use exact::{ExactIndex, IndexStats, SnapshotError};
pub use overlaps::Overlaps;
pub use reference::ReferenceIndex;

use super::block::{BlockHash, EngineHash};
use super::fact::InstanceId;

/// Where a run of stored blocks is attached, once the namespace is resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// At the root of a namespace.
    Root(BlockHash),
    /// After a block that the same instance stored before.
    Block(EngineHash),
}

/// Why blocks could not be stored, removed or cleared; nothing was done unless the variant says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// The instance is not in the index.
    #[error("{instance} is not in the index")]
    UnknownInstance {
        /// Which.
        instance: InstanceId,
    },
    /// The parent was never stored, or is gone: the position of these blocks cannot be known.
    #[error("{instance} stored {blocks} blocks after a block it does not hold")]
    UnknownParent {
        /// Which instance.
        instance: InstanceId,
        /// How many blocks were left out.
        blocks: usize,
    },
    /// Some blocks to be removed, or copied, were not there; the others were.
    #[error("{unknown} of {blocks} blocks that {instance} removed or copied are not known there")]
    UnknownBlocks {
        /// Which instance.
        instance: InstanceId,
        /// How many were not there.
        unknown: usize,
        /// How many were named.
        blocks: usize,
    },
    /// Content and names do not match in number.
    #[error(
        "{instance} stored {blocks} blocks of {block_size} tokens with content for {content}; set the router's block size to the engine's"
    )]
    Mismatch {
        /// Which instance.
        instance: InstanceId,
        /// How many blocks were named.
        blocks: usize,
        /// The index's block size.
        block_size: u32,
        /// How much content came: tokens or content hashes.
        content: usize,
    },
    /// The index takes as much memory as it may; the first `stored` blocks were stored. What is missing reads as not cached.
    #[error("the index is full ({limit_bytes} bytes): {instance} could store {stored} of {blocks} blocks")]
    Full {
        /// Which instance.
        instance: InstanceId,
        /// Blocks stored before the limit was met.
        stored: usize,
        /// Blocks that were to be stored.
        blocks: usize,
        /// The limit, in bytes.
        limit_bytes: usize,
    },
}
