//! From records to a file in one of the forms that others read, too.

use super::error::TraceError;
use super::format::native;
use super::lineage::Lineage;
use super::provenance::Provenance;
use super::record::Record;
use crate::routing::block::{BlockHash, BlockSize, ContentHash, Namespace};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A form to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Warmpath's own: loses nothing.
    Native,
    /// Qwen-Bailian: seconds to the millisecond, 16-token blocks, parents.
    QwenBailian,
    /// Mooncake: whole milliseconds, 512-token blocks, no conversations.
    Mooncake,
}

/// Not a form that can be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot write {name:?}; known forms are {}", Target::ALL.map(Target::name).join(", "))]
pub struct UnknownTarget {
    /// What was asked for.
    pub name: String,
}

/// Writes records, one whole line at a time.
///
/// Qwen-Bailian and Mooncake number blocks and requests by first appearance, so what was written so far is remembered.
/// Blocks of another size are converted: from small to large, a large one is known by all its small ones and all before
/// them; from large to small, each small one by its large one and its place in it. Blocks that a record lacks, as Weka's
/// lack the partial last one, become new ones.
pub struct Writer<W> {
    out: W,
    target: Target,
    from: BlockSize,
    lineage: Lineage,
    numbers: HashMap<u64, u64>,
    /// The next number of a block.
    next: u64,
    line: String,
}

impl Target {
    /// All forms.
    pub const ALL: [Target; 3] = [Target::Native, Target::QwenBailian, Target::Mooncake];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Target::Native => "native",
            Target::QwenBailian => "qwen-bailian",
            Target::Mooncake => "mooncake",
        }
    }

    /// Whether a file of it says where its prefix structure comes from.
    pub const fn says_provenance(self) -> bool {
        match self {
            Target::Native => true,
            Target::QwenBailian | Target::Mooncake => false,
        }
    }
}

impl FromStr for Target {
    type Err = UnknownTarget;

    fn from_str(name: &str) -> Result<Self, UnknownTarget> {
        let found = Target::ALL.into_iter().find(|target| target.name() == name);
        found.ok_or_else(|| UnknownTarget { name: name.to_owned() })
    }
}

impl<W: Write> Writer<W> {
    /// Writes records of `from` blocks and of `provenance` to `out`, which should be buffered.
    pub fn new(mut out: W, target: Target, from: BlockSize, provenance: &Provenance) -> io::Result<Self> {
        if target == Target::Native {
            let heading = native::Heading::new(from, provenance.clone());
            out.write_all((serde_json::to_string(&heading)? + "\n").as_bytes())?;
        }
        let (lineage, numbers) = (Lineage::default(), HashMap::new());
        Ok(Writer { out, target, from, lineage, numbers, next: 0, line: String::new() })
    }

    /// Writes one record.
    pub fn write(&mut self, record: &Record) -> io::Result<()> {
        self.line.clear();
        match self.target {
            Target::Native => self.line = serde_json::to_string(&native::Line::new(record))?,
            Target::QwenBailian => self.qwen_bailian(record),
            Target::Mooncake => self.mooncake(record),
        }
        self.line.push('\n');
        self.out.write_all(self.line.as_bytes())
    }

    /// Distinct blocks numbered so far.
    pub fn distinct_blocks(&self) -> usize {
        self.numbers.len()
    }

    /// What is written to.
    pub fn get_ref(&self) -> &W {
        &self.out
    }

    /// Flushes and gives back what was written to.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }

