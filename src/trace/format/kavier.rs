//! Kavier: CSV or Parquet, one request a row, time in seconds, with or without the tokens as a JSON list in a text.
//!
//! With tokens, blocks are true hashes of them; without, nothing is known of what prompts share. Times of the published
//! example start over in every session, so lines are put in order. A last column without a name is ignored. Source: the
//! package kavier 0.5.3 (MIT); arXiv 2605.25247.

use super::csv::Column::{Optional, Required};
use super::csv::{Columns, tokens};
use super::fields::{Id, from_json, lengths, name_number, token_blocks};
use super::time::{duration, json_nanos, nanos};
use super::{
    Batch, DropReason, LineError, Opened, Opening, Parse, Provenance, Record, Shape, Spec, TimeUnit, block_size,
};
use crate::routing::block::BlockSize;
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;

pub(super) const SPEC: Spec = Spec {
    name: "Kavier",
    description: "Kavier (CSV or Parquet with ts, num_input_tokens, num_output_tokens)",
    shape: Shape::Columns(&["ts", "num_input_tokens", "num_output_tokens"]),
    time_unit: Some(TimeUnit::Seconds),
    sorted: false,
    open,
};

fn open(opening: &Opening<'_>) -> Result<Opened, LineError> {
    if opening.first.starts_with('{') {
        return rows(opening);
    }
    let columns = [
        Required("ts"),
        Required("num_input_tokens"),
        Required("num_output_tokens"),
        Optional("session_id"),
        Optional("turn_id"),
        Optional("input_tokens"),
    ];
    let columns = Columns::find(opening.first, columns)?;
    let has_tokens = columns.have(5);
    let block_size = opening.block_size.unwrap_or(block_size(16));
    let parser = Parser { columns, has_tokens, block_size, unit: opening.unit };
    let provenance = if has_tokens { Provenance::Real } else { Provenance::none() };
    Ok(Opened { parser: Box::new(parser), block_size, provenance, header: true })
}

fn rows(opening: &Opening<'_>) -> Result<Opened, LineError> {
    let block_size = opening.block_size.unwrap_or(block_size(16));
    let first: Line = from_json(SPEC.name, opening.first)?;
    let provenance = if first.input_tokens.is_some() { Provenance::Real } else { Provenance::none() };
    let parser = Box::new(Rows { block_size, unit: opening.unit });
    Ok(Opened { parser, block_size, provenance, header: false })
}

struct Parser {
    columns: Columns<6>,
    has_tokens: bool,
    block_size: BlockSize,
    unit: TimeUnit,
}

/// Of Parquet. Lists of tokens there are Marconi's; here they are texts, as in the CSV.
struct Rows {
    block_size: BlockSize,
    unit: TimeUnit,
}

#[derive(Deserialize)]
struct Line<'a> {
    ts: Value,
    num_input_tokens: i64,
    num_output_tokens: i64,
    session_id: Option<Id>,
    turn_id: Option<u32>,
    #[serde(borrow)]
    input_tokens: Option<Cow<'a, str>>,
}

/// A row, however it was written.
struct Cells<'a> {
    lengths: (i64, i64),
    nanos: Option<i128>,
    tokens: Option<&'a str>,
    session: Option<u64>,
    turn: Option<u32>,
}

impl Cells<'_> {
    fn take(&self, block_size: BlockSize, out: &mut Batch) -> Result<(), LineError> {
        let (prompt_tokens, output_tokens) = match lengths(self.lengths.0, self.lengths.1) {
            Ok(lengths) => lengths,
            Err(reason) => {
                out.drop(reason);
                return Ok(());
            }
        };
        let Some(at) = self.nanos.and_then(duration) else {
            out.drop(DropReason::BadTime);
            return Ok(());
        };
        let mut blocks = Vec::new();
        if let Some(tokens) = self.tokens {
            blocks = token_blocks(&from_json::<Vec<u32>>(SPEC.name, tokens)?, block_size);
            let expected = block_size.touched_blocks(prompt_tokens) as usize;
            out.tally.miscounted_ids += u64::from(blocks.len() != expected);
        }
        let turn = self.turn.and_then(|turn| turn.checked_add(1));
        out.keep(Record { at, prompt_tokens, output_tokens, blocks, session: self.session, turn, ..Record::default() });
        Ok(())
    }
}

impl Parse for Parser {
    fn parse(&mut self, line: &str, out: &mut Batch) -> Result<(), LineError> {
        let [time, prompt, output, session, turn, list] = self.columns.cells(line)?;
        let cells = Cells {
            lengths: (tokens(prompt)?, tokens(output)?),
            nanos: nanos(time, self.unit),
            tokens: self.has_tokens.then_some(list),
            session: (!session.is_empty()).then(|| session.parse().unwrap_or_else(|_| name_number(session))),
            turn: turn.parse().ok(),
        };
        cells.take(self.block_size, out)
    }
}

impl Parse for Rows {
    fn parse(&mut self, item: &str, out: &mut Batch) -> Result<(), LineError> {
        let line: Line = from_json(SPEC.name, item)?;
        let cells = Cells {
            lengths: (line.num_input_tokens, line.num_output_tokens),
            nanos: json_nanos(&line.ts, self.unit),
            tokens: line.input_tokens.as_deref(),
            session: line.session_id.as_ref().map(Id::number),
            turn: line.turn_id,
        };
        cells.take(self.block_size, out)
    }
}
