//! Dynamo request traces: one event a line, perhaps wrapped in `event`; those of finished requests say what to replay.
//!
//! An event is written when its request ends, so requests that came earlier may stand later. One with a session's headers says
//! in `agent_context` which session. Other events, such as payloads and the ends of tool calls, are no requests and are passed
//! over, also before the first request, which says how large blocks are. A request of which nothing was recorded for replay is
//! kept with its lengths, but shares nothing.
//! Source: the repository ai-dynamo/dynamo (Apache-2.0), page "Request Replay Tracing", schema `dynamo.request.trace.v1`; field
//! names compared with its loader of these traces.

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
    let is = |part: &Map<String, Value>, name, value| part.get(name).is_some_and(|found| found == value);
    // Payloads need not say of which schema they are.
    [fields, event].iter().any(|part| is(part, "schema", SCHEMA) || is(part, "event_type", "request_payload"))
}

/// Whether a line is an event, but not the end of a request.
pub(super) fn is_before_the_first_request(line: &str) -> bool {
    serde_json::from_str::<Line>(line).is_ok_and(|line| !line.event().as_ref().is_some_and(is_end))
}

fn open(opening: &Opening<'_>) -> Result<Opened, LineError> {
    let line: Line = from_json(SPEC.name, opening.first)?;
    let request = line.event().filter(is_end).and_then(|event| serde_json::from_value(Value::Object(event)).ok());
    let said = request.and_then(|event: Event| event.request?.replay).map(|replay| replay.trace_block_size);
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
    input_tokens: i64,
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
    /// The event's fields; `None` where something else stands in its place.
    fn event(self) -> Option<Map<String, Value>> {
        match self.event {
            Some(Value::Object(event)) => Some(event),
            Some(_) => None,
            None => Some(self.plain),
        }
    }
}

fn is_end(event: &Map<String, Value>) -> bool {
    event.get("event_type").is_some_and(|kind| kind == "request_end")
}

impl Parse for Parser {
    fn parse(&mut self, item: &str, out: &mut Batch) -> Result<(), LineError> {
        let line: Line = from_json(SPEC.name, item)?;
        let Some(event) = line.event().filter(is_end) else { return Ok(()) };
        let event: Event = serde_json::from_value(Value::Object(event))
            .map_err(|error| LineError::Malformed { reason: format!("not a {} record: {error}", SPEC.name) })?;
        let Some(Request { request_received_ms, input_tokens, output_tokens, replay }) = event.request else {
            return Err(LineError::Malformed { reason: format!("not a {} record: no request in it", SPEC.name) });
        };
        let unknown = replay.is_none();
        let replay = replay.unwrap_or_else(|| Replay {
            trace_block_size: self.block_size.tokens(),
            input_length: input_tokens,
            input_sequence_hashes: Vec::new(),
        });
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
                out.tally.miscounted_ids += u64::from(unknown);
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
