//! Prefix structure for traces that have none.
//!
//! An overlay is a hypothesis, and [`Provenance`] says so wherever a hit ratio is printed. Lengths and times stay as they
//! were recorded; which blocks are shared, and for [`Overlay::Sessions`] which request continues which, is added.

use super::provenance::Provenance;
use super::record::Record;
use crate::routing::block::{BlockSize, ContentHash};
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, LogNormal, Zipf};
use rand_pcg::Pcg64;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// Prefix structure for a trace that has none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Overlay {
    /// Every prompt is unlike every other: a lower bound.
    #[default]
    None,
    /// What recorded conversations imply: a request that is at least as long as the one before it in its session and nine
    /// tenths of the answer to that continues it. Needs sessions, as in BurstGPT 3.
    Inferred,
    /// Most prompts begin with one of many application prompts, as the API requests of Qwen-Bailian B.
    Apps {
        /// Seeds chance.
        seed: u64,
    },
    /// Requests continue earlier ones that are short enough, as many and as soon as the conversations of BurstGPT 3.
    Sessions {
        /// Seeds chance.
        seed: u64,
    },
    /// As much is shared as makes the ideal block hit ratio `ratio`.
    Target {
        /// 0 to below 1.
        ratio: f64,
        /// Seeds chance.
        seed: u64,
    },
}

impl Overlay {
    /// What lays this over records whose structure is of `provenance`, and of what it is then. `None` when they have a
    /// structure of their own, over which nothing can be laid.
    pub(super) fn over(self, provenance: Provenance, block_size: BlockSize) -> Option<(Overlaid, Provenance)> {
        if !provenance.is_none() {
            return (self == Overlay::None).then(|| (Overlaid::untouched(block_size), provenance));
        }
        let named = |name: String, seed| Provenance::Overlay { name, seed };
        let (shape, seed, provenance) = match self {
            Overlay::None => (Shape::None, 0, provenance),
            Overlay::Inferred => (Shape::Inferred(HashMap::new()), 0, Provenance::Inferred),
            Overlay::Apps { seed } => (Shape::Apps(Apps::new(seed)), seed, named("apps".to_owned(), seed)),
            Overlay::Sessions { seed } => (Shape::Sessions(VecDeque::new()), seed, named("sessions".to_owned(), seed)),
            Overlay::Target { ratio, seed } => {
                (Shape::Target(Box::new(Target::new(ratio))), seed, named(format!("target {ratio}"), seed))
            }
        };
        Some((Overlaid { shape, block_size, chance: Pcg64::seed_from_u64(seed), fresh: 0 }, provenance))
    }
}

/// Lays an overlay over records, one after another, in bounded memory.
pub(super) struct Overlaid {
    shape: Shape,
    block_size: BlockSize,
    chance: Pcg64,
    /// Blocks made so far.
    fresh: u64,
}

enum Shape {
    Untouched,
    None,
    Inferred(HashMap<u64, Record>),
    Apps(Apps),
    /// Requests that may be continued, oldest first.
    Sessions(VecDeque<Open>),
    Target(Box<Target>),
}

/// A request that a later one may continue.
struct Open {
    record: Record,
    turns_max: u32,
}

impl Overlaid {
    /// Conversations remembered; older ones start anew.
    const OPEN_MAX: usize = 4096;
    /// A shared block's id is its head's number here and its place in it below; fresh ids are counted from zero.
    const HEAD_SHIFT: u32 = 40;

    fn untouched(block_size: BlockSize) -> Self {
        Overlaid { shape: Shape::Untouched, block_size, chance: Pcg64::seed_from_u64(0), fresh: 0 }
    }

    /// Where every prompt is unlike every other, gives none any blocks from now on.
    pub(super) fn leave_out_unshared(&mut self) {
        if matches!(self.shape, Shape::None) {
            self.shape = Shape::Untouched;
        }
    }

    /// Gives `record` its blocks.
    pub(super) fn lay(&mut self, record: &mut Record) {
        let count = self.block_size.touched_blocks(record.prompt_tokens) as usize;
        let mut blocks = match &mut self.shape {
            Shape::Untouched => return,
            Shape::None => Vec::new(),
            Shape::Inferred(sessions) => inferred(sessions, record, self.block_size),
            Shape::Apps(apps) => apps.draw(record, self.block_size, &mut self.chance),
            Shape::Sessions(open) => continued(open, record, self.block_size, &mut self.chance, self.fresh),
            Shape::Target(target) => target.draw(count, &mut self.chance),
        };
        blocks.truncate(count);
        let fresh = self.fresh + (count - blocks.len()) as u64;
        blocks.extend((self.fresh..fresh).map(ContentHash));
        self.fresh = fresh;
        record.blocks = blocks;
        match &mut self.shape {
            Shape::Untouched | Shape::None | Shape::Apps(_) | Shape::Target(_) => {}
            Shape::Inferred(sessions) => {
                if let Some(session) = record.session {
                    if sessions.len() >= Self::OPEN_MAX {
                        sessions.clear();
                    }
                    sessions.insert(session, record.clone());
                }
            }
            Shape::Sessions(open) => {
                if open.len() >= Self::OPEN_MAX {
                    open.pop_front();
                }
                let turns_max = turns(&mut self.chance);
                open.push_back(Open { record: record.clone(), turns_max });
            }
        }
    }
}

fn head_block(head: usize, place: usize) -> ContentHash {
    ContentHash(((head as u64 + 1) << Overlaid::HEAD_SHIFT) + place as u64)
}

