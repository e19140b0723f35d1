//! The whole index as bytes, and back: for a router that restarts in front of warm engines.
//!
//! Little-endian: magic, version, block size; the runs, each with the number of the run that it hangs from, how many of its
//! blocks must stay, and its keys; the instances, each with its names, their places and their copies by tier; a checksum
//! (XXH3-64) of all before. Sets are not in it: who holds what follows from the names.

use super::anchors::Spread;
use super::place::{Copies, Name, Place};
use super::run::{RUN_BLOCKS_MAX, RunId, Segment};
use super::set_id::{Lane, SetId};
use super::sync::Ordering;
use super::{Alias, ExactIndex, Member};
use crate::routing::block::BlockSize;
use crate::routing::fact::{InstanceId, Tier};
use std::collections::{BTreeMap, HashMap, HashSet};
use twox_hash::XxHash3_64;

const MAGIC: [u8; 4] = *b"wpix";
/// Version 1 had 64 bits of each name, this one the 60 that matter.
const VERSION: u32 = 2;
const NO_RUN: u32 = u32::MAX;
const CHECKSUM_SEED: u64 = 0x7761_726d_7061_7468;

/// Why bytes are no index.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The bytes do not begin as a snapshot does.
    #[error("not a snapshot of a prefix index")]
    NotASnapshot,
    /// Another version wrote them.
    #[error("snapshot version {found}, not {VERSION}")]
    Version {
        /// Which.
        found: u32,
    },
    /// They changed since they were written, or end early.
    #[error("the snapshot's checksum is wrong")]
    Checksum,
    /// The index they were taken from had other blocks.
    #[error("the snapshot has blocks of {found} tokens, not {wanted}")]
    BlockSize {
        /// The snapshot's.
        found: u32,
        /// This index's.
        wanted: u32,
    },
    /// What they say cannot be.
    #[error("the snapshot contradicts itself: {what}")]
    Malformed {
        /// In which way.
        what: &'static str,
    },
    /// They say more than the bound in bytes allows.
    #[error("the snapshot does not fit {limit_bytes} bytes")]
    TooLarge {
        /// The bound.
        limit_bytes: usize,
    },
}

const fn malformed(what: &'static str) -> SnapshotError {
    SnapshotError::Malformed { what }
}

/// One name of a snapshot.
struct Entry {
    name: u64,
    place: Place,
    copies: [u32; Tier::ALL.len()],
}

impl ExactIndex {
    /// The index as it is at one moment, as bytes. Facts wait meanwhile, lookups do not.
    pub fn snapshot(&self) -> Vec<u8> {
        // Runs change only under the lock of the instance that a fact is about.
        let members: Vec<_> = self.members.iter().map(|member| member.lock()).collect();
        let mut out = Writer(Vec::new());
        out.0.extend_from_slice(&MAGIC);
        out.u32(VERSION);
        out.u32(self.block_size.tokens());
        let runs: Vec<RunId> = self.runs.all().collect();
        let numbers: HashMap<u32, u32> = runs.iter().zip(0..).map(|(run, number)| (run.0, number)).collect();
        let number = |run: RunId| numbers.get(&run.0).copied().unwrap_or(NO_RUN);
        out.u32(runs.len() as u32);
        for &run in &runs {
            let header = self.runs.known(run);
            out.u32(number(self.runs.parent(run)));
            out.u32(header.pinned() as u32);
            out.u32(header.blocks() as u32);
            header.locked_keys(&self.words).iter().for_each(|key| out.u64(key.load(Ordering::Relaxed)));
        }
        out.u32(members.iter().filter(|member| member.is_some()).count() as u32);
        for (instance, member) in members.iter().enumerate() {
            let Some(member) = member.as_ref() else { continue };
            out.u32(instance as u32);
            out.u32(member.names.len() as u32);
            for (name, place, copies) in member.names.iter() {
                out.u64(name.mixed());
                out.u32(number(place.run()));
                out.u32(place.offset() as u32);
                member.counts(name, copies).into_iter().for_each(|count| out.u32(count));
            }
        }
        let checksum = XxHash3_64::oneshot_with_seed(CHECKSUM_SEED, &out.0);
        out.u64(checksum);
        out.0
    }

