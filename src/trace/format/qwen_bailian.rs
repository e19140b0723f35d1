//! Qwen-Bailian: one JSON object a line, time in seconds, one id for each 16-token block of the whole prompt.
//!
//! The ids of traces A and B are content hashes of one block, renumbered; those of coder and thinking also depend on what
//! comes before. Nearly all prompts end in a partial block, which has an id too. A record names its parent, the turn
//! before it, or -1. Source: the repository alibaba-edu/qwen-bailian-usagetraces-anon; Wang et al., "KVCache Cache in the
//! Wild", USENIX ATC 2025.

use super::fields::{from_json, lengths};
use super::scan::{Flat, flat};
use super::{Batch, LineError, Opened, Opening, Parse, Provenance, Record, Shape, Spec, TimeUnit, block_size};
use crate::routing::block::{BlockSize, ContentHash};
use crate::trace::record::Kinds;
use serde::Deserialize;
use serde_json::{Map, Number, Value};
use std::collections::BTreeMap;

pub(super) const SPEC: Spec = Spec {
    name: NAME,
    description: "Qwen-Bailian (JSON lines with chat_id, parent_chat_id, timestamp, input_length, output_length, \
                  hash_ids)",
    shape: Shape::Json(fits),
    time_unit: Some(TimeUnit::Seconds),
    sorted: true,
    open,
};

const NAME: &str = "Qwen-Bailian";
const BLOCK_TOKENS: u32 = 16;

fn fits(fields: &Map<String, Value>) -> bool {
    let names = ["chat_id", "parent_chat_id", "timestamp", "input_length", "output_length", "hash_ids"];
    names.iter().all(|&name| fields.contains_key(name))
}

fn open(opening: &Opening<'_>) -> Result<Opened, LineError> {
    Ok(Opened {
        parser: Box::new(Parser { lines: BlockLines::new(NAME, BLOCK_TOKENS, opening), kinds: Kinds::default() }),
        block_size: opening.block_size.unwrap_or(block_size(BLOCK_TOKENS)),
        provenance: Provenance::Real,
        header: false,
    })
}

struct Parser {
    lines: BlockLines,
    kinds: Kinds,
}

impl Parse for Parser {
    fn parse(&mut self, item: &str, out: &mut Batch) -> Result<(), LineError> {
        self.lines.parse(item, &mut self.kinds, out)
    }
}

/// Lines with lengths and one id for each block of the prompt: Qwen-Bailian's, and Mooncake's without conversations.
pub(super) struct BlockLines {
    format: &'static str,
    block_size: BlockSize,
    unit: TimeUnit,
    chats: Chats,
}

/// The chats seen so far, as ranges: their ids are numbers in order, or nearly so.
#[derive(Default)]
struct Chats {
    /// The end, exclusive, of each range, by its beginning.
    ranges: BTreeMap<u64, u64>,
    /// There were too many ranges to remember.
    lost: bool,
}

/// What serde_json makes of a line; fields not needed are not checked.
#[derive(Debug, Deserialize)]
struct Line {
    chat_id: Option<i64>,
    parent_chat_id: Option<i64>,
    timestamp: Number,
    input_length: i64,
    output_length: i64,
    r#type: Option<String>,
    turn: Option<i64>,
    hash_ids: Vec<u64>,
}

impl BlockLines {
    pub(super) fn new(format: &'static str, block_tokens: u32, opening: &Opening<'_>) -> Self {
        let block_size = opening.block_size.unwrap_or(block_size(block_tokens));
        BlockLines { format, block_size, unit: opening.unit, chats: Chats::default() }
    }

    pub(super) fn parse(&mut self, item: &str, kinds: &mut Kinds, out: &mut Batch) -> Result<(), LineError> {
        if let Some(flat) = flat(item)
            && let (Some(timestamp), Some(prompt), Some(output)) =
                (flat.timestamp, flat.input_length, flat.output_length)
            && flat.hash_ids.is_some()
        {
            return self.finish(flat, timestamp, (prompt, output), kinds, out);
        }
        let line: Line = from_json(self.format, item)?;
        let timestamp = line.timestamp.to_string();
        let flat = Flat {
            chat_id: line.chat_id,
            parent_chat_id: line.parent_chat_id,
            timestamp: None,
            input_length: Some(line.input_length),
            output_length: Some(line.output_length),
            kind: line.r#type.as_deref(),
            turn: line.turn,
            hash_ids: Some(line.hash_ids.into_iter().map(ContentHash).collect()),
        };
        self.finish(flat, &timestamp, (line.input_length, line.output_length), kinds, out)
    }

    fn finish(
        &mut self,
        line: Flat<'_>,
        timestamp: &str,
        (prompt, output): (i64, i64),
        kinds: &mut Kinds,
        out: &mut Batch,
    ) -> Result<(), LineError> {
        let at = self.unit.duration(timestamp)?;
        let (prompt_tokens, output_tokens) = match lengths(prompt, output) {
            Ok(lengths) => lengths,
            Err(reason) => {
                out.drop(reason);
                return Ok(());
            }
        };
        let mut blocks = line.hash_ids.unwrap_or_default();
        let miscounted = check_ids(self.format, self.block_size, blocks.len(), prompt_tokens)?;
        out.tally.miscounted_ids += u64::from(miscounted);
        blocks.truncate(self.block_size.touched_blocks(prompt_tokens) as usize);
        let chat = line.chat_id.and_then(|chat| u64::try_from(chat).ok());
        let parent = line.parent_chat_id.and_then(|parent| u64::try_from(parent).ok());
        out.tally.missing_parents += u64::from(parent.is_some_and(|parent| !self.chats.have(parent)));
        if let Some(chat) = chat {
            self.chats.add(chat);
        }
        out.keep(Record {
            at,
            prompt_tokens,
            output_tokens,
            blocks,
            chat,
            parent,
            session: None,
            turn: line.turn.and_then(|turn| u32::try_from(turn).ok()),
            kind: line.kind.map(|kind| kinds.get(kind)),
        });
        Ok(())
    }
}

impl Chats {
    /// One megabyte.
    const RANGES_MAX: usize = 1 << 15;

    fn add(&mut self, chat: u64) {
        let end = chat.saturating_add(1);
        if let Some((_, last)) = self.ranges.range_mut(..=chat).next_back()
            && *last >= chat
        {
            *last = end.max(*last);
        } else if self.ranges.len() < Self::RANGES_MAX {
            self.ranges.insert(chat, end);
        } else {
            self.lost = true;
        }
    }

    /// Whether a chat was seen; so believed of every one where not all could be remembered.
    fn have(&self, chat: u64) -> bool {
        self.lost || self.ranges.range(..=chat).next_back().is_some_and(|(_, &end)| chat < end)
    }
}

/// Whether the ids are miscounted; an error when they are those of another published block size.
pub(super) fn check_ids(
    format: &'static str,
    size: BlockSize,
    ids: usize,
    prompt_tokens: u32,
) -> Result<bool, LineError> {
    if ids == size.touched_blocks(prompt_tokens) as usize {
        return Ok(false);
    }
    let other = [16, 512].map(block_size).into_iter().find(|other| ids == other.touched_blocks(prompt_tokens) as usize);
    match other {
        Some(other) => Err(LineError::BlockSize {
            ids,
            tokens: prompt_tokens,
            block_size: size.tokens(),
            looks_like: other.tokens(),
            format,
        }),
        None => Ok(true),
    }
}
