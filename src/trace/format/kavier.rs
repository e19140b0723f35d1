//! Kavier: CSV, one request a line, time in seconds, with or without the tokens as a JSON list in a quoted cell.
//!
//! With tokens, blocks are true hashes of them; without, nothing is known of what prompts share. Times of the published
//! example start over in every session, so lines are put in order. A last column without a name is ignored. Source: the
//! package kavier 0.5.3 (MIT); arXiv 2605.25247.

use super::csv::{Header, Row};
use super::fields::{from_json, lengths, name_number, token_blocks};
use super::time::{duration, nanos};
use super::{
    Batch, DropReason, LineError, Opened, Opening, Parse, Provenance, Record, Shape, Spec, TimeUnit, block_size,
};
use crate::routing::block::BlockSize;

pub(super) const SPEC: Spec = Spec {
    name: "Kavier",
    description: "Kavier (CSV with ts, num_input_tokens, num_output_tokens)",
    shape: Shape::Csv(&["ts", "num_input_tokens", "num_output_tokens"]),
    time_unit: Some(TimeUnit::Seconds),
    sorted: false,
    open,
};

fn open(opening: &Opening<'_>) -> Result<Opened, LineError> {
    let header = Header::new(opening.first);
    let tokens = header.index("input_tokens");
    let block_size = opening.block_size.unwrap_or(block_size(16));
    let parser = Parser {
        time: header.require("ts")?,
        prompt: header.require("num_input_tokens")?,
        output: header.require("num_output_tokens")?,
        session: header.index("session_id"),
        turn: header.index("turn_id"),
        tokens,
        block_size,
        unit: opening.unit,
        row: Row::default(),
    };
    let provenance = if tokens.is_some() { Provenance::Real } else { Provenance::none() };
    Ok(Opened { parser: Box::new(parser), block_size, provenance, header: true })
}

struct Parser {
    time: usize,
    prompt: usize,
    output: usize,
    session: Option<usize>,
    turn: Option<usize>,
    tokens: Option<usize>,
    block_size: BlockSize,
    unit: TimeUnit,
    row: Row,
}

impl Parse for Parser {
    fn parse(&mut self, line: &str, out: &mut Batch) -> Result<(), LineError> {
        self.row.split(line)?;
        let row = &self.row;
        let cell = |column: Option<usize>| column.map(|column| row.cell(line, column)).transpose();
        let lengths = lengths(row.tokens(line, self.prompt)?, row.tokens(line, self.output)?);
        let (prompt_tokens, output_tokens) = match lengths {
            Ok(lengths) => lengths,
            Err(reason) => {
                out.drop(reason);
                return Ok(());
            }
        };
        let Some(at) = nanos(row.cell(line, self.time)?, self.unit).and_then(duration) else {
            out.drop(DropReason::BadTime);
            return Ok(());
        };
        let blocks = match cell(self.tokens)? {
            Some(tokens) => token_blocks(&from_json::<Vec<u32>>(SPEC.name, tokens)?, self.block_size),
            None => Vec::new(),
        };
        if self.tokens.is_some() {
            let expected = self.block_size.touched_blocks(prompt_tokens) as usize;
            out.tally.miscounted_ids += u64::from(blocks.len() != expected);
        }
        let session = cell(self.session)?.filter(|id| !id.is_empty());
        let turn = cell(self.turn)?.and_then(|turn| turn.parse::<u32>().ok());
        out.keep(Record {
            at,
            prompt_tokens,
            output_tokens,
            blocks,
            session: session.map(|id| id.parse().unwrap_or_else(|_| name_number(id))),
            turn: turn.and_then(|turn| turn.checked_add(1)),
            ..Record::default()
        });
        Ok(())
    }
}
