//! The formats that can be read, each in a file of its own.
//!
//! A format is known by its content: the names of its columns or of the fields of its first record, never by a file's
//! name. Its module says how, and gives a parser that turns one line, or one element of a JSON array, into records.

mod azure;
mod burstgpt;
mod chats;
mod csv;
mod dynamo;
mod dynamo_request;
mod fields;
mod gmi;
mod kavier;
mod llmservingsim;
mod lmsys;
mod marconi;
mod mooncake;
pub(super) mod native;
mod qwen_bailian;
mod ragpulse;
mod scan;
mod sharegpt;
mod time;
mod vidur;
mod weka;

use super::error::{LineError, TraceError};
use super::items::Items;
use super::parquet;
use super::provenance::Provenance;
use super::record::Record;
use super::tally::{DropReason, Tally};
use super::tokenize::Tokenizer;
use crate::routing::block::BlockSize;
use serde_json::{Map, Value};
use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;

pub use chats::ChatArrivals;
pub(super) use time::CENTURY;
pub use time::TimeUnit;

/// How a trace is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Warmpath's own.
    Native,
    /// Alibaba's anonymised Qwen serving traces.
    QwenBailian,
    /// The request traces of NVIDIA Dynamo.
    DynamoRequest,
    /// Rows for replay of NVIDIA Dynamo and AIPerf: Mooncake's, with more fields.
    Dynamo,
    /// The LMBench trace of GMI Cloud.
    Gmi,
    /// The RAGPulse trace.
    RagPulse,
    /// The Mooncake traces of Kimi.
    Mooncake,
    /// Marconi's traces, and the enriched edition of them.
    Marconi,
    /// What LLMServingSim reads.
    LlmServingSim,
    /// Claude Code sessions, as Weka's kv-cache-tester has them.
    Weka,
    /// LMSys-Chat-1M conversations.
    LmSys,
    /// ShareGPT conversations.
    ShareGpt,
    /// Kavier's input.
    Kavier,
    /// BurstGPT, all versions.
    BurstGpt,
    /// Microsoft Azure's LLM and LMM inference traces.
    Azure,
    /// What Vidur and Splitwise's simulators read.
    Vidur,
}

/// What tells a format from others, and how it is read.
struct Spec {
    name: &'static str,
    description: &'static str,
    shape: Shape,
    /// `None` where times carry their unit.
    time_unit: Option<TimeUnit>,
    /// Whether a record that is earlier than the one before means damage.
    sorted: bool,
    open: fn(&Opening<'_>) -> Result<Opened, LineError>,
}

/// How to know a format.
enum Shape {
    /// By the first object.
    Json(fn(&Map<String, Value>) -> bool),
    /// By columns in the heading.
    Csv(&'static [&'static str]),
    /// By columns in the heading, or, in Parquet, by the same fields.
    Columns(&'static [&'static str]),
}

/// What a parser is made from.
pub(super) struct Opening<'a> {
    /// The first record, or the heading.
    pub(super) first: &'a str,
    pub(super) unit: TimeUnit,
    /// What the user says.
    pub(super) block_size: Option<BlockSize>,
    /// For texts.
    pub(super) tokenizer: Option<&'a Tokenizer>,
    pub(super) arrivals: ChatArrivals,
}

/// A parser, and what is known once it is made.
pub(super) struct Opened {
    pub(super) parser: Box<dyn Parse>,
    pub(super) block_size: BlockSize,
    pub(super) provenance: Provenance,
    /// The first item was a heading, not a record.
    pub(super) header: bool,
}

/// From one line or element to any number of records.
pub(super) trait Parse: Send {
    fn parse(&mut self, item: &str, out: &mut Batch) -> Result<(), LineError>;

    /// Whether times count from elsewhere than the start of the trace, such as 1970. Then the earliest record begins it.
    fn counts_from_elsewhere(&self) -> bool {
        false
    }

    /// The trace is at its end.
    fn finish(&mut self, _out: &mut Batch) -> Result<(), LineError> {
        Ok(())
    }
}

/// What parsing gave and left out.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) records: VecDeque<Record>,
    pub(super) tally: Tally,
}

impl Batch {
    fn keep(&mut self, record: Record) {
        self.records.push_back(record);
    }

    fn drop(&mut self, reason: DropReason) {
        self.tally.drop(reason);
    }
}

impl Format {
    /// All formats; what fits two is the one that comes first.
    pub const ALL: [Format; 16] = [
        Format::Native,
        Format::QwenBailian,
        Format::DynamoRequest,
        Format::Gmi,
        Format::RagPulse,
        Format::Mooncake,
        Format::Marconi,
        Format::Dynamo,
        Format::LlmServingSim,
        Format::Weka,
        Format::LmSys,
        Format::ShareGpt,
        Format::Kavier,
        Format::BurstGpt,
        Format::Azure,
        Format::Vidur,
    ];

