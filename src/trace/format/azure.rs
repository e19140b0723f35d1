//! Azure: CSV, one request a line, a date and two lengths; nothing of what was asked.
//!
//! The 2023 traces have seven digits of a second and no zone, those of 2024 six or, on a whole second, none and `+00:00`,
//! the multimodal one of 2025 three and `Z`, and a column with the number of images, which becomes the kind. Source: the
//! repository Azure/AzurePublicDataset (CC BY 4.0); Patel et al., "Splitwise", ISCA 2024; Stojkovic et al., "DynamoLLM",
//! HPCA 2025; Qiu et al., "ModServe", SoCC 2025.

use super::csv::{Header, Row};
use super::fields::lengths;
use super::time::{Origin, civil_nanos};
use super::{Batch, DropReason, LineError, Opened, Opening, Parse, Provenance, Record, Shape, Spec, block_size};
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
    let header = Header::new(opening.first);
    let parser = Parser {
        time: header.require("TIMESTAMP")?,
        prompt: header.require("ContextTokens")?,
        output: header.require("GeneratedTokens")?,
        images: header.index("NumImages"),
        kinds: ["text", "image"].map(Kind::new),
        origin: Origin::default(),
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
    images: Option<usize>,
    kinds: [Kind; 2],
    origin: Origin,
    row: Row,
}

impl Parse for Parser {
    fn parse(&mut self, line: &str, out: &mut Batch) -> Result<(), LineError> {
        self.row.split(line)?;
        let lengths = lengths(self.row.tokens(line, self.prompt)?, self.row.tokens(line, self.output)?);
        let kind = match self.images {
            Some(images) => Some(self.kinds[usize::from(self.row.tokens(line, images)? > 0)].clone()),
            None => None,
        };
        let nanos = civil_nanos(self.row.cell(line, self.time)?);
        match (lengths, nanos.and_then(|nanos| self.origin.since_first(nanos))) {
            (Ok((prompt_tokens, output_tokens)), Some(at)) => {
                out.keep(Record { at, prompt_tokens, output_tokens, kind, ..Record::default() });
            }
            (Err(reason), _) => out.drop(reason),
            (Ok(_), None) => out.drop(DropReason::BadTime),
        }
        Ok(())
    }
}