    fn qwen_bailian(&mut self, record: &Record) {
        let place = self.lineage.place(record);
        let parent = place.parent.map_or(-1, |parent| parent as i64);
        let kind = record.kind.as_ref().map_or("unknown", |kind| kind.name());
        let kind = serde_json::to_string(kind).expect("a text is JSON");
        let millis = record.at.as_millis();
        let (seconds, millis) = (millis / 1000, format!("{:03}", millis % 1000));
        let fraction = millis.trim_end_matches('0');
        let fraction = if fraction.is_empty() { "0" } else { fraction };
        let Record { prompt_tokens, output_tokens, .. } = record;
        let _ = write!(
            self.line,
            "{{\"chat_id\":{},\"parent_chat_id\":{parent},\"timestamp\":{seconds}.{fraction},\
             \"input_length\":{prompt_tokens},\"output_length\":{output_tokens},\"type\":{kind},\"turn\":{},",
            place.chat, place.turn
        );
        self.hash_ids(record, QWEN_BLOCK);
    }

    fn mooncake(&mut self, record: &Record) {
        let Record { prompt_tokens, output_tokens, .. } = record;
        let millis = record.at.as_millis();
        let _ = write!(
            self.line,
            "{{\"timestamp\": {millis}, \"input_length\": {prompt_tokens}, \"output_length\": {output_tokens}, "
        );
        self.hash_ids(record, MOONCAKE_BLOCK);
    }

    fn hash_ids(&mut self, record: &Record, to: BlockSize) {
        self.line += "\"hash_ids\":[";
        let blocks = converted(&record.blocks, record.prompt_tokens, self.from, to);
        for (index, block) in blocks.into_iter().enumerate() {
            let number = match block {
                Some(content) => *self.numbers.entry(content.0).or_insert(self.next),
                None => self.next,
            };
            self.next += u64::from(number == self.next);
            let _ = write!(self.line, "{}{number}", if index == 0 { "" } else { "," });
        }
        self.line += "]}";
    }
}

const QWEN_BLOCK: BlockSize = BlockSize::DEFAULT;
const MOONCAKE_BLOCK: BlockSize = super::format::block_size(512);

/// The blocks of a prompt in another size, as many as it touches; `None` for each that is not known.
fn converted(blocks: &[ContentHash], tokens: u32, from: BlockSize, to: BlockSize) -> Vec<Option<ContentHash>> {
    let count = to.touched_blocks(tokens) as usize;
    let mut converted: Vec<Option<ContentHash>> = if from == to {
        blocks.iter().copied().map(Some).take(count).collect()
    } else if from < to {
        let per_block = (to.tokens() / from.tokens()) as usize;
        let complete = blocks.len() >= from.touched_blocks(tokens) as usize;
        let mut hash = BlockHash::root(&Namespace::default(), to, 0);
        let hashed = blocks.chunks(per_block).take(count).map(|chunk| {
            hash = chunk.iter().fold(hash, |hash, &content| hash.child(content));
            (complete || chunk.len() == per_block).then_some(ContentHash(hash.0))
        });
        hashed.collect()
    } else {
        let per_block = (from.tokens() / to.tokens()) as usize;
        let part = |place: usize| {
            let whole = BlockHash(blocks.get(place / per_block)?.0);
            Some(ContentHash(whole.child(ContentHash((place % per_block) as u64)).0))
        };
        (0..count).map(part).collect()
    };
    converted.resize(count, None);
    converted
}

/// The file beside a trace that says where its prefix structure comes from, for forms that have no place for it.
pub fn sidecar(trace: &Path) -> PathBuf {
    let mut name = trace.as_os_str().to_owned();
    name.push(".provenance.json");
    PathBuf::from(name)
}

/// What the file beside a trace says; `None` when there is none.
pub(super) fn read_sidecar(trace: &Path) -> Result<Option<Provenance>, TraceError> {
    #[derive(serde::Deserialize)]
    struct Sidecar {
        prefix: Provenance,
    }
    let path = sidecar(trace);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(TraceError::Io { path, source }),
    };
    match serde_json::from_str::<Sidecar>(&text) {
        Ok(sidecar) => Ok(Some(sidecar.prefix)),
        Err(error) => Err(TraceError::Io { path, source: io::Error::new(io::ErrorKind::InvalidData, error) }),
    }
}
