//! One workload for everybody: the Mooncake conversation trace (FAST'25, 12,031 requests), placed on a fleet, as the
//! events that its engines would publish and the queries that a router would ask.
//!
//! Caches are unbounded here: an instance stores what of a prompt it does not hold yet. Removals come afterwards, as
//! vLLM evicts: least recently used first, of the blocks that one request used last from its tail, one block an event.

use dynamo_kv_router::protocols::{LocalBlockHash, compute_seq_hash_for_block};
use flate2::read::GzDecoder;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// A block as everybody is told of it.
#[derive(Clone, Copy)]
pub struct Block {
    /// The engine's name: a hash of all that leads here. Dynamo's own chain, since its positional index must be able to
    /// recompute it; opaque to the others.
    pub name: u64,
    /// A hash of the block's own content.
    pub content: u64,
}

/// Blocks that an instance stored one after another.
pub struct Stored {
    pub instance: u16,
    pub parent: Option<u64>,
    pub blocks: Vec<Block>,
}

/// One block that an instance evicted.
#[derive(Clone, Copy)]
pub struct Removed {
    pub instance: u16,
    pub name: u64,
}

/// How requests are spread over instances.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Placement {
    /// Any instance, all equally likely.
    Random,
    /// The instance that holds the longest prefix, if that is over 30 % of the prompt (SMG's default threshold), else the
    /// one that was given least. Without a threshold the prefix that all share would pull everything to one instance.
    BestOverlap,
}

pub struct Workload {
    pub instances: u16,
    pub stored: Vec<Stored>,
    pub removed: Vec<Removed>,
    /// The prompts as they are: held in full by somebody once everything is stored.
    pub prompts: Vec<Vec<u64>>,
    /// The prompts as they arrived: what an earlier request had not yet brought is unknown to everybody.
    pub arrivals: Vec<Vec<u64>>,
    /// (block, instance) pairs.
    pub entries: usize,
    /// Distinct blocks.
    pub distinct: usize,
}

#[derive(serde::Deserialize)]
struct Line {
    hash_ids: Vec<u64>,
}

/// The block ids of every request of the trace, in order of arrival.
pub fn read_trace(path: &Path) -> Vec<Vec<u64>> {
    let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines = BufReader::new(GzDecoder::new(file)).lines();
    lines.map(|line| serde_json::from_str::<Line>(&line.expect("a line of text")).expect("a record").hash_ids).collect()
}

pub fn build(trace: &[Vec<u64>], expansion: u64, instances: u16, placement: Placement) -> Workload {
    let mut random = Random(u64::from(instances) * 31 + expansion);
    // A Mooncake id stands for a block and all that leads to it, so who holds what can be kept by id.
    let mut holders: HashMap<u64, Vec<u64>> = HashMap::new();
    let words = usize::from(instances).div_ceil(64);
    let mut given = vec![0usize; usize::from(instances)];
    let (mut stored, mut removed, mut prompts, mut arrivals) = (vec![], vec![], vec![], vec![]);
    let mut entries = 0;
    let mut last_use: HashMap<(usize, u64), usize> = HashMap::new();
    let mut placed = vec![];
    for (at, ids) in trace.iter().enumerate() {
        let seen = ids.iter().take_while(|id| holders.contains_key(id)).count();
        let instance = match placement {
            Placement::Random => random.below(usize::from(instances)),
            Placement::BestOverlap => best(ids, &holders, &given, words),
        };
        given[instance] += ids.len();
        placed.push(instance);
        last_use.extend(ids.iter().map(|&id| ((instance, id), at)));
        let holds = |set: &Vec<u64>| set[instance / 64] >> (instance % 64) & 1 == 1;
        let held = ids.iter().take_while(|id| holders.get(id).is_some_and(holds)).count();
        for id in &ids[held..] {
            holders.entry(*id).or_insert_with(|| vec![0; words])[instance / 64] |= 1 << (instance % 64);
        }
        let blocks = blocks(ids, expansion);
        let held = held * expansion as usize;
        let fresh = &blocks[held..];
        if !fresh.is_empty() {
            entries += fresh.len();
            let parent = held.checked_sub(1).map(|last| blocks[last].name);
            stored.push(Stored { instance: instance as u16, parent, blocks: fresh.to_vec() });
        }
        let prompt: Vec<u64> = blocks.iter().map(|block| block.content).collect();
        let seen = seen * expansion as usize;
        arrivals.push(prompt.iter().enumerate().map(|(at, &c)| if at < seen { c } else { random.next() }).collect());
        prompts.push(prompt);
    }
    let distinct = holders.len() * expansion as usize;
    for (at, (ids, &instance)) in trace.iter().zip(&placed).enumerate() {
        let instance_id = instance as u16;
        for (block, &id) in blocks(ids, expansion).iter().zip(repeat_each(ids, expansion)).rev() {
            if last_use[&(instance, id)] == at {
                removed.push(Removed { instance: instance_id, name: block.name });
            }
        }
    }
    Workload { instances, stored, removed, prompts, arrivals, entries, distinct }
}

/// The blocks of a prompt, each of the trace's expanded into `expansion`. Contents are uniform, as real hashes are.
pub fn blocks(ids: &[u64], expansion: u64) -> Vec<Block> {
    let parts = ids.iter().flat_map(|&id| (0..expansion).map(move |part| id << 8 | part));
    chain(parts.map(|part| mix(!part)).collect())
}

/// Names for a chain of contents.
pub fn chain(contents: Vec<u64>) -> Vec<Block> {
    let hashes: Vec<LocalBlockHash> = contents.iter().map(|&content| LocalBlockHash(content)).collect();
    let names = compute_seq_hash_for_block(&hashes);
    names.into_iter().zip(contents).map(|(name, content)| Block { name, content }).collect()
}

fn repeat_each(ids: &[u64], times: u64) -> std::vec::IntoIter<&u64> {
    ids.iter().flat_map(|id| std::iter::repeat_n(id, times as usize)).collect::<Vec<_>>().into_iter()
}

fn best(ids: &[u64], holders: &HashMap<u64, Vec<u64>>, given: &[usize], words: usize) -> usize {
    let mut alive = vec![u64::MAX; words];
    for id in &ids[..(ids.len() * 3 / 10 + 1).min(ids.len())] {
        let none = vec![0; words];
        let set = holders.get(id).unwrap_or(&none);
        alive.iter_mut().zip(set).for_each(|(alive, set)| *alive &= set);
    }
    let mut longest: Vec<u64> = alive.clone();
    for id in ids {
        let Some(set) = holders.get(id) else { break };
        let next: Vec<u64> = longest.iter().zip(set).map(|(a, b)| a & b).collect();
        if next.iter().all(|&word| word == 0) {
            break;
        }
        longest = next;
    }
    let any = alive.iter().all(|&word| word == 0);
    let candidates = (0..given.len()).filter(|at| any || longest[at / 64] >> (at % 64) & 1 == 1);
    candidates.min_by_key(|&at| given[at]).expect("there is an instance")
}

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }
}

fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
