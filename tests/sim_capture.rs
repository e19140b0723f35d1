//! The simulated engine beside what a real one published: the same requests, the same batches of cache events, in the same
//! order.

use serde::Deserialize;
use std::collections::HashMap;
use warmpath::routing::Time;
use warmpath::routing::block::{BlockHash, BlockSize, ContentHash, Namespace};
use warmpath::sim::{CacheEvent, Eviction, Instance, InstanceConfig, Preset, Work};

#[derive(Deserialize)]
struct Step {
    name: String,
    requests: Vec<Sent>,
    batches: Vec<Vec<Event>>,
}

#[derive(Deserialize)]
struct Sent {
    prompt: Vec<u32>,
    #[serde(default)]
    output: Vec<u32>,
    output_tokens: u32,
    cache_salt: Option<String>,
    #[serde(default)]
    skips_cache: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Event {
    Stored { stored: Vec<u64>, parent: Option<u64> },
    Removed { removed: u64 },
}

const BLOCK_TOKENS: u32 = 32;

fn work(id: u64, sent: &Sent) -> Work {
    let block_size = BlockSize::new(BLOCK_TOKENS).unwrap();
    let namespace = Namespace { model: "tiny", lora: None, cache_salt: sent.cache_salt.as_deref() };
    let mut hash = BlockHash::root(&namespace, block_size, 0);
    let tokens = [sent.prompt.as_slice(), &sent.output].concat();
    let mut child = |block: &[u32]| {
        hash = hash.child(ContentHash::of_tokens(block));
        hash
    };
    Work {
        id,
        prompt_tokens: sent.prompt.len() as u32,
        output_tokens: sent.output_tokens,
        chain: tokens.chunks_exact(BLOCK_TOKENS as usize).map(&mut child).collect(),
        skips_cache: sent.skips_cache,
        ..Work::default()
    }
}

/// Whose block is whose: one of ours for one of theirs.
#[derive(Default)]
struct Names {
    theirs: HashMap<BlockHash, u64>,
    ours: HashMap<u64, BlockHash>,
}

impl Names {
    #[track_caller]
    fn same(&mut self, step: &str, ours: BlockHash, theirs: u64) {
        let known = (*self.theirs.entry(ours).or_insert(theirs), *self.ours.entry(theirs).or_insert(ours));
        assert_eq!(known, (theirs, ours), "{step}: another block");
    }
}

#[test]
fn every_batch_of_a_real_vllm_is_published_alike() {
    let steps: Vec<Step> = serde_json::from_str(include_str!("data/vllm/steps.json")).unwrap();
    let mut model = Preset::default().step_model();
    model.prefill.step_tokens = 1024;
    let block_size = BlockSize::new(BLOCK_TOKENS).unwrap();
    let config = InstanceConfig { block_size, blocks: 127, sequences_max: 8, eviction: Eviction::Lru, model };
    let mut engine = Instance::new(config);
    let (mut names, mut chains, mut now) = (Names::default(), Vec::new(), Time::ZERO);
    let (mut batches, mut removed_in_all) = (0, 0);
    for Step { name, requests, batches: expected } in &steps {
        for sent in requests {
            let work = work(chains.len() as u64, sent);
            chains.push(work.chain.clone());
            engine.submit(work).unwrap();
        }
        let mut published = Vec::new();
        while let Some(end) = engine.begin_step(now) {
            now = end;
            let mut events = Vec::new();
            engine.end_step(&mut Vec::new(), &mut events);
            published.extend((!events.is_empty()).then_some(events));
        }
        assert_eq!(published.len(), expected.len(), "{name}: {published:?}");
        for (ours, theirs) in published.iter().flatten().zip(expected.iter().flatten()) {
            match (ours, theirs) {
                (CacheEvent::Stored { id, first, count }, Event::Stored { stored, parent }) => {
                    assert_eq!(*count as usize, stored.len(), "{name}");
                    let chain = &chains[*id as usize];
                    for (ours, theirs) in chain[*first as usize..].iter().zip(stored) {
                        names.same(name, *ours, *theirs);
                    }
                    assert_eq!(first.checked_sub(1).is_some(), parent.is_some(), "{name}");
                    if let (Some(before), Some(parent)) = (first.checked_sub(1), parent) {
                        names.same(name, chain[before as usize], *parent);
                    }
                }
                (CacheEvent::Removed(ours), Event::Removed { removed }) => {
                    names.same(name, *ours, *removed);
                    removed_in_all += 1;
                }
                _ => panic!("{name}: {ours:?} beside {theirs:?}"),
            }
        }
        let lengths = |lengths: &mut dyn Iterator<Item = usize>| lengths.collect::<Vec<_>>();
        let (ours, theirs) =
            (lengths(&mut published.iter().map(Vec::len)), lengths(&mut expected.iter().map(Vec::len)));
        assert_eq!(ours, theirs, "{name}: events in each batch");
        batches += expected.len();
    }
    assert_eq!((batches, removed_in_all), (18, 102), "the capture was read whole");
}
