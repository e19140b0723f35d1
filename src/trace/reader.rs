//! From a file to records.

use super::error::{LineError, TraceError};
use super::format::{Batch, CENTURY, ChatArrivals, Format, Opening, Parse, TimeUnit};
use super::items::Items;
use super::order::Order;
use super::overlay::{Overlaid, Overlay};
use super::provenance::Provenance;
use super::record::Record;
use super::source::{Bytes, Source};
use super::tally::{DropReason, Tally};
use super::tokenize::Tokenizer;
use super::writer::read_sidecar;
use crate::routing::block::BlockSize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A trace that can be read, any number of times.
#[derive(Clone, Debug)]
pub struct Trace {
    source: Source,
    how: How,
    format: Format,
    block_size: BlockSize,
    provenance: Provenance,
}

/// How a trace is to be read, where not as its format says.
#[derive(Clone, Debug, Default)]
pub struct How {
    /// What it counts time in.
    pub time_unit: Option<TimeUnit>,
    /// Tokens a block, for formats that do not say.
    pub block_size: Option<BlockSize>,
    /// The prefix structure of a trace that has none.
    pub overlay: Overlay,
    /// What makes texts tokens; traces of texts cannot be read without.
    pub tokenizer: Option<Tokenizer>,
    /// When conversations of a trace without times begin.
    pub arrivals: ChatArrivals,
}

impl Trace {
    /// Opens a file, plain, gzipped or compressed with Zstandard, or a folder of JSON files, and finds out its format
    /// from its content.
    pub fn open(path: impl AsRef<Path>) -> Result<Trace, TraceError> {
        Trace::open_as(path, How::default())
    }

    /// Opens it, to be read as `how` says.
    pub fn open_as(path: impl AsRef<Path>, how: How) -> Result<Trace, TraceError> {
        Trace::of(Source::of(path.as_ref())?, how)
    }

    /// A trace that is part of the program.
    pub fn bundled(name: &str, bytes: &'static [u8]) -> Result<Trace, TraceError> {
        Trace::of(Source::Bundled { name: PathBuf::from(name), bytes }, How::default())
    }

    fn of(source: Source, how: How) -> Result<Trace, TraceError> {
        let mut records = Records::open(Items::open(&source)?, &how)?;
        if let Source::File(path) = &source
            && let Some(provenance) = read_sidecar(path)?
        {
            records.provenance = provenance;
        }
        let Records { format, block_size, ref provenance, .. } = records;
        Ok(Trace { source, how, format, block_size, provenance: provenance.clone() })
    }

    /// The same trace, its time counted in `unit` whatever the format says.
    pub fn with_time_unit(mut self, unit: TimeUnit) -> Trace {
        self.how.time_unit = Some(unit);
        self
    }

    /// How it is written.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Tokens in each block of its records.
    pub fn block_size(&self) -> BlockSize {
        self.block_size
    }

    /// Where its prefix structure comes from.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// The file, or the name of a bundled trace.
    pub fn path(&self) -> &Path {
        self.source.path()
    }

    /// Its records, from the start, in order of time.
    pub fn records(&self) -> Result<Records, TraceError> {
        let records = Records::open(Items::open(&self.source)?, &self.how)?;
        Ok(Records { provenance: self.provenance.clone(), ..records })
    }
}

/// A stream of records, in order of time. After an error it ends.
pub struct Records {
    items: Items,
    parser: Box<dyn Parse>,
    batch: Batch,
    order: Option<Order>,
    overlaid: Overlaid,
    format: Format,
    block_size: BlockSize,
    provenance: Provenance,
    /// When the first record came, where times count from elsewhere.
    origin: Option<Duration>,
    last: Duration,
    records: u64,
    ended: bool,
}

impl Records {
    /// The records of a stream that can be read only once, such as a pipe; `name` stands for it in messages.
    pub fn of_stream(name: &Path, stream: Bytes, how: &How) -> Result<Records, TraceError> {
        Records::open(Items::of_stream(name, stream)?, how)
    }

    /// How they are written.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Tokens in each of their blocks.
    pub fn block_size(&self) -> BlockSize {
        self.block_size
    }

