//! Warmpath: `ExactIndex`, through the door that the router uses.

use super::Contender;
use crate::measure::cpu_of;
use crate::workload::{Removed, Stored};
use std::sync::Arc;
use std::time::Duration;
use warmpath::routing::block::{BlockHash, BlockSize, ContentHash, EngineHash, Namespace};
use warmpath::routing::index::{Attach, ExactIndex, Overlaps};
use warmpath::routing::{Content, InstanceId, Prompt, Tier};

pub struct Warmpath {
    index: Arc<ExactIndex>,
    root: BlockHash,
    overlaps: Overlaps,
}

pub enum Event {
    Stored { instance: InstanceId, attach: Attach, names: Vec<EngineHash>, contents: Vec<ContentHash> },
    Removed { instance: InstanceId, names: [EngineHash; 1] },
}

impl Contender for Warmpath {
    type Event = Event;
    type Query = [ContentHash];

    fn name() -> &'static str {
        "Warmpath"
    }

    fn new(instances: u16) -> Self {
        let index = Arc::new(ExactIndex::new(BlockSize::DEFAULT, usize::MAX));
        (0..instances).for_each(|at| index.join(InstanceId(at)));
        let root = BlockHash::root(&Namespace::of_model("m"), BlockSize::DEFAULT, 0);
        Warmpath { index, root, overlaps: Overlaps::default() }
    }

    fn stored(&self, stored: &Stored) -> Event {
        Event::Stored {
            instance: InstanceId(stored.instance),
            attach: stored.parent.map_or(Attach::Root(self.root), |name| Attach::Block(EngineHash(name))),
            names: stored.blocks.iter().map(|block| EngineHash(block.name)).collect(),
            contents: stored.blocks.iter().map(|block| ContentHash(block.content)).collect(),
        }
    }

    fn removed(&self, removed: &Removed) -> Event {
        Event::Removed { instance: InstanceId(removed.instance), names: [EngineHash(removed.name)] }
    }

    fn apply(&mut self, events: Vec<Event>) -> Duration {
        cpu_of(|| {
            for event in events {
                match event {
                    Event::Stored { instance, attach, names, contents } => self
                        .index
                        .store(instance, Tier::Gpu, attach, &names, Content::Hashes(&contents))
                        .expect("the parent is held"),
                    Event::Removed { instance, names } => {
                        self.index.remove(instance, Tier::Gpu, &names).expect("the block is held");
                    }
                }
            }
        })
        .0
    }

    fn query(contents: &[u64], query: &mut Vec<ContentHash>) {
        query.clear();
        query.extend(contents.iter().map(|&content| ContentHash(content)));
    }

    fn find(&mut self, query: &Vec<ContentHash>) {
        // One token past the last block, so that all of the blocks may be reused.
        let tokens = query.len() as u32 * 16 + 1;
        self.index.find(&Prompt::Blocks { contents: query, tokens }, self.root, &mut self.overlaps);
    }

    fn find_tokens(&mut self, tokens: &[u32]) {
        self.index.find(&Prompt::Tokens(tokens), self.root, &mut self.overlaps);
    }

    fn best(&self) -> (u32, u32) {
        let each = self.overlaps.holders().map(|holder| (u32::from(holder.0), self.overlaps.blocks(holder)));
        each.max_by_key(|&(holder, blocks)| (blocks, u32::MAX - holder)).unwrap_or((u32::MAX, 0))
    }

    fn reader(&self) -> Option<Box<dyn FnMut(&Vec<ContentHash>) + Send>> {
        let (index, root, mut overlaps) = (Arc::clone(&self.index), self.root, Overlaps::default());
        Some(Box::new(move |query| {
            let tokens = query.len() as u32 * 16 + 1;
            index.find(&Prompt::Blocks { contents: query, tokens }, root, &mut overlaps);
        }))
    }

    fn content_of(tokens: &[u32]) -> u64 {
        ContentHash::of_tokens(tokens).0
    }
}
