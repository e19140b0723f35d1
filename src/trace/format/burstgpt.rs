//! BurstGPT: CSV, one request a line, time in seconds since the midnight before the first day.
//!
//! Version 1.1 has six columns; later ones insert `Session ID` and `Elapsed time` before `Model`, so columns are found by
//! name. A request without response tokens failed. The log type becomes the kind. Only conversations have a session id.
//! Source: the repository HPMLL/BurstGPT (CC BY 4.0); Wang et al., "BurstGPT", KDD 2025.

use super::csv::Column::{Optional, Required};
use super::csv::{Columns, request};
use super::fields::name_number;
use super::time::{nanos, since_epoch};
use super::{Batch, LineError, Opened, Opening, Parse, Provenance, Shape, Spec, TimeUnit, block_size};
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
    let columns = Columns::find(
        opening.first,
        [
            Required("Timestamp"),
            Required("Request tokens"),
            Required("Response tokens"),
            Required("Log Type"),
            Optional("Session ID"),
        ],
    )?;
    Ok(Opened {
        parser: Box::new(Parser { columns, unit: opening.unit, kinds: Kinds::default() }),
        block_size: opening.block_size.unwrap_or(block_size(16)),
        provenance: Provenance::none(),
        header: true,
    })
}

struct Parser {
    columns: Columns<5>,
    unit: TimeUnit,
    kinds: Kinds,
}

impl Parse for Parser {
    fn parse(&mut self, line: &str, out: &mut Batch) -> Result<(), LineError> {
        let [time, prompt, output, kind, session] = self.columns.cells(line)?;
        let at = nanos(time, self.unit).and_then(since_epoch);
        if let Some(mut record) = request(at, prompt, output, out)? {
            record.session = (!session.is_empty()).then(|| name_number(session));
            record.kind = Some(self.kinds.get(kind));
            out.keep(record);
        }
        Ok(())
    }

    fn counts_from_elsewhere(&self) -> bool {
        true
    }
}