    /// Where their prefix structure comes from.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// For readers that do not look at blocks which nothing shares: they are not made.
    pub(super) fn leave_out_unshared_blocks(&mut self) {
        self.overlaid.leave_out_unshared();
    }

    /// How many bytes there are to read, as they are stored; `None` where that is not counted: of a stream, or of Parquet.
    pub fn bytes_total(&self) -> Option<u64> {
        self.items.bytes_total
    }

    /// Tells, whenever asked, how many bytes have been read.
    pub fn bytes_read(&self) -> impl Fn() -> u64 + use<> {
        let read = Arc::clone(&self.items.bytes_read);
        move || read.load(Ordering::Relaxed)
    }

    /// What was read and left out so far.
    pub fn tally(&self) -> Tally {
        Tally { records: self.records, ..self.batch.tally }
    }

    fn open(mut items: Items, how: &How) -> Result<Records, TraceError> {
        let format = Format::detect(&mut items)?;
        let Some(mut first) = items.next()?.map(str::to_owned) else {
            unreachable!("the format was detected in the first item, which was put back");
        };
        let mut is_more = true;
        while is_more && format.is_before_the_first_request(&first) {
            match items.next()? {
                Some(next) => next.clone_into(&mut first),
                None => is_more = false,
            }
        }
        let opening = Opening {
            first: &first,
            unit: how.time_unit.or(format.time_unit()).unwrap_or(TimeUnit::Seconds),
            block_size: how.block_size,
            tokenizer: how.tokenizer.as_ref(),
            arrivals: how.arrivals,
        };
        let opened = match format.open(&opening) {
            Ok(opened) => opened,
            Err(error) => return Err(items.error(error)),
        };
        if is_more && !opened.header {
            items.put_back();
        }
        let found = opened.provenance.clone();
        let Some((overlaid, provenance)) = how.overlay.over(opened.provenance, opened.block_size) else {
            return Err(TraceError::HasStructure { path: items.path().to_owned(), provenance: found });
        };
        Ok(Records {
            items,
            parser: opened.parser,
            batch: Batch::default(),
            order: (!format.is_sorted()).then(Order::default),
            overlaid,
            format,
            block_size: opened.block_size,
            provenance,
            origin: None,
            last: Duration::ZERO,
            records: 0,
            ended: false,
        })
    }

    fn read(&mut self) -> Result<Option<Record>, TraceError> {
        loop {
            let ready = match &mut self.order {
                Some(order) => {
                    while let Some(record) = self.batch.records.pop_front() {
                        order.push(record, &mut self.batch.tally);
                    }
                    order.pop(self.ended)
                }
                None => self.batch.records.pop_front(),
            };
            if let Some(mut record) = ready {
                if self.parser.counts_from_elsewhere() {
                    record.at = record.at.saturating_sub(*self.origin.get_or_insert(record.at));
                    if record.at >= CENTURY {
                        self.batch.tally.drop(DropReason::BadTime);
                        continue;
                    }
                }
                return self.check_order(record).map(Some);
            }
            if self.ended {
                return Ok(None);
            }
            match self.items.next()? {
                Some(item) => {
                    let parsed = self.parser.parse(item, &mut self.batch);
                    parsed.map_err(|error| self.items.error(error))?;
                }
                None => {
                    self.ended = true;
                    self.parser.finish(&mut self.batch).map_err(|error| self.items.error(error))?;
                }
            }
        }
    }

    fn check_order(&mut self, mut record: Record) -> Result<Record, TraceError> {
        if record.at < self.last {
            let timestamp = format!("{} s", record.at.as_secs_f64());
            let previous_seconds = self.last.as_secs_f64().to_string();
            return Err(self.items.error(LineError::Backwards { timestamp, previous_seconds }));
        }
        self.last = record.at;
        self.records += 1;
        self.overlaid.lay(&mut record);
        Ok(record)
    }
}

impl Iterator for Records {
    type Item = Result<Record, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.read().transpose();
        if matches!(next, Some(Err(_))) {
            // Nothing more comes, neither read nor held back.
            (self.ended, self.order) = (true, None);
            self.batch.records.clear();
        }
        next
    }
}
