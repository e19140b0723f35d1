//! What the fields of many formats have in common.

use super::super::error::LineError;
use super::super::tally::{DropReason, Tally};
use crate::routing::block::{BlockSize, ContentHash};
use serde::Deserialize;
use twox_hash::XxHash3_64;

/// Prompt and output length; or why they are no request's. Zero and less stand for failures in published traces.
pub(super) fn lengths(prompt: i64, output: i64) -> Result<(u32, u32), DropReason> {
    let limit = i64::from(Tally::TOKENS_MAX);
    match (prompt, output) {
        (..=0, _) => Err(DropReason::NoPrompt),
        (_, ..=0) => Err(DropReason::NoOutput),
        (prompt, output) if prompt > limit || output > limit => Err(DropReason::TooLong),
        (prompt, output) => Ok((prompt as u32, output as u32)),
    }
}

/// A block id, or a name: some tools write ids as strings.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Id {
    Number(u64),
    Text(String),
}

impl Id {
    /// A number for it. Numbers in strings are numbers.
    pub(super) fn number(&self) -> u64 {
        match self {
            Id::Number(number) => *number,
            Id::Text(text) => text.parse().unwrap_or_else(|_| name_number(text)),
        }
    }
}

/// A number for a name: the same for the same name.
pub(super) fn name_number(name: &str) -> u64 {
    XxHash3_64::oneshot_with_seed(NAME_SEED, name.as_bytes())
}

/// The id of a block that is known only inside `scope`.
pub(super) fn scoped(scope: u64, id: u64) -> ContentHash {
    ContentHash(XxHash3_64::oneshot_with_seed(scope ^ NAME_SEED, &id.to_le_bytes()))
}

const NAME_SEED: u64 = 0x2545_f491_4f6c_dd1d;

/// The content of each block of a prompt whose tokens are known, the partial last one included.
pub(super) fn token_blocks(tokens: &[u32], block_size: BlockSize) -> Vec<ContentHash> {
    tokens.chunks(block_size.tokens() as usize).map(ContentHash::of_tokens).collect()
}

/// One record of `format`, from JSON.
pub(super) fn from_json<'a, T: Deserialize<'a>>(format: &str, item: &'a str) -> Result<T, LineError> {
    serde_json::from_str(item).map_err(|error| match error.is_eof() {
        true => LineError::Truncated,
        false => LineError::Malformed { reason: format!("not a {format} record: {}", without_line(&error)) },
    })
}

/// What the parser says, with the column; it sees one item at a time, so its line number would mislead.
fn without_line(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let said = message.rsplit_once(" at line ").map_or(message.as_str(), |(said, _)| said);
    format!("{said} at column {}", error.column())
}
