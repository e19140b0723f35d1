//! Qwen-Bailian: one JSON object a line, time in seconds, one id for each 16-token block of the whole prompt.
//!
//! The ids of traces A and B are content hashes of one block, renumbered; those of coder and thinking also depend on what
//! comes before. Nearly all prompts end in a partial block, which has an id too. Source: the repository
//! alibaba-edu/qwen-bailian-usagetraces-anon; Wang et al., "KVCache Cache in the Wild", USENIX ATC 2025.

use crate::routing::block::BlockSize;

pub(super) const NAME: &str = "Qwen-Bailian";
pub(super) const DESCRIPTION: &str =
    "Qwen-Bailian (JSON lines with chat_id, parent_chat_id, timestamp, input_length, output_length, hash_ids)";
pub(super) const BLOCK_SIZE: BlockSize = BlockSize::DEFAULT;
/// What tells it from other formats.
pub(super) const FIELDS: &[&str] =
    &["chat_id", "parent_chat_id", "timestamp", "input_length", "output_length", "hash_ids"];