/// The blocks that a prompt keeps of the one that it continues: all that were full.
fn kept(parent: &Record, block_size: BlockSize) -> Vec<ContentHash> {
    parent.full_blocks(block_size).to_vec()
}

/// Whether a prompt is long enough to hold `parent` and `part` of its answer.
fn holds(record: &Record, parent: &Record, part: f64) -> bool {
    f64::from(record.prompt_tokens) >= f64::from(parent.prompt_tokens) + part * f64::from(parent.output_tokens)
}

fn inferred(sessions: &HashMap<u64, Record>, record: &Record, block_size: BlockSize) -> Vec<ContentHash> {
    let parent = record.session.and_then(|session| sessions.get(&session));
    parent.filter(|parent| holds(record, parent, 0.9)).map_or(Vec::new(), |parent| kept(parent, block_size))
}

/// How often BurstGPT 3's conversations have 1, 2, … 10 turns; the rest has more (measured on `BurstGPT_3.csv`).
const TURN_SHARES: [f64; 10] = [0.355, 0.204, 0.119, 0.076, 0.051, 0.037, 0.028, 0.021, 0.018, 0.013];

fn turns(chance: &mut Pcg64) -> u32 {
    let mut left: f64 = chance.random();
    for (share, turns) in TURN_SHARES.into_iter().zip(1..) {
        left -= share;
        if left < 0.0 {
            return turns;
        }
    }
    // The 99th percentile of the turns in the same file.
    chance.random_range(11..=31)
}

/// Continues an open request, the one whose age is nearest to a think time drawn as in BurstGPT 3 (log-normal, median
/// 178 s, sigma 1.96), or starts a session.
fn continued(
    open: &mut VecDeque<Open>,
    record: &mut Record,
    block_size: BlockSize,
    chance: &mut Pcg64,
    name: u64,
) -> Vec<ContentHash> {
    /// Tried at random for each request.
    const TRIED: usize = 64;
    /// Nine tenths of that file's think times are shorter.
    const WINDOW: Duration = Duration::from_secs(2340);
    while open.front().is_some_and(|oldest| oldest.record.at + WINDOW < record.at) {
        open.pop_front();
    }
    let think = LogNormal::new(5.18, 1.96).expect("the deviation is positive").sample(chance);
    let mut best: Option<(f64, usize)> = None;
    for _ in 0..TRIED.min(open.len()) {
        let tried = chance.random_range(0..open.len());
        let Open { record: parent, turns_max } = &open[tried];
        let distance = ((record.at - parent.at).as_secs_f64() - think).abs();
        let continues = holds(record, parent, 1.0) && parent.turn.is_some_and(|turn| turn < *turns_max);
        if continues && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, tried));
        }
    }
    match best.and_then(|(_, chosen)| open.remove(chosen)) {
        Some(Open { record: parent, .. }) => {
            (record.session, record.turn) = (parent.session, parent.turn.map(|turn| turn + 1));
            kept(&parent, block_size)
        }
        None => {
            // Named by a block of its own, which no other session has.
            (record.session, record.turn) = (Some(name), Some(1));
            Vec::new()
        }
    }
}

/// Application prompts: the shares, sizes and popularity of the generator's preset for Qwen-Bailian B.
struct Apps {
    lengths: Vec<usize>,
    popularity: Zipf<f64>,
}

impl Apps {
    const COUNT: usize = 1500;
    const SHARE: f64 = 0.88;
    /// Of a prompt, the most that its application prompt can be.
    const PART_MAX: f64 = 0.55;

    fn new(seed: u64) -> Self {
        let mut chance = Pcg64::seed_from_u64(seed ^ 0x6170_7073);
        let blocks = LogNormal::new(23_f64.ln(), 0.9).expect("the deviation is positive");
        let length = |_| blocks.sample(&mut chance).round().clamp(2.0, 400.0) as usize;
        let popularity = Zipf::new(Self::COUNT as f64, 1.25).expect("the exponent is positive");
        Apps { lengths: (0..Self::COUNT).map(length).collect(), popularity }
    }

    fn draw(&self, record: &Record, block_size: BlockSize, chance: &mut Pcg64) -> Vec<ContentHash> {
        if chance.random::<f64>() >= Self::SHARE {
            return Vec::new();
        }
        let app = self.popularity.sample(chance) as usize - 1;
        // Lengths are in 16-token blocks.
        let tokens = (Self::PART_MAX * f64::from(record.prompt_tokens)).min((self.lengths[app] * 16) as f64);
        (0..block_size.full_blocks(tokens as u32) as usize).map(|place| head_block(app, place)).collect()
    }
}

/// Shares just as much as brings the ratio so far to its target.
struct Target {
    ratio: f64,
    blocks: u64,
    hits: u64,
    /// How much of each head was seen.
    seen: [usize; Target::HEADS],
}

impl Target {
    /// Enough that no router can serve all from one instance unnoticed.
    const HEADS: usize = 64;

    fn new(ratio: f64) -> Self {
        Target { ratio, blocks: 0, hits: 0, seen: [0; Target::HEADS] }
    }

    fn draw(&mut self, count: usize, chance: &mut Pcg64) -> Vec<ContentHash> {
        let head = chance.random_range(0..Self::HEADS);
        self.blocks += count as u64;
        let wanted = (self.ratio * self.blocks as f64 - self.hits as f64).round().max(0.0) as usize;
        // The last block is partial more often than not, and never shared.
        let shared = wanted.min(count.saturating_sub(1));
        self.hits += shared.min(self.seen[head]) as u64;
        self.seen[head] = self.seen[head].max(shared);
        (0..shared).map(|place| head_block(head, place)).collect()
    }
}
