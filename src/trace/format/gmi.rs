//! GMI: one JSON object a line, time as a text of nanoseconds since 1970, ids of about 34 tokens each.
//!
//! As an id stands for no fixed number of tokens, blocks count as 32 tokens and there may be more or fewer ids than that
//! makes: ratios of blocks are exact, ratios of tokens are not. Source: the repository LMCache/LMBench.

use super::fields::{Id, from_json, lengths};
use super::time::{json_nanos, since_epoch};
use super::{
    Batch, DropReason, LineError, Opened, Opening, Parse, Provenance, Record, Shape, Spec, TimeUnit, block_size,
};
use crate::routing::block::ContentHash;
use serde::Deserialize;
use serde_json::{Map, Value};

pub(super) const SPEC: Spec = Spec {
    name: "GMI",
    description: "GMI (JSON lines with timestamp as a text of nanoseconds, input_length, hash_ids)",
    shape: Shape::Json(fits),
    time_unit: Some(TimeUnit::Nanoseconds),
    sorted: false,
    open,
};

fn fits(fields: &Map<String, Value>) -> bool {
    let text = fields.get("timestamp").is_some_and(Value::is_string);
    text && fields.contains_key("input_length") && fields.get("hash_ids").is_some_and(Value::is_array)
}

fn open(opening: &Opening<'_>) -> Result<Opened, LineError> {
    let block_size = opening.block_size.unwrap_or(block_size(32));
    let parser = Box::new(Parser(opening.unit));
    Ok(Opened { parser, block_size, provenance: Provenance::Real, header: false })
}

struct Parser(TimeUnit);

#[derive(Deserialize)]
struct Line {
    timestamp: Value,
    input_length: i64,
    output_length: i64,
    hash_ids: Vec<Id>,
}

impl Parse for Parser {
    fn parse(&mut self, item: &str, out: &mut Batch) -> Result<(), LineError> {
        let line: Line = from_json(SPEC.name, item)?;
        let at = json_nanos(&line.timestamp, self.0).and_then(since_epoch);
        match (lengths(line.input_length, line.output_length), at) {
            (Ok((prompt_tokens, output_tokens)), Some(at)) => {
                let blocks = line.hash_ids.iter().map(|id| ContentHash(id.number())).collect();
                out.keep(Record { at, prompt_tokens, output_tokens, blocks, ..Record::default() });
            }
            (Err(reason), _) => out.drop(reason),
            (Ok(_), None) => out.drop(DropReason::BadTime),
        }
        Ok(())
    }

    fn counts_from_elsewhere(&self) -> bool {
        true
    }
}
