//! From bytes to the pieces that each hold a record: lines, or the values of a JSON array.

use super::error::{LineError, TraceError};
use super::parquet::Rows;
use super::source::{Bytes, Part, Source, counted, decompressed};
use memchr::memchr;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// The longest line. The longest prompt that is taken has a million ids of 16-token blocks, and they fit.
const LINE_MIB_MAX: usize = 8;
/// The longest object that may stand over several lines, as Weka's do: a whole session.
const OBJECT_MIB_MAX: usize = 32;
const BOM: &[u8] = &[0xef, 0xbb, 0xbf];

/// What a piece is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// A line that is not blank.
    Lines,
    /// A JSON object, over as many lines as it likes, alone or in an array.
    Objects,
}

/// The pieces of a trace, one in memory at a time.
pub(super) struct Items {
    /// The trace, in messages.
    path: PathBuf,
    parts: Box<dyn Iterator<Item = (PathBuf, io::Result<Part>)> + Send>,
    reader: BufReader<Bytes>,
    /// Instead of a reader's bytes, where the part is a Parquet file.
    rows: Option<Box<Rows>>,
    framing: Framing,
    /// The item, unless it stands in the reader's buffer.
    item: Vec<u8>,
    /// How many bytes of the reader's buffer are the item; they are consumed when the next one is asked for.
    in_buffer: usize,
    /// Of the item, or where it begins. Counted from 1.
    line: u64,
    /// Line feeds in an item of several lines.
    lines_inside: u64,
    /// The item is to come again.
    again: bool,
    /// Bytes read, as they are stored, and how many there are, where that is counted.
    pub(super) bytes_read: Arc<AtomicU64>,
    pub(super) bytes_total: Option<u64>,
}

impl Items {
    pub(super) fn open(source: &Source) -> Result<Items, TraceError> {
        let framing = match source {
            Source::Folder { .. } => Framing::Objects,
            Source::File(_) | Source::Bundled { .. } => Framing::Lines,
        };
        let count = Arc::default();
        let mut items = Items::start(source.path().to_owned(), source.parts(&count), framing, count)?;
        // The library that reads Parquet does not say how far it is.
        items.bytes_total = if items.rows.is_some() { None } else { source.bytes() };
        Ok(items)
    }

    /// Pieces of a stream that can be read only once.
    pub(super) fn of_stream(name: &Path, stream: Bytes) -> Result<Items, TraceError> {
        let count = Arc::default();
        let part = (name.to_owned(), decompressed(counted(stream, &count)).map(Part::Bytes));
        Items::start(name.to_owned(), Box::new(std::iter::once(part)), Framing::Lines, count)
    }

    fn start(
        path: PathBuf,
        parts: Box<dyn Iterator<Item = (PathBuf, io::Result<Part>)> + Send>,
        framing: Framing,
        bytes_read: Arc<AtomicU64>,
    ) -> Result<Items, TraceError> {
        let reader = BufReader::new(Box::new(io::empty()) as Bytes);
        let mut items = Items {
            path,
            parts,
            reader,
            rows: None,
            framing,
            item: Vec::new(),
            in_buffer: 0,
            line: 0,
            lines_inside: 0,
            again: false,
            bytes_read,
            bytes_total: None,
        };
        items.next_part()?;
        let array = items.reader.fill_buf().map(|start| start.trim_ascii_start().first() == Some(&b'['));
        match array {
            Ok(true) => items.framing = Framing::Objects,
            Ok(false) => {}
            Err(error) => {
                items.line = 1;
                return Err(items.io_error(error));
            }
        }
        Ok(items)
    }

    /// Reads the item that came last again, and from there on whole JSON objects instead of lines.
    pub(super) fn as_objects(&mut self) {
        let rest = std::mem::replace(&mut self.reader, BufReader::new(Box::new(io::empty())));
        // What stands in the buffer still is there.
        let whole = Cursor::new(std::mem::take(&mut self.item)).chain(rest);
        self.in_buffer = 0;
        self.reader = BufReader::with_capacity(BUFFER_BYTES, Box::new(whole));
        (self.framing, self.line) = (Framing::Objects, self.line.saturating_sub(1));
    }

    /// Lets the item that came last come again.
    pub(super) fn put_back(&mut self) {
        self.again = true;
    }

    /// The file that is being read.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the item that came last begins with `magic`, even where it is no text.
    pub(super) fn starts_with(&self, magic: &[u8]) -> bool {
        self.bytes().starts_with(magic)
    }

    fn bytes(&self) -> &[u8] {
        if self.in_buffer > 0 { &self.reader.buffer()[..self.in_buffer] } else { &self.item }
    }

    pub(super) fn are_lines(&self) -> bool {
        self.framing == Framing::Lines
    }

