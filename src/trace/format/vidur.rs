//! Vidur: CSV, one request a line, arrival in seconds and two lengths. Splitwise's simulator reads the same.
//!
//! Source: the repository microsoft/vidur; Agrawal et al., "Vidur", MLSys 2024.

use super::csv::{Header, Row};
use super::fields::lengths;
use super::time::{duration, nanos};
use super::{
    Batch, DropReason, LineError, Opened, Opening, Parse, Provenance, Record, Shape, Spec, TimeUnit, block_size,
};

pub(super) const SPEC: Spec = Spec {
    name: "Vidur",
    description: "Vidur (CSV with arrived_at, num_prefill_tokens, num_decode_tokens)",
    shape: Shape::Csv(&["arrived_at", "num_prefill_tokens", "num_decode_tokens"]),
    time_unit: Some(TimeUnit::Seconds),
    sorted: false,
    open,
};

fn open(opening: &Opening<'_>) -> Result<Opened, LineError> {
    let header = Header::new(opening.first);
    let parser = Parser {
        time: header.require("arrived_at")?,
        prompt: header.require("num_prefill_tokens")?,
        output: header.require("num_decode_tokens")?,
        unit: opening.unit,
        row: Row::default(),
    };
    Ok(Opened {
        parser: Box::new(parser),
        block_size: opening.block_size.unwrap_or(block_size(16)),
        provenance: Provenance::none(),
        header: true,
    })
}

struct Parser {
    time: usize,
    prompt: usize,
    output: usize,
    unit: TimeUnit,
    row: Row,
}

impl Parse for Parser {
    fn parse(&mut self, line: &str, out: &mut Batch) -> Result<(), LineError> {
        self.row.split(line)?;
        let lengths = lengths(self.row.tokens(line, self.prompt)?, self.row.tokens(line, self.output)?);
        let at = nanos(self.row.cell(line, self.time)?, self.unit).and_then(duration);
        match (lengths, at) {
            (Ok((prompt_tokens, output_tokens)), Some(at)) => {
                out.keep(Record { at, prompt_tokens, output_tokens, ..Record::default() });
            }
            (Err(reason), _) => out.drop(reason),
            (Ok(_), None) => out.drop(DropReason::BadTime),
        }
        Ok(())
    }
}
