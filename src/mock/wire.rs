//! KV event batches as vLLM 0.32 writes them: the same fields in the same order, byte for byte.

use serde::{Serialize, Serializer};

/// One change of the cache, in vLLM's words.
#[derive(Clone, Debug, PartialEq)]
pub enum WireEvent<'a> {
    /// Consecutive blocks were stored.
    Stored {
        /// Their hashes.
        block_hashes: Vec<u64>,
        /// The block before the first one.
        parent_block_hash: Option<u64>,
        /// Their tokens, end to end.
        token_ids: &'a [u32],
        /// Tokens a block.
        block_size: u32,
        /// The tenant's salt, if these blocks begin a salted prompt.
        cache_salt: Option<&'a str>,
    },
    /// A block was evicted.
    Removed {
        /// Its hash.
        block_hash: u64,
    },
    /// The cache was emptied.
    Cleared,
}

/// A batch's payload: `seconds` of Unix time, the events of one step, rank 0.
pub fn encode(seconds: f64, events: &[WireEvent<'_>]) -> Vec<u8> {
    let mut payload = Vec::new();
    let mut serializer = rmp_serde::Serializer::new(&mut payload).with_struct_map();
    let batch = (seconds, events, 0u8);
    batch.serialize(&mut serializer).expect("writing plain data to memory cannot fail");
    payload
}

const MEDIUM: &str = "GPU";

impl Serialize for WireEvent<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            WireEvent::Stored { block_hashes, parent_block_hash, token_ids, block_size, cache_salt } => Stored {
                kind: "BlockStored",
                block_hashes,
                parent_block_hash: *parent_block_hash,
                token_ids,
                block_size: *block_size,
                lora_id: None,
                medium: MEDIUM,
                lora_name: None,
                extra_keys: (0..block_hashes.len())
                    .map(|position| cache_salt.filter(|_| position == 0).map(|salt| [salt]))
                    .collect(),
                group_idx: 0,
                kv_cache_spec_kind: "full_attention",
            }
            .serialize(serializer),
            WireEvent::Removed { block_hash } => {
                Removed { kind: "BlockRemoved", block_hashes: [*block_hash], medium: MEDIUM, group_idx: 0 }
                    .serialize(serializer)
            }
            WireEvent::Cleared => Cleared { kind: "AllBlocksCleared" }.serialize(serializer),
        }
    }
}

#[derive(Serialize)]
struct Stored<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    block_hashes: &'a [u64],
    parent_block_hash: Option<u64>,
    token_ids: &'a [u32],
    block_size: u32,
    lora_id: Option<u32>,
    medium: &'static str,
    lora_name: Option<&'a str>,
    extra_keys: Vec<Option<[&'a str; 1]>>,
    group_idx: u32,
    kv_cache_spec_kind: &'static str,
}

#[derive(Serialize)]
struct Removed {
    #[serde(rename = "type")]
    kind: &'static str,
    block_hashes: [u64; 1],
    medium: &'static str,
    group_idx: u32,
}

#[derive(Serialize)]
struct Cleared {
    #[serde(rename = "type")]
    kind: &'static str,
}
