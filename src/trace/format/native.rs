//! Warmpath's own: a JSON object that says what follows, then one for each record.
//!
//! Nothing that a [`Record`] knows is lost in it: times to the nanosecond, block ids of 64 bits as they are, any block
//! size, and where the prefix structure comes from. Fields that a record does not have are left out.
//!
//! ```json
//! {"warmpath_trace":1,"block_tokens":16,"prefix":"real"}
//! {"at_ns":61114000000,"prompt_tokens":40,"output_tokens":132,"blocks":[7,8,9],"chat":3,"parent":1,"turn":2,"kind":"text"}
//! ```

use super::fields::{from_json, lengths};
use super::{Batch, LineError, Opened, Opening, Parse, Provenance, Record, Shape, Spec, TimeUnit};
use crate::routing::block::{BlockSize, ContentHash};
use crate::trace::record::Kinds;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::time::Duration;

pub(super) const SPEC: Spec = Spec {
    name: "Warmpath",
    description: "Warmpath's own (JSON lines after a heading with warmpath_trace)",
    shape: Shape::Json(fits),
    time_unit: Some(TimeUnit::Nanoseconds),
    sorted: true,
    open,
};

const VERSION: u32 = 1;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::trace) struct Heading {
    warmpath_trace: u32,
    block_tokens: u32,
    prefix: Provenance,
}

/// Each line after it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::trace) struct Line<'a> {
    at_ns: u64,
    prompt_tokens: i64,
    output_tokens: i64,
    blocks: Vec<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chat: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    turn: Option<u32>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    kind: Option<Cow<'a, str>>,
}

impl Heading {
    pub(in crate::trace) fn new(block_size: BlockSize, prefix: Provenance) -> Self {
        Heading { warmpath_trace: VERSION, block_tokens: block_size.tokens(), prefix }
    }
}

impl<'a> Line<'a> {
    pub(in crate::trace) fn new(record: &'a Record) -> Self {
        Line {
            at_ns: u64::try_from(record.at.as_nanos()).unwrap_or(u64::MAX),
            prompt_tokens: record.prompt_tokens.into(),
            output_tokens: record.output_tokens.into(),
            blocks: record.blocks.iter().map(|block| block.0).collect(),
            chat: record.chat,
            parent: record.parent,
            session: record.session,
            turn: record.turn,
            kind: record.kind.as_ref().map(|kind| Cow::Borrowed(kind.name())),
        }
    }
}

fn fits(fields: &Map<String, Value>) -> bool {
    fields.contains_key("warmpath_trace")
}

fn open(opening: &Opening<'_>) -> Result<Opened, LineError> {
    let heading: Heading = from_json(SPEC.name, opening.first)?;
    let refused = |reason: String| LineError::Malformed { reason };
    if heading.warmpath_trace != VERSION {
        return Err(refused(format!("version {} of the format is not known, only {VERSION}", heading.warmpath_trace)));
    }
    let block_size = BlockSize::new(heading.block_tokens).map_err(|error| refused(error.to_string()))?;
    let provenance = heading.prefix;
    Ok(Opened { parser: Box::new(Parser(Kinds::default())), block_size, provenance, header: true })
}

struct Parser(Kinds);

impl Parse for Parser {
    fn parse(&mut self, item: &str, out: &mut Batch) -> Result<(), LineError> {
        let line: Line<'_> = from_json(SPEC.name, item)?;
        match lengths(line.prompt_tokens, line.output_tokens) {
            Ok((prompt_tokens, output_tokens)) => out.keep(Record {
                at: Duration::from_nanos(line.at_ns),
                prompt_tokens,
                output_tokens,
                blocks: line.blocks.into_iter().map(ContentHash).collect(),
                chat: line.chat,
                parent: line.parent,
                session: line.session,
                turn: line.turn,
                kind: line.kind.map(|kind| self.0.get(&kind)),
            }),
            Err(reason) => out.drop(reason),
        }
        Ok(())
    }
}
