//! Azure: CSV, one request a line, a date and two lengths; nothing of what was asked.
//!
//! The 2023 traces have seven digits of a second and no zone, those of 2024 six or, on a whole second, none and `+00:00`,
//! the multimodal one of 2025 three and `Z`, and a column with the number of images, which becomes the kind. Source: the
//! repository Azure/AzurePublicDataset (CC BY 4.0); Patel et al., "Splitwise", ISCA 2024; Stojkovic et al., "DynamoLLM",
//! HPCA 2025; Qiu et al., "ModServe", SoCC 2025.

use super::csv::Column::{Optional, Required};
use super::csv::{Columns, request, tokens};
use super::time::{civil_nanos, since_epoch};
use super::{Batch, LineError, Opened, Opening, Parse, Provenance, Shape, Spec, block_size};
use crate::trace::record::Kind;

pub(super) const SPEC: Spec = Spec {
    name: "Azure",
    description: "Azure (CSV with TIMESTAMP, ContextTokens, GeneratedTokens)",
    shape: Shape::Csv(&["TIMESTAMP", "ContextTokens", "GeneratedTokens"]),
    time_unit: None,
    sorted: false,
    open,
};

fn open(opening: &Opening<'_>) -> Result<Opened, LineError> {
    let columns =
        [Required("TIMESTAMP"), Required("ContextTokens"), Required("GeneratedTokens"), Optional("NumImages")];
    let columns = Columns::find(opening.first, columns)?;
    let kinds = columns.have(3).then(|| ["text", "image"].map(Kind::new));
    Ok(Opened {
        parser: Box::new(Parser { columns, kinds }),
        block_size: opening.block_size.unwrap_or(block_size(16)),
        provenance: Provenance::none(),
        header: true,
    })
}

struct Parser {
    columns: Columns<4>,
    /// Without and with images, where the trace tells.
    kinds: Option<[Kind; 2]>,
}

impl Parse for Parser {
    fn parse(&mut self, line: &str, out: &mut Batch) -> Result<(), LineError> {
        let [time, prompt, output, images] = self.columns.cells(line)?;
        let kind = match &self.kinds {
            Some(kinds) => Some(kinds[usize::from(tokens(images)? > 0)].clone()),
            None => None,
        };
        if let Some(record) = request(civil_nanos(time).and_then(since_epoch), prompt, output, out)? {
            out.keep(super::Record { kind, ..record });
        }
        Ok(())
    }

    fn counts_from_elsewhere(&self) -> bool {
        true
    }
}
