//! Marconi: one JSON object a line, time in seconds, with the tokens of prompt and output.
//!
//! Sessions and turns count from zero. Blocks are true hashes of the tokens; a later prompt is not always an extension of
//! an earlier one. The enriched edition has the same fields. Source: Pan et al., "Marconi", MLSys 2025, and Zenodo record
//! 14970139.

use super::fields::{Id, from_json, lengths, token_blocks};
use super::time::{duration, json_nanos};
use super::{
    Batch, DropReason, LineError, Opened, Opening, Parse, Provenance, Record, Shape, Spec, TimeUnit, block_size,
};
use crate::routing::block::BlockSize;
use serde::Deserialize;
use serde_json::{Map, Value};

pub(super) const SPEC: Spec = Spec {
    name: "Marconi",
    description: "Marconi and Marconi-Kavier (JSON lines or Parquet with session_id, turn_id, ts, num_input_tokens, num_output_tokens, input_tokens)",
    shape: Shape::Json(fits),
    time_unit: Some(TimeUnit::Seconds),
    sorted: false,
    open,
};

fn fits(fields: &Map<String, Value>) -> bool {
    let has = |name: &&str| fields.contains_key(*name);
    ["session_id", "ts", "num_output_tokens"].iter().all(has) && fields.get("input_tokens").is_some_and(Value::is_array)
}

fn open(opening: &Opening<'_>) -> Result<Opened, LineError> {
    let block_size = opening.block_size.unwrap_or(block_size(16));
    let parser = Box::new(Parser { block_size, unit: opening.unit });
    Ok(Opened { parser, block_size, provenance: Provenance::Real, header: false })
}

struct Parser {
    block_size: BlockSize,
    unit: TimeUnit,
}

#[derive(Deserialize)]
struct Line {
    session_id: Id,
    turn_id: Option<u32>,
    ts: Value,
    num_input_tokens: Option<i64>,
    num_output_tokens: i64,
    input_tokens: Vec<u32>,
}

impl Parse for Parser {
    fn parse(&mut self, item: &str, out: &mut Batch) -> Result<(), LineError> {
        let line: Line = from_json(SPEC.name, item)?;
        let count = line.input_tokens.len() as i64;
        out.tally.miscounted_ids += u64::from(line.num_input_tokens.is_some_and(|said| said != count));
        let at = json_nanos(&line.ts, self.unit).and_then(duration);
        match (lengths(count, line.num_output_tokens), at) {
            (Ok((prompt_tokens, output_tokens)), Some(at)) => out.keep(Record {
                at,
                prompt_tokens,
                output_tokens,
                blocks: token_blocks(&line.input_tokens, self.block_size),
                session: Some(line.session_id.number()),
                turn: line.turn_id.and_then(|turn| turn.checked_add(1)),
                ..Record::default()
            }),
            (Err(reason), _) => out.drop(reason),
            (Ok(_), None) => out.drop(DropReason::BadTime),
        }
        Ok(())
    }
}
