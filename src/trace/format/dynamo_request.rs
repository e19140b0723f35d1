//! Dynamo request traces: one event a line, perhaps wrapped in `event`; those of finished requests say what to replay.
//!
//! Other events, such as the ends of tool calls, are no requests and are passed over. Source: the repository
//! ai-dynamo/dynamo (Apache-2.0), schema `dynamo.request.trace.v1`.

use super::fields::{Id, from_json, lengths};
use super::time::{Origin, json_nanos};
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
    let parser = Box::new(Parser { block_size, unit: opening.unit, origin: Origin::default() });
    Ok(Opened { parser, block_size, provenance: Provenance::Real, header: false })
}

struct Parser {
    block_size: BlockSize,
    unit: TimeUnit,
    origin: Origin,
}

#[derive(Deserialize)]
struct Line {
    event: Option<Value>,
    #[serde(flatten)]
    plain: Map<String, Value>,
}

#[derive(Deserialize)]
struct Event {
    #[serde(alias = "event_type", alias = "type")]
    event: Option<String>,
    #[serde(alias = "event_time_unix_ms", alias = "timestamp", alias = "time_ms")]
    timestamp_ms: Option<Value>,
    request: Option<Request>,
}

#[derive(Deserialize)]
struct Request {
    session_id: Option<Id>,
    #[serde(alias = "request_received_ms", alias = "received_ms", alias = "arrival_ms")]
    received_at_ms: Option<Value>,
    #[serde(default, alias = "output_tokens")]
    output_length: i64,
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
            Some(name) => {
                let mut plain = self.plain;
                plain.insert("event".to_owned(), name);
                plain
            }
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
        let Some(Request { session_id, received_at_ms, output_length, replay: Some(replay) }) = event.request else {
            return Ok(());
        };
        if event.event.as_deref().is_some_and(|name| name != "request_end") {
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
        let time = received_at_ms.or(event.timestamp_ms).and_then(|time| json_nanos(&time, self.unit));
        match (lengths(replay.input_length, output_length), time.and_then(|time| self.origin.since_first(time))) {
            (Ok((prompt_tokens, output_tokens)), Some(at)) => {
                let mut blocks: Vec<_> =
                    replay.input_sequence_hashes.iter().map(|id| ContentHash(id.number())).collect();
                blocks.truncate(self.block_size.touched_blocks(prompt_tokens) as usize);
                let session = session_id.as_ref().map(Id::number);
                out.keep(Record { at, prompt_tokens, output_tokens, blocks, session, ..Record::default() });
            }
            (Err(reason), _) => out.drop(reason),
            (Ok(_), None) => out.drop(DropReason::BadTime),
        }
        Ok(())
    }
}
