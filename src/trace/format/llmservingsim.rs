//! LLMServingSim: one JSON object a line, time in nanoseconds; either a request, with or without its tokens, or a session
//! with its requests. Lines of both sorts may be mixed.
//!
//! The requests of a session come one after another: each when the tool call after the one before it is done. How long the
//! model itself took is not known and counts as nothing. Source: the repository casys-kaist/LLMServingSim (MIT).

use super::fields::{Id, from_json, lengths, token_blocks};
use super::time::{duration, json_nanos};
use super::{
    Batch, DropReason, LineError, Opened, Opening, Parse, Provenance, Record, Shape, Spec, TimeUnit, block_size,
};
use crate::routing::block::BlockSize;
use serde::Deserialize;
use serde_json::{Map, Value};

pub(super) const SPEC: Spec = Spec {
    name: "LLMServingSim",
    description: "LLMServingSim (JSON lines with arrival_time_ns and input_toks, output_toks or sub_requests)",
    shape: Shape::Json(fits),
    time_unit: Some(TimeUnit::Nanoseconds),
    sorted: false,
    open,
};

fn fits(fields: &Map<String, Value>) -> bool {
    fields.contains_key("arrival_time_ns") && (fields.contains_key("input_toks") || fields.contains_key("sub_requests"))
}

fn open(opening: &Opening<'_>) -> Result<Opened, LineError> {
    let block_size = opening.block_size.unwrap_or(block_size(16));
    let first: Line = from_json(SPEC.name, opening.first)?;
    let real = first.input_tok_ids.is_some();
    let parser = Box::new(Parser { block_size, unit: opening.unit, real });
    let provenance = if real { Provenance::Real } else { Provenance::none() };
    Ok(Opened { parser, block_size, provenance, header: false })
}

struct Parser {
    block_size: BlockSize,
    unit: TimeUnit,
    /// The lines have tokens.
    real: bool,
}

#[derive(Deserialize)]
struct Line {
    arrival_time_ns: Value,
    session_id: Option<Id>,
    #[serde(default)]
    input_toks: i64,
    #[serde(default)]
    output_toks: i64,
    input_tok_ids: Option<Vec<u32>>,
    sub_requests: Option<Vec<SubRequest>>,
}

#[derive(Deserialize)]
struct SubRequest {
    input_toks: i64,
    output_toks: i64,
    #[serde(default)]
    tool_duration_ns: f64,
    input_tok_ids: Option<Vec<u32>>,
}

impl Parse for Parser {
    fn parse(&mut self, item: &str, out: &mut Batch) -> Result<(), LineError> {
        let line: Line = from_json(SPEC.name, item)?;
        let session = line.session_id.as_ref().map(Id::number);
        let Some(mut nanos) = json_nanos(&line.arrival_time_ns, self.unit) else {
            out.drop(DropReason::BadTime);
            return Ok(());
        };
        let Some(requests) = line.sub_requests else {
            let first = Turn { nanos, session, turn: None };
            return self.request(first, (line.input_toks, line.output_toks), line.input_tok_ids, out);
        };
        for (request, turn) in requests.into_iter().zip(1..) {
            let lengths = (request.input_toks, request.output_toks);
            self.request(Turn { nanos, session, turn: Some(turn) }, lengths, request.input_tok_ids, out)?;
            nanos += request.tool_duration_ns.max(0.0) as i128;
        }
        Ok(())
    }
}

struct Turn {
    nanos: i128,
    session: Option<u64>,
    turn: Option<u32>,
}

impl Parser {
    fn request(
        &self,
        place: Turn,
        (prompt, output): (i64, i64),
        tokens: Option<Vec<u32>>,
        out: &mut Batch,
    ) -> Result<(), LineError> {
        if tokens.is_some() != self.real {
            let reason = "some lines have input_tok_ids and some have none; split the file".to_owned();
            return Err(LineError::Malformed { reason });
        }
        match (lengths(prompt, output), duration(place.nanos)) {
            (Ok((prompt_tokens, output_tokens)), Some(at)) => {
                let blocks = token_blocks(&tokens.unwrap_or_default(), self.block_size);
                let expected = self.block_size.touched_blocks(prompt_tokens) as usize;
                out.tally.miscounted_ids += u64::from(self.real && blocks.len() != expected);
                let Turn { session, turn, .. } = place;
                out.keep(Record { at, prompt_tokens, output_tokens, blocks, session, turn, ..Record::default() });
            }
            (Err(reason), _) => out.drop(reason),
            (Ok(_), None) => out.drop(DropReason::BadTime),
        }
        Ok(())
    }
}
