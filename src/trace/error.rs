//! Why a trace cannot be read.

use super::format::Format;
use super::provenance::Provenance;
use std::io;
use std::path::PathBuf;

/// Why a trace cannot be read, and where.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be opened or read.
    #[error("cannot read {path}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not a plain file.
    #[error("{path} is not a regular file, and may be read more than once; write it to a file first", path = path.display())]
    NotAFile {
        /// What was named.
        path: PathBuf,
    },
    /// A folder in which nothing is a trace's, judged by names.
    #[error("{path} is a folder without files in .json or .parquet; if there is a trace of other lines in it, name that file", path = path.display())]
    EmptyFolder {
        /// The folder.
        path: PathBuf,
    },
    /// A Git LFS pointer stands where the data should be.
    #[error("{path} is a Git LFS pointer, not the data; run `git lfs pull` in the repository that it came from", path = path.display())]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },
    /// Nothing in it.
    #[error("{path} is empty", path = path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The first line fits no known format.
    #[error(
        "{path} is in no format that can be read: its first line {found}; known formats are {}",
        Format::ALL.map(Format::name).join(", "),
        path = path.display()
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// What the first line is like.
        found: String,
    },
    /// A Parquet file that cannot be read.
    #[error("{path}: {reason}", path = path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// An overlay over prompts whose structure is known.
    #[error("{path} has a prefix structure of its own ({provenance}); no overlay can be laid over it", path = path.display())]
    HasStructure {
        /// The file.
        path: PathBuf,
        /// Where that comes from.
        provenance: Provenance,
    },
    /// A line cannot be a record.
    #[error("{path}: line {line}: {error}", path = path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong with it.
        error: LineError,
    },
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// It ends in the middle of a record.
    #[error("the record is cut off in the middle; the file is incomplete, fetch it again")]
    Truncated,
    /// It is longer than any record.
    #[error("the line is longer than {limit_mib} MiB; this is no trace with one record a line")]
    TooLong {
        /// The limit.
        limit_mib: usize,
    },
    /// It is not UTF-8, or not a record of this format.
    #[error("{reason}")]
    Malformed {
        /// What the parser says.
        reason: String,
    },
    /// Lengths and ids fit another block size.
    #[error(
        "{ids} block ids for {tokens} tokens make blocks of {looks_like} tokens, not of {block_size} as in {format}; \
         the file mixes formats or was converted wrongly"
    )]
    BlockSize {
        /// Ids in the line.
        ids: usize,
        /// Prompt tokens in the line.
        tokens: u32,
        /// The format's block size.
        block_size: u32,
        /// The block size that would fit.
        looks_like: u32,
        /// The format.
        format: &'static str,
    },
    /// It holds text.
    #[error(
        "{format} holds text, and lengths and blocks of text need a tokenizer: name the model's folder with --tokenizer"
    )]
    NeedsTokenizer {
        /// The format.
        format: &'static str,
    },
    /// The timestamp makes no sense in the format's unit.
    #[error("timestamp {timestamp} {why}; if the file counts {other}, pass --time-unit {other_flag}")]
    TimeUnit {
        /// As written in the line.
        timestamp: String,
        /// Why it makes no sense.
        why: &'static str,
        /// The unit that it would make sense in.
        other: &'static str,
        /// Its flag.
        other_flag: &'static str,
    },
    /// Earlier than the record before it.
    #[error(
        "timestamp {timestamp} is earlier than that of the record before ({previous_seconds} s); sort the trace by time"
    )]
    Backwards {
        /// As written in the line.
        timestamp: String,
        /// The previous record's time.
        previous_seconds: String,
    },
}