    /// The next piece; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<&str>, TraceError> {
        if !std::mem::take(&mut self.again) && !self.advance()? {
            return Ok(None);
        }
        match std::str::from_utf8(self.bytes()) {
            // Trimmed here: the item is borrowed.
            Ok(text) => Ok(Some(text.trim())),
            Err(_) => Err(self.error(LineError::Malformed { reason: "the line is not UTF-8 text".to_owned() })),
        }
    }

    pub(super) fn error(&self, error: LineError) -> TraceError {
        TraceError::Line { path: self.path.clone(), line: self.line, error }
    }

    fn advance(&mut self) -> Result<bool, TraceError> {
        loop {
            let found = match self.framing {
                _ if self.rows.is_some() => self.read_row(),
                Framing::Lines => self.read_line(),
                Framing::Objects => self.read_object(),
            };
            match found {
                Ok(true) => return Ok(true),
                Ok(false) if self.next_part()? => {}
                Ok(false) => return Ok(false),
                Err(Stop::Item(error)) => return Err(self.error(error)),
                Err(Stop::Io(error)) => return Err(self.io_error(error)),
            }
        }
    }

    fn io_error(&self, error: io::Error) -> TraceError {
        match error.kind() {
            // A gzip stream that is cut off, above all.
            io::ErrorKind::UnexpectedEof => self.error(LineError::Truncated),
            io::ErrorKind::InvalidData if self.rows.is_some() => {
                self.error(LineError::Malformed { reason: error.to_string() })
            }
            // Nobody but a decompressor says so.
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                self.error(LineError::Malformed { reason: format!("the compressed data are damaged: {error}") })
            }
            _ => TraceError::Io { path: self.path.clone(), source: error },
        }
    }

    /// Goes on to the next file; false when there is none.
    fn next_part(&mut self) -> Result<bool, TraceError> {
        let Some((path, part)) = self.parts.next() else { return Ok(false) };
        let (bytes, rows) = match part {
            Ok(Part::Bytes(bytes)) => (bytes, None),
            Ok(Part::Rows(rows)) => (Box::new(io::empty()) as Bytes, Some(rows)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(TraceError::Parquet { path, reason: error.to_string() });
            }
            Err(source) => return Err(TraceError::Io { path, source }),
        };
        self.reader = BufReader::with_capacity(BUFFER_BYTES, bytes);
        self.rows = rows;
        (self.path, self.line, self.lines_inside) = (path, 0, 0);
        if let Ok(start) = self.reader.fill_buf()
            && start.starts_with(BOM)
        {
            self.reader.consume(BOM.len());
        }
        Ok(true)
    }

    /// The next row, as an object. Rows count as lines.
    fn read_row(&mut self) -> Result<bool, Stop> {
        self.line += 1;
        let Some(rows) = &mut self.rows else { return Ok(false) };
        let found = rows.next(&mut self.item)?;
        if self.item.len() > LINE_MIB_MAX << 20 {
            return Err(Stop::Item(LineError::TooLong { limit_mib: LINE_MIB_MAX }));
        }
        Ok(found)
    }

    /// The next line that is not blank. It is copied only where the buffer ends in it.
    fn read_line(&mut self) -> Result<bool, Stop> {
        self.reader.consume(std::mem::take(&mut self.in_buffer));
        self.item.clear();
        self.line += 1;
        loop {
            let buffer = self.reader.fill_buf()?;
            let Some(end) = memchr(b'\n', buffer) else {
                let read = buffer.len();
                if self.item.len() + read > LINE_MIB_MAX << 20 {
                    return Err(Stop::Item(LineError::TooLong { limit_mib: LINE_MIB_MAX }));
                }
                self.item.extend_from_slice(buffer);
                self.reader.consume(read);
                // The last line need not end.
                if read == 0 && !self.item.trim_ascii().is_empty() {
                    return Ok(true);
                } else if read == 0 {
                    return Ok(false);
                }
                continue;
            };
            let whole = end + 1;
            let blank = self.item.trim_ascii().is_empty() && buffer[..end].trim_ascii().is_empty();
            if self.item.is_empty() && !blank {
                self.in_buffer = whole;
                return Ok(true);
            }
            self.item.extend_from_slice(&buffer[..end]);
            self.reader.consume(whole);
            if !blank {
                return Ok(true);
            }
            self.item.clear();
            self.line += 1;
        }
    }

    /// The next `{…}`, whatever array it stands in.
    fn read_object(&mut self) -> Result<bool, Stop> {
        self.item.clear();
        self.line = (self.line + std::mem::take(&mut self.lines_inside)).max(1);
        let mut scan = Scan::default();
        loop {
            let buffer = self.reader.fill_buf()?;
            if buffer.is_empty() {
                return if self.item.is_empty() { Ok(false) } else { Err(Stop::Item(LineError::Truncated)) };
            }
            let mut used = 0;
            let mut outside = None;
            for &byte in buffer {
                used += 1;
                self.lines_inside += u64::from(byte == b'\n');
                if scan.depth == 0 && byte != b'{' {
                    match byte {
                        b'\n' => self.line += std::mem::take(&mut self.lines_inside),
                        b' ' | b'\t' | b'\r' | b',' | b'[' | b']' => {}
                        other => outside = Some(other),
                    }
                    if outside.is_some() {
                        break;
                    }
                    continue;
                }
                self.item.push(byte);
                if scan.closes(byte) {
                    self.reader.consume(used);
                    return Ok(true);
                }
            }
            self.reader.consume(used);
            if let Some(byte) = outside {
                let reason = format!("expected a JSON object, found `{}`", byte.escape_ascii());
                return Err(Stop::Item(LineError::Malformed { reason }));
            }
            if self.item.len() > OBJECT_MIB_MAX << 20 {
                return Err(Stop::Item(LineError::TooLong { limit_mib: OBJECT_MIB_MAX }));
            }
        }
    }
}

const BUFFER_BYTES: usize = 1 << 16;

enum Stop {
    Io(io::Error),
    Item(LineError),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Stop::Io(error)
    }
}

/// Where in a JSON object a scan stands.
#[derive(Default)]
struct Scan {
    depth: u32,
    in_string: bool,
    escaped: bool,
}

impl Scan {
    /// Takes one byte; true when it closes the outermost object.
    fn closes(&mut self, byte: u8) -> bool {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' => self.depth += 1,
            b'}' => self.depth -= 1,
            _ => {}
        }
        self.depth == 0
    }
}