    /// The index that `bytes` are a snapshot of, to take at most `bytes_max` bytes.
    pub fn restore(bytes: &[u8], block_size: BlockSize, bytes_max: usize) -> Result<Self, SnapshotError> {
        let (body, checksum) = bytes.split_last_chunk::<8>().ok_or(SnapshotError::NotASnapshot)?;
        let mut body = Reader(body);
        if body.bytes::<4>()? != MAGIC {
            return Err(SnapshotError::NotASnapshot);
        }
        let found = body.u32()?;
        if found != VERSION {
            return Err(SnapshotError::Version { found });
        }
        let whole = &bytes[..bytes.len() - 8];
        if XxHash3_64::oneshot_with_seed(CHECKSUM_SEED, whole) != u64::from_le_bytes(*checksum) {
            return Err(SnapshotError::Checksum);
        }
        let (found, wanted) = (body.u32()?, block_size.tokens());
        if found != wanted {
            return Err(SnapshotError::BlockSize { found, wanted });
        }
        let index = ExactIndex::new(block_size, bytes_max);
        let runs = index.restore_runs(&mut body)?;
        let mut seen = HashSet::new();
        for _ in 0..body.u32()? {
            let instance = u16::try_from(body.u32()?).ok().map(InstanceId);
            let instance = instance.filter(|instance| instance.index() < InstanceId::LIMIT && seen.insert(*instance));
            let instance = instance.ok_or(malformed("an instance is out of range or comes twice"))?;
            index.restore_member(instance, &mut body, &runs)?;
        }
        if !body.0.is_empty() {
            return Err(malformed("something follows the end"));
        }
        let held = |run: &RunId| {
            let header = index.runs.known(*run);
            let last = header.locked_segments(&index.words).last().copied();
            header.pinned() == header.blocks() || last.is_some_and(|last| last.set != SetId::EMPTY)
        };
        if runs.iter().all(held) { Ok(index) } else { Err(malformed("a run ends in blocks that nobody holds")) }
    }

    fn full(&self) -> SnapshotError {
        SnapshotError::TooLarge { limit_bytes: self.budget.limit() }
    }

    /// The runs, held by nobody yet.
    fn restore_runs(&self, body: &mut Reader<'_>) -> Result<Vec<RunId>, SnapshotError> {
        let mut runs = Vec::new();
        let mut links = Vec::new();
        let mut heads = HashSet::new();
        for _ in 0..body.u32()? {
            let (parent, pinned, blocks) = (body.u32()?, body.u32()? as usize, body.u32()? as usize);
            if blocks == 0 || blocks > RUN_BLOCKS_MAX || pinned > blocks {
                return Err(malformed("a run has no length that it could have"));
            }
            let keys = (0..blocks).map(|_| body.u64()).collect::<Result<Vec<u64>, _>>()?;
            if !heads.insert(keys[0]) {
                return Err(malformed("two runs begin with one block"));
            }
            let run = self.runs.take(keys[0], RunId::NONE, &self.budget).ok_or(self.full())?;
            let header = self.runs.known(run);
            let segment = Segment { end: blocks as u32, set: SetId::EMPTY };
            let key = Spread::of(keys[0]);
            let written = header.write_keys(&keys, &self.words, &self.budget)
                && header.set_segments(&[segment], &self.words, &self.budget)
                && self.shards[key.shard(self.shards.len())].anchors.insert(key, run, &self.budget);
            if !written {
                return Err(self.full());
            }
            runs.push(run);
            links.push((parent, pinned));
        }
        let mut children = vec![0_u32; runs.len()];
        for (run, &(parent, _)) in runs.iter().zip(&links).filter(|(_, (parent, _))| *parent != NO_RUN) {
            let parent_run = runs.get(parent as usize).ok_or(malformed("a run hangs from none"))?;
            children[parent as usize] += 1;
            self.runs.link(*run, *parent_run);
        }
        for ((run, (_, pinned)), children) in runs.iter().zip(links).zip(children) {
            if (pinned == 0) != (children == 0) {
                return Err(malformed("a run keeps blocks for nobody"));
            }
            self.runs.restore_children(*run, children, pinned);
        }
        Ok(runs)
    }

