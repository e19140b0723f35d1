//! Weka: one JSON object for each session of a coding agent, with all its requests; a file, or a folder of files.
//!
//! Times are seconds since the session began. When sessions began is not known, so they are laid end to end; merge several
//! traces for sessions at once. There is one id for each full 64-token block, none for a partial last one. Ids may be known
//! only inside a session. Requests of a subagent stand inside the request that started it. Source: the repository
//! callanjfox/kv-cache-tester.

use super::fields::{Id, from_json, lengths, scoped};
use super::time::{duration, json_nanos};
use super::{Batch, DropReason, LineError, Opened, Opening, Parse, Provenance, Record, Shape, Spec, TimeUnit};
use crate::routing::block::{BlockSize, ContentHash};
use crate::trace::record::Kinds;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::time::Duration;

pub(super) const SPEC: Spec = Spec {
    name: "Weka",
    description: "Weka (a JSON file or a folder of them, each with id, block_size, requests)",
    shape: Shape::Json(fits),
    time_unit: Some(TimeUnit::Seconds),
    sorted: false,
    open,
};

fn fits(fields: &Map<String, Value>) -> bool {
    fields.contains_key("id")
        && fields.contains_key("block_size")
        && fields.get("requests").is_some_and(Value::is_array)
}

fn open(opening: &Opening<'_>) -> Result<Opened, LineError> {
    let session: Session = from_json(SPEC.name, opening.first)?;
    let said =
        BlockSize::new(session.block_size).map_err(|error| LineError::Malformed { reason: error.to_string() })?;
    let block_size = opening.block_size.unwrap_or(said);
    let parser = Parser { block_size, unit: opening.unit, end: Duration::ZERO, kinds: Kinds::default() };
    Ok(Opened { parser: Box::new(parser), block_size, provenance: Provenance::Real, header: false })
}

struct Parser {
    block_size: BlockSize,
    unit: TimeUnit,
    /// Of the sessions so far.
    end: Duration,
    kinds: Kinds,
}

#[derive(Deserialize)]
struct Session {
    id: Id,
    block_size: u32,
    hash_id_scope: Option<String>,
    requests: Vec<Request>,
}

#[derive(Deserialize)]
struct Request {
    t: Value,
    r#type: Option<String>,
    #[serde(default, rename = "in")]
    prompt: i64,
    #[serde(default, rename = "out")]
    output: i64,
    #[serde(default)]
    hash_ids: Vec<Id>,
    /// Of a subagent.
    #[serde(default)]
    requests: Vec<Request>,
}

impl Parse for Parser {
    fn parse(&mut self, item: &str, out: &mut Batch) -> Result<(), LineError> {
        let session: Session = from_json(SPEC.name, item)?;
        if session.block_size != self.block_size.tokens() {
            let reason = format!(
                "blocks of {} tokens after blocks of {}; keep such sessions apart",
                session.block_size,
                self.block_size.tokens()
            );
            return Err(LineError::Malformed { reason });
        }
        let name = session.id.number();
        let scope = (session.hash_id_scope.as_deref() == Some("local")).then_some(name);
        let begin = out.records.len();
        for request in session.requests {
            self.request(request, name, scope, out);
        }
        // Subagents work beside the agent; their requests stand elsewhere than their time.
        out.records.make_contiguous()[begin..].sort_by_key(|record| record.at);
        for (record, turn) in out.records.iter_mut().skip(begin).zip(1..) {
            record.turn = Some(turn);
        }
        self.end = out.records.back().map_or(self.end, |last| last.at);
        Ok(())
    }
}

impl Parser {
    fn request(&mut self, request: Request, session: u64, scope: Option<u64>, out: &mut Batch) {
        let wraps_others = !request.requests.is_empty();
        for inner in request.requests {
            self.request(inner, session, scope, out);
        }
        let at = json_nanos(&request.t, self.unit).and_then(duration);
        match (lengths(request.prompt, request.output), at) {
            (Ok((prompt_tokens, output_tokens)), Some(at)) => {
                let name = |id: &Id| scope.map_or(ContentHash(id.number()), |scope| scoped(scope, id.number()));
                let blocks: Vec<ContentHash> = request.hash_ids.iter().map(name).collect();
                let expected = self.block_size.full_blocks(prompt_tokens) as usize;
                out.tally.miscounted_ids += u64::from(blocks.len() != expected);
                out.keep(Record {
                    at: self.end + at,
                    prompt_tokens,
                    output_tokens,
                    blocks,
                    session: Some(session),
                    kind: request.r#type.as_deref().map(|kind| self.kinds.get(kind)),
                    ..Record::default()
                });
            }
            // What only wraps a subagent's requests is none itself.
            (Err(_), _) if wraps_others => {}
            (Err(reason), _) => out.drop(reason),
            (Ok(_), None) => out.drop(DropReason::BadTime),
        }
    }
}
