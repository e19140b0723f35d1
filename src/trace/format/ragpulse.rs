//! RAGPulse: one JSON object a line, time as a text of seconds, ids in five lists by what they are part of.
//!
//! The prompt is the lists one after another: system prompt, passages, history, web search, user input. An id stands for a
//! passage of any length, so blocks count as 256 tokens and there may be more or fewer ids than that makes: ratios of
//! blocks are exact, ratios of tokens are not. Source: the repository flashserve/RAGPulse (MIT).

use super::fields::{Id, from_json, lengths};
use super::time::{duration, json_nanos};
use super::{
    Batch, DropReason, LineError, Opened, Opening, Parse, Provenance, Record, Shape, Spec, TimeUnit, block_size,
};
use crate::routing::block::ContentHash;
use serde::Deserialize;
use serde_json::{Map, Value};

pub(super) const SPEC: Spec = Spec {
    name: "RAGPulse",
    description: "RAGPulse (JSON lines with session_id and hash_ids in five lists)",
    shape: Shape::Json(fits),
    time_unit: Some(TimeUnit::Seconds),
    sorted: false,
    open,
};

fn fits(fields: &Map<String, Value>) -> bool {
    fields.get("hash_ids").is_some_and(Value::is_object) && fields.contains_key("timestamp")
}

fn open(opening: &Opening<'_>) -> Result<Opened, LineError> {
    let block_size = opening.block_size.unwrap_or(block_size(256));
    Ok(Opened { parser: Box::new(Parser(opening.unit)), block_size, provenance: Provenance::Real, header: false })
}

struct Parser(TimeUnit);

#[derive(Deserialize)]
struct Line {
    timestamp: Value,
    input_length: i64,
    output_length: i64,
    hash_ids: Parts,
    session_id: Option<Id>,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Parts {
    sys_prompt: Vec<Id>,
    passages_ids: Vec<Id>,
    history: Vec<Id>,
    web_search: Vec<Id>,
    user_input: Vec<Id>,
}

impl Parse for Parser {
    fn parse(&mut self, item: &str, out: &mut Batch) -> Result<(), LineError> {
        let line: Line = from_json(SPEC.name, item)?;
        let at = json_nanos(&line.timestamp, self.0).and_then(duration);
        match (lengths(line.input_length, line.output_length), at) {
            (Ok((prompt_tokens, output_tokens)), Some(at)) => {
                let Parts { sys_prompt, passages_ids, history, web_search, user_input } = line.hash_ids;
                let parts = [sys_prompt, passages_ids, history, web_search, user_input];
                let blocks = parts.iter().flatten().map(|id| ContentHash(id.number())).collect();
                let session = line.session_id.as_ref().map(Id::number);
                out.keep(Record { at, prompt_tokens, output_tokens, blocks, session, ..Record::default() });
            }
            (Err(reason), _) => out.drop(reason),
            (Ok(_), None) => out.drop(DropReason::BadTime),
        }
        Ok(())
    }
}
