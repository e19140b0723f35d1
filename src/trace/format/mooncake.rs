//! Mooncake: one JSON object a line, time in whole milliseconds, one id for each 512-token block, prefix-chained.
//!
//! The online traces are quantised to about three seconds, so up to 47 requests share a timestamp; see
//! [`SpreadTies`](crate::trace::SpreadTies). Source: the repository kvcache-ai/Mooncake; Qin et al., "Mooncake",
//! USENIX FAST 2025.

use super::qwen_bailian::BlockLines;
use super::{Batch, LineError, Opened, Opening, Parse, Provenance, Shape, Spec, TimeUnit, block_size};
use crate::trace::record::Kinds;
use serde_json::{Map, Value};

pub(super) const SPEC: Spec = Spec {
    name: NAME,
    description: "Mooncake (JSON lines with timestamp, input_length, output_length, hash_ids)",
    shape: Shape::Json(fits),
    time_unit: Some(TimeUnit::Milliseconds),
    sorted: true,
    open,
};

const NAME: &str = "Mooncake";
const BLOCK_TOKENS: u32 = 512;
const FIELDS: [&str; 4] = ["timestamp", "input_length", "output_length", "hash_ids"];

/// These four fields, and none of those by which Dynamo and AIPerf extend them.
fn fits(fields: &Map<String, Value>) -> bool {
    FIELDS.iter().all(|&name| fields.contains_key(name))
        && !super::dynamo::EXTENSIONS.iter().any(|&n| fields.contains_key(n))
}

fn open(opening: &Opening<'_>) -> Result<Opened, LineError> {
    Ok(Opened {
        parser: Box::new(Parser(BlockLines::new(NAME, BLOCK_TOKENS, opening))),
        block_size: opening.block_size.unwrap_or(block_size(BLOCK_TOKENS)),
        provenance: Provenance::Real,
        header: false,
    })
}

struct Parser(BlockLines);

impl Parse for Parser {
    fn parse(&mut self, item: &str, out: &mut Batch) -> Result<(), LineError> {
        self.0.parse(item, &mut Kinds::default(), out)
    }
}
