//! What the routers are told, at once or late.

use super::Cluster;
use crate::routing::block::{ContentHash, EngineHash};
use crate::routing::{Content, Fact, InstanceId, Parent, Reported, RequestId, Tier, Time};

/// A fact on its way to the routers.
pub(super) enum News {
    Stored { instance: InstanceId, parent: Option<EngineHash>, names: Vec<EngineHash>, contents: Vec<ContentHash> },
    Removed { instance: InstanceId, block: EngineHash },
    Reported { instance: InstanceId, load: Reported },
    FirstToken { router: usize, request: RequestId },
    Finished { router: usize, request: RequestId, output_tokens: u32 },
}

impl Cluster {
    pub(super) fn tell(&mut self, news: &News, now: Time) {
        match news {
            News::Stored { instance, parent, names, contents } => {
                let root = Parent::Root { lora: None, cache_salt: None };
                let parent = parent.map_or(root, Parent::Block);
                let content = Content::Hashes(contents);
                self.tell_all(
                    Fact::Stored { instance: *instance, tier: Tier::Gpu, parent, blocks: names, content },
                    now,
                );
            }
            News::Removed { instance, block } => {
                self.tell_all(Fact::Removed { instance: *instance, tier: Tier::Gpu, blocks: &[*block] }, now);
            }
            News::Reported { instance, load } => {
                self.tell_all(Fact::Reported { instance: *instance, load: *load }, now);
            }
            News::FirstToken { router, request } => {
                self.tell_one(*router, Fact::FirstToken { request: *request }, now);
                self.room[*router] = true;
            }
            News::Finished { router, request, output_tokens } => {
                let fact = Fact::Finished { request: *request, output_tokens: *output_tokens };
                self.tell_one(*router, fact, now);
                self.room[*router] = true;
            }
        }
    }

    /// Tells a router what it would have seen by now of the tokens that it passes on.
    pub(super) fn tell_steps(&self, router: usize, now: Time) {
        let late = self.conditions.answer_delay;
        for (at, engine) in self.instances.iter().enumerate() {
            let instance = InstanceId(at as u16);
            if let Some(ended) = engine.token_at(now - late) {
                self.tell_one(router, Fact::Stepped { instance }, ended + late);
            }
        }
    }

    fn tell_all(&self, fact: Fact<'_>, now: Time) {
        for router in 0..self.routers.len() {
            self.tell_one(router, fact, now);
        }
    }

    /// What is told here is in order and, unless events are lost, complete, so that nothing may fail to fit.
    fn tell_one(&self, router: usize, fact: Fact<'_>, now: Time) {
        if let Err(error) = self.routers[router].learn(fact, now) {
            assert!(self.conditions.events_lost > 0.0, "the simulated fleet and its router disagree: {error}");
        }
    }
}
