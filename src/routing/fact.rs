//! What the router can be told. Everything it knows came through one of these.

use super::block::{ContentHash, EngineHash};
use super::decision::RequestId;
use super::fleet::Reported;
use super::rules::Rules;
use std::fmt;

/// An instance, named by whoever joined it to the fleet. Small and dense: per-instance state is kept in arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId(pub u16);

impl InstanceId {
    /// How many instances one router can know.
    pub const LIMIT: usize = 4096;

    /// The id as an array index.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "instance {}", self.0)
    }
}

/// Whether an instance may be given new requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// It takes requests.
    Ready,
    /// It finishes what it has and takes nothing new.
    Draining,
    /// It does not answer.
    Down,
}

/// How far the index can be believed about one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Knowledge {
    /// Events flow and none is missing.
    Exact,
    /// Events flow, but some were lost: the instance may hold more than the index says.
    Degraded,
    /// No events come: the index holds what our own decisions sent there, least recently used out first.
    Approximate,
    /// No events come and nothing is guessed: the index says nothing about this instance.
    Blind,
}

/// Where an instance keeps a cached block, best first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    /// In the GPU's memory: ready for use.
    #[default]
    Gpu,
    /// In the host's memory.
    Cpu,
    /// On a disk or further away.
    Storage,
}

impl Tier {
    /// All tiers, best first.
    pub const ALL: [Tier; 3] = [Tier::Gpu, Tier::Cpu, Tier::Storage];
}

/// What a block holds, as far as its publisher tells.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// The tokens of all the blocks, end to end: exactly `blocks × block size` of them.
    Tokens(&'a [u32]),
    /// One content hash a block.
    Hashes(&'a [ContentHash]),
}

/// Where a run of stored blocks is attached.
#[derive(Clone, Copy, Debug)]
pub enum Parent<'a> {
    /// At the start of a prompt, in this namespace.
    Root {
        /// The LoRA adapter's name, if one is used.
        lora: Option<&'a str>,
        /// The tenant's cache salt, if one is given.
        cache_salt: Option<&'a str>,
    },
    /// After a block that the same instance stored before.
    Block(EngineHash),
}

/// Something that happened, told to [`Router::learn`](super::Router::learn).
#[derive(Clone, Copy, Debug)]
pub enum Fact<'a> {
    /// An instance joined the fleet, ready and with an empty cache.
    Joined {
        /// Its id, not in use by another instance.
        instance: InstanceId,
        /// The model that it serves.
        model: &'a str,
        /// How far its cache will be known.
        knowledge: Knowledge,
    },
    /// An instance became ready, began to drain, or stopped answering.
    Changed {
        /// Which.
        instance: InstanceId,
        /// What it is now.
        availability: Availability,
    },
    /// An instance left: its blocks and its requests are forgotten, its id is free again.
    Left {
        /// Which.
        instance: InstanceId,
    },
    /// The index is now to be believed more, or less, about an instance.
    Known {
        /// Which.
        instance: InstanceId,
        /// How far.
        knowledge: Knowledge,
    },
    /// An instance stored consecutive blocks. Copies count, in each tier: a block stored twice must be removed twice.
    Stored {
        /// Which.
        instance: InstanceId,
        /// Where it keeps them.
        tier: Tier,
        /// What comes before the first block.
        parent: Parent<'a>,
        /// The engine's names of the blocks, in order.
        blocks: &'a [EngineHash],
        /// What is in them.
        content: Content<'a>,
    },
    /// An instance stored one more copy of each of these blocks, which it holds already, whatever they hold: an offloading
    /// cache names its blocks and says no more.
    Copied {
        /// Which.
        instance: InstanceId,
        /// Where the copies are.
        tier: Tier,
        /// The engine's names of the blocks.
        blocks: &'a [EngineHash],
    },
    /// An instance evicted one copy of each of these blocks.
    Removed {
        /// Which.
        instance: InstanceId,
        /// Where it had kept them.
        tier: Tier,
        /// The engine's names of the blocks.
        blocks: &'a [EngineHash],
    },
    /// An instance stored one more copy of each of these blocks in another cache group than the one that [`Stored`](Self::Stored)
    /// is about, which has been told of them.
    GroupStored {
        /// Which.
        instance: InstanceId,
        /// The group's number there.
        group: u32,
        /// So many blocks before its end must be in this group for a hit to count; all of them, if it is that long.
        needs_blocks: u32,
        /// The engine's names of the blocks.
        blocks: &'a [EngineHash],
    },
    /// An instance evicted one copy of each of these blocks from such a group.
    GroupRemoved {
        /// Which.
        instance: InstanceId,
        /// The group's number there.
        group: u32,
        /// The engine's names of the blocks.
        blocks: &'a [EngineHash],
    },
    /// An instance emptied its cache.
    Cleared {
        /// Which.
        instance: InstanceId,
    },
    /// An instance said how loaded it is.
    Reported {
        /// Which.
        instance: InstanceId,
        /// What it said.
        load: Reported,
    },
    /// An instance said how many blocks its cache has: what it is believed to hold without events is bounded by that.
    Sized {
        /// Which.
        instance: InstanceId,
        /// In blocks of the router's size.
        blocks: usize,
    },
    /// The instance said how many tokens of a routed request's prompt came from its cache; to be told before the end.
    Delivered {
        /// Which.
        request: RequestId,
        /// Prompt tokens from the cache.
        cached_tokens: u32,
    },
    /// A token of a routed request came: a step of its instance's engine has ended. Of tokens one may be told or all.
    Stepped {
        /// Which.
        instance: InstanceId,
    },
    /// A routed request produced its first token: its prefill is done.
    FirstToken {
        /// Which.
        request: RequestId,
    },
    /// A routed request ended well.
    Finished {
        /// Which.
        request: RequestId,
        /// Tokens it produced.
        output_tokens: u32,
    },
    /// A routed request ended otherwise: refused, failed, cancelled, or its caller went away.
    Abandoned {
        /// Which.
        request: RequestId,
    },
    /// Time went by: reservations that outlived their lease are given up.
    TimePassed,
    /// From here on it is decided otherwise. What is known and what is in flight stays.
    Ruled {
        /// How.
        rules: Rules,
    },
}
