//! Dynamo and AIPerf: Mooncake's rows with more fields, and Dynamo's agentic edition, which begins with a heading.
//!
//! Lengths may be called `input_tokens` and `output_tokens`, times `created_time`; times may have fractions. A row of a
//! session may say how long after the one before it it comes (`delay`) instead of when: as the one before it takes a time
//! that only a model knows, that time counts as nothing here. In the agentic edition `not_before_ms` is the time, and ids
//! may be known only inside a play. Rows that hold text instead of a length need a tokenizer. Source: the repositories
//! ai-dynamo/dynamo (`MooncakeRow` and `AgenticMooncakeRow` of its replay) and ai-dynamo/aiperf (`MooncakeTrace`), both
//! Apache-2.0, and the package aiperf 0.13.

use super::fields::{Id, from_json, lengths, scoped};
use super::qwen_bailian::check_ids;
use super::time::{duration, json_nanos};
use super::{
    Batch, DropReason, LineError, Opened, Opening, Parse, Provenance, Record, Shape, Spec, TimeUnit, block_size,
};
use crate::routing::block::{BlockSize, ContentHash};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::HashMap;

pub(super) const SPEC: Spec = Spec {
    name: "Dynamo",
    description: "Dynamo and AIPerf (Mooncake's JSON lines with session_id, delay or other fields, or with a \
                  dynamo.agentic_mooncake heading)",
    shape: Shape::Json(fits),
    time_unit: Some(TimeUnit::Milliseconds),
    sorted: false,
    open,
};

/// What Mooncake's own rows do not have.
pub(super) const EXTENSIONS: &[&str] = &[
    "session_id",
    "request_id",
    "delay",
    "delay_ms",
    "input_tokens",
    "output_tokens",
    "output_token_ids",
    "created_time",
    "priority",
    "strict_priority",
    "policy_class",
    "text_input",
    "messages",
    "payload",
];
const AGENTIC: &str = "dynamo.agentic_mooncake";

fn fits(fields: &Map<String, Value>) -> bool {
    let has = |name: &str| fields.contains_key(name);
    let agentic = fields.get("schema").is_some_and(|schema| schema == AGENTIC);
    let is_number = |name: &str| fields.get(name).is_some_and(Value::is_number);
    let length = ["input_length", "input_tokens"].into_iter().any(is_number)
        || ["text_input", "messages", "payload"].into_iter().any(has);
    let output = ["output_length", "output_tokens"].into_iter().any(has);
    agentic
        || (length
            && output
            && EXTENSIONS.iter().any(|&name| has(name))
            && !has("chat_id")
            && !has("hash_id")
            && !has("num_input_tokens"))
}

#[derive(Deserialize)]
struct Heading {
    schema: Option<String>,
    block_size: Option<u32>,
    hash_id_scope: Option<String>,
}

fn open(opening: &Opening<'_>) -> Result<Opened, LineError> {
    let heading: Heading = from_json(SPEC.name, opening.first)?;
    let agentic = heading.schema.as_deref() == Some(AGENTIC);
    let said = match heading.block_size {
        Some(tokens) if agentic => {
            Some(BlockSize::new(tokens).map_err(|error| LineError::Malformed { reason: error.to_string() })?)
        }
        Some(_) | None => None,
    };
    let block_size = opening.block_size.or(said).unwrap_or(block_size(512));
    let local = heading.hash_id_scope.as_deref() == Some("local");
    let has_ids = agentic || opening.first.contains("\"hash_ids\"");
    let parser = Box::new(Parser { block_size, unit: opening.unit, local, has_ids, last_nanos: HashMap::new() });
    let provenance = if has_ids { Provenance::Real } else { Provenance::none() };
    Ok(Opened { parser, block_size, provenance, header: agentic })
}

struct Parser {
    block_size: BlockSize,
    unit: TimeUnit,
    /// Ids are known only inside a play, or a session where there is none.
    local: bool,
    has_ids: bool,
    /// When each session had its last request.
    last_nanos: HashMap<u64, i128>,
}

#[derive(Deserialize)]
struct Line {
    session_id: Option<Id>,
    /// Of the agentic edition: several sessions that belong together.
    play_id: Option<Id>,
    #[serde(alias = "input_tokens")]
    input_length: Option<i64>,
    #[serde(alias = "output_tokens")]
    output_length: Option<i64>,
    hash_ids: Option<Vec<Id>>,
    #[serde(alias = "created_time", alias = "not_before_ms")]
    timestamp: Option<Value>,
    #[serde(alias = "delay_ms")]
    delay: Option<Value>,
}

impl Parser {
    /// Sessions remembered for their delays: 1 MiB of them.
    const SESSIONS_MAX: usize = 1 << 14;

    /// When a row comes: as it says, or so long after the session's last one.
    fn nanos(&mut self, line: &Line, session: Option<u64>) -> Option<i128> {
        let nanos = match (&line.timestamp, &line.delay) {
            (Some(Value::Null) | None, Some(delay)) => {
                self.last_nanos.get(&session?)?.checked_add(json_nanos(delay, self.unit)?)?
            }
            (Some(timestamp), _) => json_nanos(timestamp, self.unit)?,
            (None, None) => return None,
        };
        if let Some(session) = session {
            if self.last_nanos.len() >= Self::SESSIONS_MAX {
                self.last_nanos.clear();
            }
            self.last_nanos.insert(session, nanos);
        }
        Some(nanos)
    }
}

impl Parse for Parser {
    fn parse(&mut self, item: &str, out: &mut Batch) -> Result<(), LineError> {
        let line: Line = from_json(SPEC.name, item)?;
        let (session, play) = (line.session_id.as_ref().map(Id::number), line.play_id.as_ref().map(Id::number));
        // A play has its own sessions and its own ids.
        let session = session.map(|session| play.map_or(session, |play| scoped(play, session).0)).or(play);
        let scope = play.or(session);
        let Some(input_length) = line.input_length else {
            return Err(LineError::NeedsTokenizer { format: SPEC.name });
        };
        let (prompt_tokens, output_tokens) = match lengths(input_length, line.output_length.unwrap_or(0)) {
            Ok(lengths) => lengths,
            Err(reason) => {
                out.drop(reason);
                return Ok(());
            }
        };
        let Some(at) = self.nanos(&line, session).and_then(duration) else {
            out.drop(DropReason::BadTime);
            return Ok(());
        };
        let ids = line.hash_ids.unwrap_or_default();
        if self.has_ids {
            let miscounted = check_ids(SPEC.name, self.block_size, ids.len(), prompt_tokens)?;
            out.tally.miscounted_ids += u64::from(miscounted);
        }
        let name = |id: &Id| match scope.filter(|_| self.local) {
            Some(scope) => scoped(scope, id.number()),
            None => ContentHash(id.number()),
        };
        let mut blocks: Vec<ContentHash> = ids.iter().map(name).collect();
        blocks.truncate(self.block_size.touched_blocks(prompt_tokens) as usize);
        out.keep(Record { at, prompt_tokens, output_tokens, blocks, session, ..Record::default() });
        Ok(())
    }
}
