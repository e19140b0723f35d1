//! Mooncake: one JSON object a line, time in whole milliseconds, one id for each 512-token block, prefix-chained.
//!
//! The online traces are quantised to about three seconds, so up to 47 requests share a timestamp; see
//! [`SpreadTies`](crate::trace::SpreadTies). Source: the repository kvcache-ai/Mooncake; Qin et al., "Mooncake",
//! USENIX FAST 2025.

use crate::routing::block::BlockSize;

pub(super) const NAME: &str = "Mooncake";
pub(super) const DESCRIPTION: &str = "Mooncake (JSON lines with timestamp, input_length, output_length, hash_ids)";
pub(super) const BLOCK_SIZE: BlockSize = match BlockSize::new(512) {
    Ok(size) => size,
    Err(_) => panic!("512 is a block size"),
};
/// What it has besides what nobody else has.
pub(super) const FIELDS: &[&str] = &["timestamp", "input_length", "output_length", "hash_ids"];
