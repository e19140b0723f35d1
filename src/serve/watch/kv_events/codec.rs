//! What vLLM's KV event batches say.
//!
//! A batch is the MessagePack array `[seconds, events, data parallel rank]`. Since vLLM 0.24 an event is a map with a
//! `"type"`; before it was an array of a tag and the fields in a fixed order. Fields came over time (`lora_name` 0.14,
//! `extra_keys` 0.18, `group_idx` 0.20, `kv_cache_spec_kind` and its window 0.22) and a missing one reads as nil. Fields and event
//! types that are not known here are passed over. Source: `vllm/distributed/kv_events.py` and captures of 0.32.0.
//!
//! The visitors are written by hand: derived, untagged forms fall through to their catch-all on real events.

mod event;
mod field;

use crate::routing::block::EngineHash;
use event::EventSeed;
use serde::de::{DeserializeSeed, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;

/// The events of one engine step. Texts are borrowed from the payload.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch<'a> {
    /// When it was published, in seconds of Unix time.
    pub seconds: f64,
    /// In the order in which they happened.
    pub events: Vec<Event<'a>>,
    /// The data parallel rank of the engine; vLLM sends 0 where there is only one.
    pub rank: Option<u32>,
}

/// One change of the cache.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<'a> {
    /// Consecutive blocks were stored.
    Stored(Stored<'a>),
    /// One copy of each of these blocks was evicted.
    Removed(Removed<'a>),
    /// The cache was emptied.
    Cleared,
    /// A type that is not known here.
    Unknown,
}

/// Consecutive blocks that were stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored<'a> {
    /// The blocks, in order.
    pub blocks: Vec<EngineHash>,
    /// The block before the first one; `None` at the start of a prompt.
    pub parent: Option<EngineHash>,
    /// The tokens of these blocks, end to end.
    pub tokens: Vec<u32>,
    /// Tokens a block.
    pub block_size: u32,
    /// The LoRA adapter's name.
    pub lora_name: Option<&'a str>,
    /// What a block's identity holds besides its tokens, one list a block, or none at all.
    pub extra_keys: Vec<Vec<ExtraKey<'a>>>,
    /// Where the blocks are.
    pub place: Place<'a>,
}

/// Blocks that were evicted.
#[derive(Clone, Debug, PartialEq)]
pub struct Removed<'a> {
    /// The blocks.
    pub blocks: Vec<EngineHash>,
    /// Where the blocks were.
    pub place: Place<'a>,
}

/// Which of an engine's caches a block is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place<'a> {
    /// The tier: "GPU", "CPU", "STORAGE" or another producer's word; nil before it was sent.
    pub medium: Option<&'a str>,
    /// The KV cache group; hybrid models have several.
    pub group: Option<u32>,
    /// The kind of attention, such as "full_attention"; never sent for removed blocks.
    pub attention: Option<&'a str>,
    /// How many tokens a sliding window reaches.
    pub window: Option<u32>,
}

/// Part of a block's identity besides its tokens. Untagged on the wire: a text may be a LoRA's name or a salt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtraKey<'a> {
    /// A LoRA's name, or the cache salt.
    Text(&'a str),
    /// A hash of anything else: a multimodal item and its offset, a digest of prompt embeddings.
    Hashed(u64),
}

/// A payload that is not a batch.
#[derive(Debug, thiserror::Error)]
#[error("not a batch of KV events ({bytes} bytes)")]
pub struct DecodeError {
    /// Length of the payload.
    pub bytes: usize,
    /// What the decoder stumbled over.
    pub source: rmp_serde::decode::Error,
}

/// Reads a batch.
pub fn decode(payload: &[u8]) -> Result<Batch<'_>, DecodeError> {
    rmp_serde::from_slice(payload).map_err(|source| DecodeError { bytes: payload.len(), source })
}

impl<'de: 'a, 'a> Deserialize<'de> for Batch<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(BatchVisitor)
    }
}

struct BatchVisitor;

impl<'de> Visitor<'de> for BatchVisitor {
    type Value = Batch<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of a time, events and a rank")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Batch<'de>, A::Error> {
        use serde::de::Error;
        let seconds = seq.next_element()?.ok_or_else(|| A::Error::invalid_length(0, &self))?;
        let events = seq.next_element_seed(Events)?.ok_or_else(|| A::Error::invalid_length(1, &self))?;
        let rank = seq.next_element::<Option<u32>>()?.flatten();
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Batch { seconds, events, rank })
    }
}

struct Events;

impl<'de> DeserializeSeed<'de> for Events {
    type Value = Vec<Event<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Events {
    type Value = Vec<Event<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        // The announced length is the sender's word: it grows as events really come.
        let mut events = Vec::new();
        while let Some(event) = seq.next_element_seed(EventSeed)? {
            events.push(event);
        }
        Ok(events)
    }
}
