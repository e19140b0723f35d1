//! Remembers: recorded requests, read from the formats in which people publish them.
//!
//! A [`Trace`] is a file whose format was found out from its content; [`Trace::records`] streams it, as often as asked,
//! in memory bounded by its longest line. Whatever the format, what comes out is a [`Record`]: when, how long, and which
//! blocks. A block id alone is not an identity: the Qwen-Bailian ids of traces A and B name a block's content only, and
//! the same id occurs after different predecessors. Whoever looks a block up chains it to its parent.
//!
//! Drops are counted by reason in a [`Tally`], never silent; what cannot be a record at all is a [`TraceError`] that names
//! the line.

mod anonymize;
mod error;
mod format;
mod ideal;
mod items;
mod lineage;
mod order;
mod overlay;
mod parquet;
pub mod prompt;
mod provenance;
mod published;
mod reader;
mod record;
mod recorder;
mod source;
mod spread;
pub mod stats;
mod synthetic;
mod tally;
mod tokenize;
mod transform;
mod writer;

pub use anonymize::{Anonymizer, Salt};
pub use error::{LineError, TraceError};
pub use format::{ChatArrivals, Format, TimeUnit};
pub use ideal::{InfiniteCache, Reuse};
pub use overlay::Overlay;
pub use provenance::Provenance;
pub use published::{Published, PublishedFile};
pub use reader::{How, Records, Trace};
pub use record::{Kind, Record};
pub use recorder::{Arrival, Recorded, Recorder, RecorderConfig};
pub use spread::SpreadTies;
pub use synthetic::{Figure, Imitated, Synthetic, SyntheticPreset, UnknownPreset};
pub use tally::Tally;
pub use tokenize::{Message, Role, Tokenize, Tokenizer};
pub use transform::{Merge, MergeError, Slice, scaled};
pub use writer::{Target, UnknownTarget, Writer, sidecar};
