//! What is in a trace: the characterisation of Wang et al., "KVCache Cache in the Wild", USENIX ATC 2025, for any trace.
//!
//! Everything comes from one pass over the records. It keeps a few numbers for each request and for each block that a
//! prompt touches, so its memory grows with the trace, unlike a reader's.

mod accesses;
mod arrivals;
mod caches;
mod continuations;
mod distribution;
mod html;
mod plot;
mod reuse;
mod text;

pub use arrivals::Arrivals;
pub use caches::Eviction;
pub use continuations::Continued;
use distribution::Counts;
pub use distribution::Distribution;
pub use reuse::{CacheSize, CurvePoint, Interval, Popularity, ReuseStats};

use super::error::TraceError;
use super::lineage::Lineage;
use super::provenance::Provenance;
use super::published::{Published, PublishedFile};
use super::reader::Records;
use super::record::{Kind, Record};
use super::tally::Tally;
use crate::routing::block::BlockSize;
use reuse::ReuseCollector;
use serde::Serialize;
use std::collections::HashMap;
use std::path::Path;

/// What is in a trace. Serialises to JSON with these field names; the same trace gives the same bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stats {
    /// The file, without its folder.
    pub file: String,
    /// How it is written.
    pub format: &'static str,
    /// Tokens a block.
    pub block_tokens: u32,
    /// Where the prefix structure, and with it every hit ratio, comes from.
    pub prefix: Provenance,
    /// Requests.
    pub requests: u64,
    /// What reading left out.
    pub tally: Tally,
    /// When they came.
    pub arrivals: Arrivals,
    /// Prompt lengths, in tokens.
    pub input_tokens: Distribution,
    /// Output lengths, in tokens.
    pub output_tokens: Distribution,
    /// Conversations; `None` where the trace knows none.
    pub sessions: Option<Sessions>,
    /// Requests of each kind, the most frequent first; empty where the trace knows none.
    pub kinds: Vec<KindStats>,
    /// What prompts share; `None` where nothing is shared by construction.
    pub reuse: Option<ReuseStats>,
    /// How it compares with the published file of the same name; `None` where there is none.
    pub published: Option<Published>,
}

/// What records do not say of themselves.
#[derive(Clone, Debug)]
pub struct About<'a> {
    /// Where they come from.
    pub file: &'a str,
    /// How they were written.
    pub format: &'static str,
    /// Tokens in each of their blocks.
    pub block_size: BlockSize,
    /// Where their prefix structure comes from.
    pub prefix: Provenance,
}

/// Conversations.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sessions {
    /// How many.
    pub sessions: u64,
    /// Of all requests, those that continue another.
    pub child_share: f64,
    /// Of all sessions, those of a single request.
    pub single_request_share: f64,
    /// Requests whose parent is not in the trace; they count as first turns.
    pub missing_parents: u64,
    /// Requests that are turn 1, 2, 3 to 5, 6 to 10, and later.
    pub turns: [u64; 5],
    /// Requests a session.
    pub requests_per_session: Distribution,
    /// From a request to the one that continues it, in seconds.
    pub gap_seconds: Distribution,
}

/// The requests of one kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KindStats {
    /// What the trace calls them.
    pub kind: String,
    /// How many.
    pub requests: u64,
    /// Of their blocks, those seen before, from the start of the prompt; `None` where nothing is shared by construction.
    pub hit_ratio: Option<f64>,
}

impl Stats {
    /// Reads `records` to the end. `progress` is told of every request.
    pub fn of(file: &str, records: &mut Records, progress: &mut dyn FnMut(u64)) -> Result<Stats, TraceError> {
        let about = About {
            file,
            format: records.format().name(),
            block_size: records.block_size(),
            prefix: records.provenance().clone(),
        };
        records.leave_out_unshared_blocks();
        let stats = Stats::of_any(about, records.by_ref(), progress)?;
        Ok(Stats { tally: records.tally(), ..stats })
    }

