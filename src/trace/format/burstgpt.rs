//! BurstGPT: CSV, one request a line, time in seconds since the midnight before the first day.
//!
//! Version 1.1 has six columns; later ones insert `Session ID` and `Elapsed time` before `Model`, so columns are found by
//! name. A request without response tokens failed. The log type becomes the kind. Only conversations have a session id.
//! Source: the repository HPMLL/BurstGPT (CC BY 4.0); Wang et al., "BurstGPT", KDD 2025.

use super::csv::{Header, Row};
use super::fields::{lengths, name_number};
use super::time::{Origin, nanos};
use super::{
    Batch, DropReason, LineError, Opened, Opening, Parse, Provenance, Record, Shape, Spec, TimeUnit, block_size,
};
use crate::trace::record::Kinds;

pub(super) const SPEC: Spec = Spec {
    name: "BurstGPT",
    description: "BurstGPT (CSV with Timestamp, Request tokens, Response tokens, Log Type)",
    shape: Shape::Csv(&["Timestamp", "Request tokens", "Response tokens", "Log Type"]),
    time_unit: Some(TimeUnit::Seconds),
    sorted: false,
    open,
};

fn open(opening: &Opening<'_>) -> Result<Opened, LineError> {
    let header = Header::new(opening.first);
    let parser = Parser {
        time: header.require("Timestamp")?,
        session: header.index("Session ID"),
        prompt: header.require("Request tokens")?,
        output: header.require("Response tokens")?,
        kind: header.require("Log Type")?,
        unit: opening.unit,
        origin: Origin::default(),
        kinds: Kinds::default(),
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
    session: Option<usize>,
    prompt: usize,
    output: usize,
    kind: usize,
    unit: TimeUnit,
    origin: Origin,
    kinds: Kinds,
    row: Row,
}

impl Parse for Parser {
    fn parse(&mut self, line: &str, out: &mut Batch) -> Result<(), LineError> {
        let row = &mut self.row;
        row.split(line)?;
        let lengths = lengths(row.tokens(line, self.prompt)?, row.tokens(line, self.output)?);
        let (prompt_tokens, output_tokens) = match lengths {
            Ok(lengths) => lengths,
            Err(reason) => {
                out.drop(reason);
                return Ok(());
            }
        };
        let nanos = nanos(row.cell(line, self.time)?, self.unit);
        let Some(at) = nanos.and_then(|nanos| self.origin.since_first(nanos)) else {
            out.drop(DropReason::BadTime);
            return Ok(());
        };
        let session = match self.session {
            Some(session) => Some(row.cell(line, session)?).filter(|id| !id.is_empty()).map(name_number),
            None => None,
        };
        let kind = Some(self.kinds.get(row.cell(line, self.kind)?));
        out.keep(Record { at, prompt_tokens, output_tokens, session, kind, ..Record::default() });
        Ok(())
    }
}
