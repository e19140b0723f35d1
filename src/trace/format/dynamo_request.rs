//! Dynamo request traces: one event a line, perhaps wrapped in `event`; those of finished requests say what to replay.
//!
//! An event is written when its request ends, so requests that came earlier may stand later. One with a session's headers says
//! in `agent_context` which session. Other events, such as the ends of tool calls, are no requests and are passed over.
//! Source: the repository ai-dynamo/dynamo (Apache-2.0), page "Request Replay Tracing", schema `dynamo.request.trace.v1`.

use super::fields::{Id, from_json, lengths};
use super::time::{json_nanos, since_epoch};
use super::{
    Batch, DropReason, LineError, Opened, Opening, Parse, Provenance, Record, Shape, Spec, TimeUnit, block_size,
};
use crate::routing::block::{BlockSize, ContentHash};
use serde::Deserialize;
use serde_json::{Map, Value};

pub(super) const SPEC: Spec = Spec {
    name: "Dynamo request trace",
    description: "Dynamo request traces (JSON lines with schema dynamo.request.trace.v1)",
    shape: Shape::Json(fits),
    time_unit: Some(TimeUnit::Milliseconds),
    sorted: false,
    open,
};

const SCHEMA: &str = "dynamo.request.trace.v1";

fn fits(fields: &Map<String, Value>) -> bool {
    let event = fields.get("event").and_then(Value::as_object).unwrap_or(fields);
    [fields, event].iter().any(|part| part.get("schema").is_some_and(|schema| schema == SCHEMA))
}

fn open(opening: &Opening<'_>) -> Result<Opened, LineError> {
    let line: Line = from_json(SPEC.name, opening.first)?;
    let said = line.into_event().and_then(|event| event.request?.replay).map(|replay| replay.trace_block_size);
    let said = said.map(BlockSize::new).transpose();
    let said = said.map_err(|error| LineError::Malformed { reason: error.to_string() })?;
    let block_size = opening.block_size.or(said).unwrap_or(block_size(16));
    let parser = Box::new(Parser { block_size, unit: opening.unit });
    Ok(Opened { parser, block_size, provenance: Provenance::Real, header: false })
}

struct Parser {
    block_size: BlockSize,
    unit: TimeUnit,
}

#[derive(Deserialize)]
struct Line {
    event: Option<Value>,
    #[serde(flatten)]
    plain: Map<String, Value>,
}

#[derive(Deserialize)]
struct Event {
    event_type: Option<String>,
    event_time_unix_ms: Option<Value>,
    /// Only of requests that came with a session's headers.
    agent_context: Option<AgentContext>,
    request: Option<Request>,
}

#[derive(Deserialize)]
struct AgentContext {
    session_id: Option<Id>,
}

#[derive(Deserialize)]
struct Request {
    request_received_ms: Option<Value>,
    #[serde(default)]
    output_tokens: i64,
    replay: Option<Replay>,
}

#[derive(Deserialize)]
struct Replay {
    trace_block_size: u32,
    input_length: i64,
    input_sequence_hashes: Vec<Id>,
}

impl Line {
    fn into_event(self) -> Option<Event> {
        let event = match self.event {
            Some(Value::Object(event)) => event,
            Some(_) => return None,
            None => self.plain,
        };
        serde_json::from_value(Value::Object(event)).ok()
    }
}

impl Parse for Parser {
    fn parse(&mut self, item: &str, out: &mut Batch) -> Result<(), LineError> {
        let line: Line = from_json(SPEC.name, item)?;
        let Some(event) = line.into_event() else {
            return Err(LineError::Malformed { reason: format!("not a {} record: no event in it", SPEC.name) });
        };
        let Some(Request { request_received_ms, output_tokens, replay: Some(replay) }) = event.request else {
            return Ok(());
        };
        if event.event_type.as_deref() != Some("request_end") {
            return Ok(());
        }
        if replay.trace_block_size != self.block_size.tokens() {
            let reason = format!(
                "blocks of {} tokens after blocks of {}; split the file",
                replay.trace_block_size,
                self.block_size.tokens()
            );
            return Err(LineError::Malformed { reason });
        }
        let time = request_received_ms.or(event.event_time_unix_ms).and_then(|time| json_nanos(&time, self.unit));
        match (lengths(replay.input_length, output_tokens), time.and_then(since_epoch)) {
            (Ok((prompt_tokens, output_tokens)), Some(at)) => {
                let mut blocks: Vec<_> =
                    replay.input_sequence_hashes.iter().map(|id| ContentHash(id.number())).collect();
                blocks.truncate(self.block_size.touched_blocks(prompt_tokens) as usize);
                let session = event.agent_context.and_then(|context| context.session_id).as_ref().map(Id::number);
                out.keep(Record { at, prompt_tokens, output_tokens, blocks, session, ..Record::default() });
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
