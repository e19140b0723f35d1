//! From a file to records.

use super::error::{LineError, TraceError};
use super::format::{DropReason, Format, Parsed, TimeUnit};
use super::record::Record;
use flate2::read::MultiGzDecoder;
use serde::Serialize;
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A trace that can be read, any number of times.
#[derive(Clone, Debug)]
pub struct Trace {
    source: Source,
    format: Format,
    time_unit: TimeUnit,
}

#[derive(Clone, Debug)]
enum Source {
    File(PathBuf),
    /// Part of the program; the name stands in for a path in messages.
    Bundled {
        name: PathBuf,
        bytes: &'static [u8],
    },
}

/// What was read and what was left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Records that came out.
    pub records: u64,
    /// Lines left out because the prompt was empty.
    pub dropped_no_prompt: u64,
    /// Lines left out because there was no output: the request failed.
    pub dropped_no_output: u64,
    /// Records whose number of block ids is not that of the blocks their prompt touches.
    pub miscounted_ids: u64,
}

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const LFS_MAGIC: &str = "version https://git-lfs.github.com/spec/";
/// A prompt of ten million 16-token blocks fits.
const LINE_MIB_MAX: usize = 128;

impl Trace {
    /// Opens a file, plain or gzipped, and finds out its format from its first line.
    pub fn open(path: impl AsRef<Path>) -> Result<Trace, TraceError> {
        let path = path.as_ref().to_owned();
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => Trace::detect(Source::File(path)),
            Ok(_) => Err(TraceError::NotAFile { path }),
            Err(source) => Err(TraceError::Io { path, source }),
        }
    }

    /// A trace that is part of the program.
    pub fn bundled(name: &str, bytes: &'static [u8]) -> Result<Trace, TraceError> {
        Trace::detect(Source::Bundled { name: PathBuf::from(name), bytes })
    }

    /// The same trace, its time counted in `unit` whatever the format says.
    pub fn with_time_unit(self, unit: TimeUnit) -> Trace {
        Trace { time_unit: unit, ..self }
    }

    /// How it is written.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The file, or the name of a bundled trace.
    pub fn path(&self) -> &Path {
        self.source.path()
    }

    /// Its records, from the start, in order of time.
    pub fn records(&self) -> Result<Records, TraceError> {
        Ok(Records {
            lines: Lines::open(&self.source)?,
            format: self.format,
            time_unit: self.time_unit,
            last: Duration::ZERO,
            tally: Tally::default(),
            failed: false,
        })
    }

    fn detect(source: Source) -> Result<Trace, TraceError> {
        let path = source.path().to_owned();
        let mut lines = Lines::open(&source)?;
        let Some(first) = lines.next()? else {
            return Err(TraceError::Empty { path });
        };
        if first.starts_with(LFS_MAGIC) {
            return Err(TraceError::LfsPointer { path });
        }
        let format = Format::detect(first).map_err(|found| TraceError::UnknownFormat { path, found })?;
        Ok(Trace { source, format, time_unit: format.time_unit() })
    }
}

impl Source {
    fn path(&self) -> &Path {
        match self {
            Source::File(path) => path,
            Source::Bundled { name, .. } => name,
        }
    }

    fn open(&self) -> std::io::Result<Box<dyn Read + Send>> {
        let mut raw: Box<dyn Read + Send> = match self {
            Source::File(path) => Box::new(File::open(path)?),
            Source::Bundled { bytes, .. } => Box::new(*bytes),
        };
        let mut magic = Vec::with_capacity(GZIP_MAGIC.len());
        raw.by_ref().take(GZIP_MAGIC.len() as u64).read_to_end(&mut magic)?;
        let gzipped = magic == GZIP_MAGIC;
        let whole = Cursor::new(magic).chain(raw);
        Ok(if gzipped { Box::new(MultiGzDecoder::new(whole)) } else { Box::new(whole) })
    }
}

/// A stream of records. After an error it ends.
pub struct Records {
    lines: Lines,
    format: Format,
    time_unit: TimeUnit,
    last: Duration,
    tally: Tally,
    failed: bool,
}

impl Records {
    /// What was read and left out so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    fn read(&mut self) -> Result<Option<Record>, TraceError> {
        loop {
            let Some(line) = self.lines.next()? else {
                return Ok(None);
            };
            match self.format.parse(line, self.time_unit) {
                Ok(Parsed::Dropped(DropReason::NoPrompt)) => self.tally.dropped_no_prompt += 1,
                Ok(Parsed::Dropped(DropReason::NoOutput)) => self.tally.dropped_no_output += 1,
                Ok(Parsed::Record { record, miscounted }) => {
                    if record.at < self.last {
                        let timestamp = format!("{} s", record.at.as_secs_f64());
                        let previous_seconds = self.last.as_secs_f64().to_string();
                        return Err(self.lines.error(LineError::Backwards { timestamp, previous_seconds }));
                    }
                    self.last = record.at;
                    self.tally.records += 1;
                    self.tally.miscounted_ids += u64::from(miscounted);
                    return Ok(Some(record));
                }
                Err(error) => return Err(self.lines.error(error)),
            }
        }
    }
}

impl Iterator for Records {
    type Item = Result<Record, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.read().transpose();
        self.failed = matches!(next, Some(Err(_)));
        next
    }
}

/// Lines of a file, blank ones left out.
struct Lines {
    path: PathBuf,
    reader: BufReader<Box<dyn Read + Send>>,
    line: String,
    number: u64,
}

impl Lines {
    fn open(source: &Source) -> Result<Lines, TraceError> {
        let path = source.path().to_owned();
        match source.open() {
            Ok(raw) => {
                Ok(Lines { path, reader: BufReader::with_capacity(1 << 16, raw), line: String::new(), number: 0 })
            }
            Err(source) => Err(TraceError::Io { path, source }),
        }
    }

    fn next(&mut self) -> Result<Option<&str>, TraceError> {
        loop {
            self.line.clear();
            self.number += 1;
            let limit = (LINE_MIB_MAX << 20) as u64;
            let read = match self.reader.by_ref().take(limit).read_line(&mut self.line) {
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                    return Err(self.error(LineError::Malformed { reason: "the line is not UTF-8 text".to_owned() }));
                }
                // A gzip stream that is cut off, above all.
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    return Err(self.error(LineError::Truncated));
                }
                Err(source) => return Err(TraceError::Io { path: self.path.clone(), source }),
            };
            if read == 0 {
                return Ok(None);
            }
            if read as u64 == limit {
                return Err(self.error(LineError::TooLong { limit_mib: LINE_MIB_MAX }));
            }
            if !self.line.trim().is_empty() {
                // Borrowed anew: a loop cannot return what it borrowed earlier in itself.
                return Ok(Some(self.line.trim()));
            }
        }
    }

    fn error(&self, error: LineError) -> TraceError {
        TraceError::Line { path: self.path.clone(), line: self.number, error }
    }
}