    const fn spec(self) -> &'static Spec {
        match self {
            Format::Native => &native::SPEC,
            Format::QwenBailian => &qwen_bailian::SPEC,
            Format::DynamoRequest => &dynamo_request::SPEC,
            Format::Dynamo => &dynamo::SPEC,
            Format::Gmi => &gmi::SPEC,
            Format::RagPulse => &ragpulse::SPEC,
            Format::Mooncake => &mooncake::SPEC,
            Format::Marconi => &marconi::SPEC,
            Format::LlmServingSim => &llmservingsim::SPEC,
            Format::Weka => &weka::SPEC,
            Format::LmSys => &lmsys::SPEC,
            Format::ShareGpt => &sharegpt::SPEC,
            Format::Kavier => &kavier::SPEC,
            Format::BurstGpt => &burstgpt::SPEC,
            Format::Azure => &azure::SPEC,
            Format::Vidur => &vidur::SPEC,
        }
    }

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        self.spec().name
    }

    /// What it is and how to know it.
    pub const fn description(self) -> &'static str {
        self.spec().description
    }

    /// What it counts time in; `None` where times carry their unit.
    pub const fn time_unit(self) -> Option<TimeUnit> {
        self.spec().time_unit
    }

    /// Whether a record that is earlier than the one before means that the file is damaged.
    pub(super) const fn is_sorted(self) -> bool {
        self.spec().sorted
    }

    /// Whether a line comes before the first that says how the trace is to be read, and is no request.
    pub(super) fn is_before_the_first_request(self, line: &str) -> bool {
        self == Format::DynamoRequest && dynamo_request::is_before_the_first_request(line)
    }

    pub(super) fn open(self, opening: &Opening<'_>) -> Result<Opened, LineError> {
        (self.spec().open)(opening)
    }

    /// The format whose first record or heading comes first in `items`, which is put back.
    pub(super) fn detect(items: &mut Items) -> Result<Format, TraceError> {
        let path = items.path().to_owned();
        let lines = items.are_lines();
        let first = match items.next() {
            Ok(Some(first)) => first,
            Ok(None) => return Err(TraceError::Empty { path }),
            Err(error) => {
                return Err(if items.starts_with(parquet::MAGIC) { streamed_parquet(path) } else { error });
            }
        };
        if first.starts_with(LFS_MAGIC) {
            return Err(TraceError::LfsPointer { path });
        }
        if first.as_bytes().starts_with(parquet::MAGIC) {
            return Err(streamed_parquet(path));
        }
        let found = match serde_json::from_str::<Value>(first) {
            Ok(Value::Object(fields)) => Format::of_object(&fields),
            Ok(_) => Err("is JSON, but not an object".to_owned()),
            Err(error) if error.is_eof() && first.starts_with('{') && lines => {
                items.as_objects();
                return Format::detect(items);
            }
            Err(_) if first.starts_with('{') => Err("is not JSON, though it begins like it".to_owned()),
            Err(_) => Format::of_heading(first),
        };
        items.put_back();
        found.map_err(|found| TraceError::UnknownFormat { path, found })
    }

    fn of_object(fields: &Map<String, Value>) -> Result<Format, String> {
        let fits = |format: &Format| match format.spec().shape {
            Shape::Json(fits) => fits(fields),
            Shape::Columns(columns) => columns.iter().all(|&name| fields.contains_key(name)),
            Shape::Csv(_) => false,
        };
        Format::ALL.into_iter().find(fits).ok_or_else(|| {
            let names: Vec<&str> = fields.keys().map(String::as_str).take(12).collect();
            format!("has the fields {}", names.join(", "))
        })
    }

    fn of_heading(line: &str) -> Result<Format, String> {
        let header = csv::Header::new(line);
        let fits = |format: &Format| match format.spec().shape {
            Shape::Csv(columns) | Shape::Columns(columns) => columns.iter().all(|name| header.index(name).is_some()),
            Shape::Json(_) => false,
        };
        Format::ALL.into_iter().find(fits).ok_or_else(|| nearest_to(&header))
    }
}

/// What a heading is that fits no format: where it has most of one's columns, which it lacks.
fn nearest_to(header: &csv::Header) -> String {
    let lacking = |format: Format| match format.spec().shape {
        Shape::Csv(columns) | Shape::Columns(columns) => {
            let lacks: Vec<&str> = columns.iter().copied().filter(|name| header.index(name).is_none()).collect();
            (2 * lacks.len() <= columns.len()).then(|| (format.name(), lacks.join(", ")))
        }
        Shape::Json(_) => None,
    };
    match Format::ALL.into_iter().filter_map(lacking).min_by_key(|(_, lacks)| lacks.len()) {
        Some((format, lacks)) => format!("is a heading like that of {format}, which has {lacks}, too"),
        None => "is neither JSON nor a heading with known columns".to_owned(),
    }
}

const LFS_MAGIC: &str = "version https://git-lfs.github.com/spec/";

fn streamed_parquet(path: PathBuf) -> TraceError {
    let reason = "a Parquet file is read from its end, so neither a stream nor a compressed file of it can be read";
    TraceError::Parquet { path, reason: reason.to_owned() }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A block size that is written in the program.
pub(super) const fn block_size(tokens: u32) -> BlockSize {
    match BlockSize::new(tokens) {
        Ok(size) => size,
        Err(_) => panic!("not a block size"),
    }
}
