//! Reading what a test writes down, and comparing it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::NamedTempFile;
use warmpath::trace::{Format, How, Message, Provenance, Record, Role, Tally, Tokenize, Tokenizer, Trace, TraceError};

pub struct Read {
    pub format: Format,
    pub block_tokens: u32,
    pub provenance: Provenance,
    pub records: Vec<Record>,
    pub tally: Tally,
}

pub fn read_trace(trace: &Trace) -> Result<Read, TraceError> {
    let mut records = trace.records()?;
    let read = records.by_ref().collect::<Result<Vec<_>, _>>()?;
    Ok(Read {
        format: trace.format(),
        block_tokens: trace.block_size().tokens(),
        provenance: trace.provenance().clone(),
        records: read,
        tally: records.tally(),
    })
}

pub fn file(content: impl AsRef<[u8]>) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(content.as_ref()).unwrap();
    file
}

pub fn read(content: impl AsRef<[u8]>) -> Result<Read, TraceError> {
    read_trace(&Trace::open(file(content).path())?)
}

pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// What is expected of some lines.
pub struct Expected {
    pub format: Format,
    pub block_tokens: u32,
    pub provenance: Provenance,
    /// Milliseconds, prompt, output, blocks, turn (0 where none is said).
    pub records: &'static [(u64, u32, u32, usize, u32)],
    pub tally: Tally,
}

#[track_caller]
pub fn check(read: Result<Read, TraceError>, expected: Expected) -> Vec<Record> {
    let read = read.unwrap();
    assert_eq!(read.format, expected.format);
    assert_eq!(read.block_tokens, expected.block_tokens);
    assert_eq!(read.provenance, expected.provenance);
    let seen: Vec<_> = read
        .records
        .iter()
        .map(|record| {
            let Record { prompt_tokens, output_tokens, ref blocks, turn, .. } = *record;
            (record.at.as_millis() as u64, prompt_tokens, output_tokens, blocks.len(), turn.unwrap_or(0))
        })
        .collect();
    assert_eq!(seen, expected.records);
    assert_eq!(read.tally, Tally { records: seen.len() as u64, ..expected.tally });
    read.records
}

/// A token a byte; a chat is each message between two tokens of its own, and one more for the answer.
struct Bytes;

pub const ASSISTANT: u32 = 1000;

impl Tokenize for Bytes {
    fn chat(&self, messages: &[Message]) -> Option<Vec<u32>> {
        let mut tokens = Vec::new();
        for Message { role, content } in messages {
            tokens.push(match role {
                Role::System => ASSISTANT + 2,
                Role::User => ASSISTANT + 1,
                Role::Assistant => ASSISTANT,
            });
            tokens.extend(content.bytes().map(u32::from));
        }
        tokens.push(ASSISTANT);
        Some(tokens)
    }

    fn text(&self, text: &str) -> Option<Vec<u32>> {
        Some(text.bytes().map(u32::from).collect())
    }
}

pub fn with_tokenizer() -> How {
    How { tokenizer: Some(Tokenizer(Arc::new(Bytes))), ..How::default() }
}