    /// The same of a file that is called like a published one, compared with what is published of that.
    pub fn of_published(
        path: &Path,
        published: &PublishedFile,
        records: &mut Records,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Stats, TraceError> {
        let about = About {
            file: &path.file_name().unwrap_or_default().to_string_lossy(),
            format: records.format().name(),
            block_size: records.block_size(),
            prefix: records.provenance().clone(),
        };
        let sizes: Vec<u64> = published.curve.iter().map(|&(blocks, ..)| blocks).collect();
        let stats = Stats::of_sized(about, records.by_ref(), &sizes, progress)?;
        let mut stats = Stats { tally: records.tally(), ..stats };
        stats.published = Some(Published::compare(published, path, &stats)?);
        Ok(stats)
    }

    /// The same of records from anywhere, with nothing left out.
    pub fn of_any(
        about: About<'_>,
        all: impl Iterator<Item = Result<Record, TraceError>>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Stats, TraceError> {
        Stats::of_sized(about, all, &[], progress)
    }

    /// With hit ratios of the second half for caches of `sizes` blocks.
    fn of_sized(
        about: About<'_>,
        all: impl Iterator<Item = Result<Record, TraceError>>,
        sizes: &[u64],
        progress: &mut dyn FnMut(u64),
    ) -> Result<Stats, TraceError> {
        let shares = !about.prefix.is_none();
        let mut collector = Collector::new(shares.then(|| ReuseCollector::new(about.block_size)));
        for record in all {
            collector.add(&record?);
            progress(1);
        }
        let Collector { arrivals, input, output, lineage, session_sizes, gaps, turns, kinds, reuse } = collector;
        let requests = input.len();
        let sessions = lineage.said.then(|| {
            let sizes: Vec<f64> = session_sizes.iter().map(|&size| f64::from(size)).collect();
            let single = session_sizes.iter().filter(|&&size| size == 1).count();
            Sessions {
                sessions: session_sizes.len() as u64,
                child_share: gaps.len() as f64 / requests.max(1) as f64,
                single_request_share: single as f64 / session_sizes.len().max(1) as f64,
                missing_parents: lineage.missing_parents,
                turns,
                requests_per_session: Distribution::of(sizes),
                gap_seconds: Distribution::of(gaps),
            }
        });
        let mut kinds: Vec<KindStats> = kinds
            .counts
            .into_iter()
            .map(|(kind, [requests, hits, blocks])| {
                let hit_ratio = shares.then(|| hits as f64 / blocks.max(1) as f64);
                KindStats { kind: kind.name().to_owned(), requests, hit_ratio }
            })
            .collect();
        kinds.sort_by(|a, b| b.requests.cmp(&a.requests).then_with(|| a.kind.cmp(&b.kind)));
        Ok(Stats {
            file: about.file.to_owned(),
            format: about.format,
            block_tokens: about.block_size.tokens(),
            prefix: about.prefix,
            requests,
            tally: Tally { records: requests, ..Tally::default() },
            arrivals: arrivals.finish(),
            input_tokens: input.distribution(),
            output_tokens: output.distribution(),
            sessions,
            kinds,
            reuse: reuse.map(|reuse| reuse.finish(&session_sizes, sizes)),
            published: None,
        })
    }
}

/// What is kept of each request.
struct Collector {
    arrivals: arrivals::Collector,
    input: Counts,
    output: Counts,
    lineage: Lineage,
    session_sizes: Vec<u32>,
    gaps: Vec<f64>,
    turns: [u64; 5],
    kinds: KindCounts,
    reuse: Option<ReuseCollector>,
}

impl Collector {
    fn new(reuse: Option<ReuseCollector>) -> Self {
        Collector {
            arrivals: arrivals::Collector::default(),
            input: Counts::default(),
            output: Counts::default(),
            lineage: Lineage::default(),
            session_sizes: Vec::new(),
            gaps: Vec::new(),
            turns: [0; 5],
            kinds: KindCounts::default(),
            reuse,
        }
    }

    fn add(&mut self, record: &Record) {
        self.arrivals.add(record.at);
        self.input.add(record.prompt_tokens);
        self.output.add(record.output_tokens);
        let place = self.lineage.place(record);
        self.session_sizes.resize(self.lineage.sessions(), 0);
        self.session_sizes[place.session as usize] += 1;
        self.gaps.extend(place.parent_at.map(|parent_at| (place.at - parent_at).as_secs_f64()));
        self.turns[match place.turn {
            0..=1 => 0,
            2 => 1,
            3..=5 => 2,
            6..=10 => 3,
            11.. => 4,
        }] += 1;
        let (hits, blocks) = self.reuse.as_mut().map_or((0, 0), |reuse| reuse.add(record, &place));
        if let Some(kind) = &record.kind {
            self.kinds.add(kind, hits, blocks);
        }
    }
}

/// Requests, hit blocks and blocks of each kind.
#[derive(Default)]
struct KindCounts {
    counts: Vec<(Kind, [u64; 3])>,
    places: HashMap<Kind, usize>,
    /// The place of the one that came last: mostly the next one, too.
    last: usize,
}

impl KindCounts {
    fn add(&mut self, kind: &Kind, hits: u64, blocks: u64) {
        if self.counts.get(self.last).is_none_or(|(last, _)| !last.is(kind)) {
            self.last = *self.places.entry(kind.clone()).or_insert(self.counts.len());
            if self.last == self.counts.len() {
                self.counts.push((kind.clone(), [0; 3]));
            }
        }
        let [requests, kind_hits, kind_blocks] = &mut self.counts[self.last].1;
        *requests += 1;
        *kind_hits += hits;
        *kind_blocks += blocks;
    }
}
