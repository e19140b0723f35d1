//! Vidur: CSV, one request a line, arrival in seconds and two lengths. Splitwise's simulator reads the same.
//!
//! Source: the repository microsoft/vidur; Agrawal et al., "Vidur", MLSys 2024.

use super::csv::Column::Required;
use super::csv::{Columns, request};
use super::time::{duration, nanos};
use super::{Batch, LineError, Opened, Opening, Parse, Provenance, Shape, Spec, TimeUnit, block_size};

pub(super) const SPEC: Spec = Spec {
    name: "Vidur",
    description: "Vidur (CSV with arrived_at, num_prefill_tokens, num_decode_tokens)",
    shape: Shape::Csv(&["arrived_at", "num_prefill_tokens", "num_decode_tokens"]),
    time_unit: Some(TimeUnit::Seconds),
    sorted: false,
    open,
};

fn open(opening: &Opening<'_>) -> Result<Opened, LineError> {
    let columns = [Required("arrived_at"), Required("num_prefill_tokens"), Required("num_decode_tokens")];
    Ok(Opened {
        parser: Box::new(Parser { columns: Columns::find(opening.first, columns)?, unit: opening.unit }),
        block_size: opening.block_size.unwrap_or(block_size(16)),
        provenance: Provenance::none(),
        header: true,
    })
}

struct Parser {
    columns: Columns<3>,
    unit: TimeUnit,
}

impl Parse for Parser {
    fn parse(&mut self, line: &str, out: &mut Batch) -> Result<(), LineError> {
        let [time, prompt, output] = self.columns.cells(line)?;
        let at = nanos(time, self.unit).and_then(duration);
        if let Some(record) = request(at, prompt, output, out)? {
            out.keep(record);
        }
        Ok(())
    }
}