    fn restore_member(&self, instance: InstanceId, body: &mut Reader<'_>, runs: &[RunId]) -> Result<(), SnapshotError> {
        let mut entries = Vec::new();
        for _ in 0..body.u32()? {
            let (name, run, offset) = (body.u64()?, body.u32()?, body.u32()? as usize);
            let run = *runs.get(run as usize).ok_or(malformed("a name is for no run"))?;
            if offset >= self.runs.known(run).blocks() {
                return Err(malformed("a name is for no block"));
            }
            let copies = [body.u32()?, body.u32()?, body.u32()?];
            let total = copies.iter().try_fold(0_u32, |sum, &count| sum.checked_add(count));
            if total.is_none_or(|total| total == 0) {
                return Err(malformed("a name has no copies, or too many to count"));
            }
            entries.push(Entry { name, place: Place::new(run, offset), copies });
        }
        let mut member = Member::default();
        if !member.names.reserve(entries.len(), &self.budget) {
            return Err(self.full());
        }
        let mut places: BTreeMap<Place, Alias> = BTreeMap::new();
        for Entry { name, place, copies } in entries {
            if Name::from_mixed(name).mixed() != name {
                return Err(malformed("a name has bits that names do not have"));
            }
            let name = Name::from_mixed(name);
            let vacancy = match member.names.locate(name) {
                Err(vacancy) => vacancy,
                Ok(_) => return Err(malformed("a name comes twice")),
            };
            let one = Tier::ALL.into_iter().find(|&tier| copies[tier as usize] == 1 && copies.iter().sum::<u32>() == 1);
            member.names.insert(vacancy, place, one.map_or(Copies::MANY, Copies::one), &self.forgetting);
            if one.is_none() && !member.copies.insert(name, copies, &self.budget) {
                return Err(self.full());
            }
            let alias = places.entry(place).or_default();
            alias.names += 1;
            for tier in Tier::ALL.into_iter().filter(|&tier| copies[tier as usize] > 0) {
                alias.holding[tier as usize] += 1;
                member.tiers |= 1 << tier as u8;
            }
        }
        member.surplus_names = places.values().map(|alias| alias.names as usize - 1).sum();
        self.restore_holder(instance, &places)?;
        for (place, alias) in places.into_iter().filter(|(_, alias)| alias.names > 1) {
            if !member.aliases.insert(place, alias, &self.budget) {
                return Err(self.full());
            }
        }
        *self.members[instance.index()].lock() = Some(Box::new(member));
        Ok(())
    }

    /// Writes that `instance` holds what its names are for, stretch by stretch.
    fn restore_holder(&self, instance: InstanceId, places: &BTreeMap<Place, Alias>) -> Result<(), SnapshotError> {
        for tier in Tier::ALL {
            let lane = Lane::new(instance, tier);
            let mut held =
                places.iter().filter(|(_, alias)| alias.holding[tier as usize] > 0).map(|(&place, _)| place).peekable();
            while let Some(first) = held.next() {
                let mut end = first.offset() + 1;
                while held.next_if(|place| place.run == first.run && place.offset() == end).is_some() {
                    end += 1;
                }
                let header = self.runs.known(first.run());
                let mut blocks_held =
                    self.shards[Spread::of(header.head()).shard(self.shards.len())].blocks_held.lock();
                let old = header.locked_segments(&self.words);
                // Nothing is cut off before all is restored.
                let blocks = header.blocks();
                let with = |set: SetId| self.sets.with(set, lane, &self.words, &self.budget);
                let changed = self.change_within(header, &old, first.offset(), end, with, blocks, &self.budget);
                *blocks_held += changed.ok_or(self.full())?.from_none;
            }
        }
        Ok(())
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let (bytes, rest) = self.0.split_first_chunk::<N>().ok_or(malformed("it ends early"))?;
        self.0 = rest;
        Ok(*bytes)
    }
    fn u32(&mut self) -> Result<u32, SnapshotError> {
        self.bytes().map(u32::from_le_bytes)
    }
    fn u64(&mut self) -> Result<u64, SnapshotError> {
        self.bytes().map(u64::from_le_bytes)
    }
}
