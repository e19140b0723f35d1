//! Which events can be told to the router, and as what.

use super::codec::{Batch, Event, ExtraKey, Place, Stored};
use crate::routing::block::{BlockSize, ContentHash};
use crate::routing::{Parent, Tier};
use crate::serve::telemetry::labels::SkipReason;
use std::collections::BTreeMap;
use twox_hash::XxHash3_64;

/// The tier that a medium is. vLLM's words are GPU, CPU and STORAGE; its connectors write them in either case, and others say
/// what the storage is.
pub(super) fn tier(place: &Place<'_>) -> Result<Tier, SkipReason> {
    const MEDIA: [(&str, Tier); 7] = [
        ("GPU", Tier::Gpu),
        ("HBM", Tier::Gpu),
        ("CPU", Tier::Cpu),
        ("HOST", Tier::Cpu),
        ("STORAGE", Tier::Storage),
        ("DISK", Tier::Storage),
        ("EXTERNAL", Tier::Storage),
    ];
    let Some(medium) = place.medium else {
        return Ok(Tier::Gpu);
    };
    let tier = MEDIA.iter().find(|(name, _)| name.eq_ignore_ascii_case(medium)).map(|(_, tier)| *tier);
    tier.ok_or(SkipReason::Medium)
}

/// What a cache group means to a hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    /// Its blocks are in the index: attention over the whole prompt.
    InIndex,
    /// A hit needs so many of its blocks before the hit's end.
    Beside { needs_blocks: u32 },
    /// It has nothing to do with prompts, or cannot be told: its blocks have another size, or no group is in the index.
    Apart,
}

/// An instance's cache groups, as far as they were seen.
#[derive(Debug, Default)]
pub(super) struct Groups {
    in_index: Option<u32>,
    others: BTreeMap<u32, Group>,
    some_cannot_be_told: bool,
}

/// Groups that are told apart; vLLM's models have a few.
const GROUPS_MAX: usize = 64;

impl Groups {
    /// Learns of the groups that a batch stores to. The first one of attention over the whole prompt is in the index.
    pub fn look(&mut self, batch: &Batch<'_>, block_size: BlockSize) {
        for (place, _) in stores(batch) {
            let group = place.group.unwrap_or(0);
            if self.in_index.is_none() && needs(&place, block_size) == Needs::All && place.attention.is_some() {
                self.in_index = Some(group);
                self.others.remove(&group);
            }
        }
        for (place, size) in stores(batch) {
            let group = place.group.unwrap_or(0);
            if self.in_index.unwrap_or(0) == group && needs(&place, block_size) == Needs::All {
                continue;
            }
            if self.others.contains_key(&group) || self.others.len() == GROUPS_MAX {
                continue;
            }
            let known = match needs(&place, block_size) {
                Needs::Nothing => Group::Apart,
                Needs::All | Needs::Last(_) if size != block_size.tokens() => {
                    self.some_cannot_be_told = true;
                    Group::Apart
                }
                Needs::All => Group::Beside { needs_blocks: u32::MAX },
                Needs::Last(needs_blocks) => Group::Beside { needs_blocks },
            };
            self.others.insert(group, known);
        }
    }

    /// What the group of this number means.
    pub fn of(&self, group: Option<u32>) -> Group {
        let group = group.unwrap_or(0);
        match self.in_index {
            Some(in_index) if in_index == group => Group::InIndex,
            Some(_) => self.others.get(&group).copied().unwrap_or(Group::Apart),
            None if group == 0 && !self.others.contains_key(&0) => Group::InIndex,
            None => Group::Apart,
        }
    }

    /// Whether some group that matters to a hit cannot be told to the router.
    pub fn some_cannot_be_told(&self) -> bool {
        self.some_cannot_be_told || (self.in_index.is_none() && !self.others.is_empty())
    }
}

/// The places and block sizes of what a batch stores. A size of 0 comes from an offloading cache that names blocks and says no
/// more.
fn stores<'a>(batch: &'a Batch<'a>) -> impl Iterator<Item = (Place<'a>, u32)> {
    let stores = batch.events.iter().filter_map(|event| match event {
        Event::Stored(stored) => Some((stored.place, stored.block_size)),
        Event::Removed(_) | Event::Cleared | Event::Unknown => None,
    });
    stores.filter(|(_, block_size)| *block_size > 0)
}

/// Which of a group's blocks a hit needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    All,
    /// So many before its end.
    Last(u32),
    Nothing,
}

/// Source: `KVCacheSpecKind` and `find_longest_cache_hit` in vLLM 0.32. What is not known there needs all, which is never too few.
fn needs(place: &Place<'_>, block_size: BlockSize) -> Needs {
    match (place.attention, place.window) {
        (Some("sliding_window" | "sliding_window_mla"), Some(window)) => {
            Needs::Last(block_size.touched_blocks(window.saturating_sub(1)).max(1))
        }
        (Some("mamba"), _) => Needs::Last(1),
        (Some("encoder_only_attention" | "cross_attention"), _) => Needs::Nothing,
        (_, _) => Needs::All,
    }
}

/// Where stored blocks are attached, or why they cannot be told.
pub(super) fn parent<'a>(stored: &Stored<'a>, block_size: BlockSize) -> Result<Parent<'a>, SkipReason> {
    if stored.block_size != block_size.tokens() {
        return Err(SkipReason::BlockSize);
    }
    let mut cache_salt = None;
    for (position, keys) in stored.extra_keys.iter().enumerate() {
        // A salt shows on the first block of a prompt only, so anywhere else a text besides the adapter is unheard of.
        let salt = plain_text(keys, stored.lora_name)?;
        if position == 0 && stored.parent.is_none() {
            cache_salt = salt;
        } else if salt.is_some() {
            return Err(SkipReason::Content);
        }
    }
    Ok(match stored.parent {
        Some(block) => Parent::Block(block),
        None => Parent::Root { lora: stored.lora_name, cache_salt },
    })
}

/// The content hashes of blocks that hold more than tokens: images, prompt embeddings. What stands for an image is the same
/// token over and over, so its identity is part of the block's. `None` where the tokens are all.
pub(super) fn hashes(stored: &Stored<'_>, block_size: BlockSize) -> Option<Vec<ContentHash>> {
    let more = stored.extra_keys.iter().flatten().any(|key| matches!(key, ExtraKey::Hashed(_)));
    more.then(|| all_hashes(stored, block_size))
}

/// The content hashes of all blocks.
pub(super) fn all_hashes(stored: &Stored<'_>, block_size: BlockSize) -> Vec<ContentHash> {
    let blocks = stored.tokens.chunks_exact(block_size.tokens() as usize).enumerate();
    let hash = |(at, tokens)| {
        let keys = stored.extra_keys.get(at).map(Vec::as_slice).unwrap_or_default();
        keys.iter().fold(ContentHash::of_tokens(tokens), |hash, key| match key {
            ExtraKey::Text(_) => hash,
            ExtraKey::Hashed(key) => ContentHash(XxHash3_64::oneshot_with_seed(hash.0, &key.to_le_bytes())),
        })
    };
    blocks.map(hash).collect()
}

/// The one text among a block's keys besides the adapter's name.
fn plain_text<'a>(keys: &[ExtraKey<'a>], lora_name: Option<&str>) -> Result<Option<&'a str>, SkipReason> {
    let mut lora_name = lora_name;
    let mut found = None;
    for key in keys {
        match *key {
            // Only once: a salt may be spelt like the adapter.
            ExtraKey::Text(text) if Some(text) == lora_name => lora_name = None,
            ExtraKey::Text(text) if found.is_none() => found = Some(text),
            ExtraKey::Text(_) => return Err(SkipReason::Content),
            ExtraKey::Hashed(_) => {}
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::block::EngineHash;
    use ExtraKey::{Hashed, Text};

    fn stored<'a>(lora: Option<&'a str>, parent: Option<u64>, keys: &[&[ExtraKey<'a>]]) -> Stored<'a> {
        Stored {
            blocks: vec![EngineHash(1); keys.len()],
            parent: parent.map(EngineHash),
            tokens: vec![0; keys.len() * 16],
            block_size: 16,
            lora_name: lora,
            extra_keys: keys.iter().map(|block| block.to_vec()).collect(),
            place: Place::default(),
        }
    }

    fn check(lora: Option<&str>, parent_block: Option<u64>, keys: &[&[ExtraKey<'_>]], expected: &str) {
        let said = match parent(&stored(lora, parent_block, keys), BlockSize::DEFAULT) {
            Ok(Parent::Root { lora, cache_salt }) => format!("{lora:?} {cache_salt:?}"),
            Ok(Parent::Block(block)) => format!("after {}", block.0),
            Err(reason) => format!("{reason:?}"),
        };
        assert_eq!(said, expected, "{lora:?} {parent_block:?} {keys:?}");
    }

    #[test]
    fn adapter_and_salt_are_told_apart() {
        check(None, None, &[&[], &[]], "None None");
        check(None, None, &[&[Text("salt")], &[]], "None Some(\"salt\")");
        check(Some("ad1"), None, &[&[Text("ad1"), Text("s1")], &[Text("ad1")]], "Some(\"ad1\") Some(\"s1\")");
        check(Some("ad1"), None, &[&[Text("ad1"), Text("ad1")]], "Some(\"ad1\") Some(\"ad1\")");
        check(Some("ad1"), None, &[&[Text("ad1"), Hashed(3), Text("s")]], "Some(\"ad1\") Some(\"s\")");
        check(Some("ad1"), Some(7), &[&[Text("ad1")]], "after 7");
        check(None, Some(7), &[&[Text("what")]], "Content");
        check(None, None, &[&[Text("salt"), Text("what")]], "Content");
    }

    #[test]
    fn what_a_block_holds_besides_tokens_is_part_of_it() {
        let of = |keys: &[&[ExtraKey<'static>]]| hashes(&stored(None, None, keys), BlockSize::DEFAULT);
        assert_eq!((of(&[&[], &[]]), of(&[&[Text("salt")], &[]])), (None, None));
        let plain = ContentHash::of_tokens(&[0; 16]);
        let [first, second] = of(&[&[], &[Hashed(1)]]).unwrap()[..] else { panic!("two blocks") };
        assert!(first == plain && second != plain);
        assert_ne!(of(&[&[Hashed(1)]]), of(&[&[Hashed(2)]]));
        assert_ne!(of(&[&[Hashed(1), Hashed(2)]]), of(&[&[Hashed(2), Hashed(1)]]));
    }

    #[test]
    fn media_are_tiers() {
        let of = |medium| tier(&Place { medium, ..Place::default() });
        assert_eq!((of(None), of(Some("GPU")), of(Some("cpu"))), (Ok(Tier::Gpu), Ok(Tier::Gpu), Ok(Tier::Cpu)));
        assert_eq!((of(Some("STORAGE")), of(Some("TAPE"))), (Ok(Tier::Storage), Err(SkipReason::Medium)));
    }

    fn groups(places: &[(u32, Option<&'static str>, Option<u32>, u32)]) -> Groups {
        let event = |&(group, attention, window, block_size): &(u32, _, _, _)| {
            let place = Place { group: Some(group), attention, window, ..Place::default() };
            Event::Stored(Stored { block_size, place, ..stored(None, None, &[]) })
        };
        let batch = Batch { seconds: 0.0, events: places.iter().map(event).collect(), rank: None };
        let mut groups = Groups::default();
        groups.look(&batch, BlockSize::DEFAULT);
        groups
    }

    #[test]
    fn a_hit_needs_of_each_group_what_its_attention_reaches() {
        const FULL: Option<&str> = Some("full_attention");
        let gemma = groups(&[(0, Some("sliding_window"), Some(1024), 16), (1, FULL, None, 16), (2, FULL, None, 16)]);
        let of = |group| gemma.of(Some(group));
        assert_eq!((of(0), of(1)), (Group::Beside { needs_blocks: 64 }, Group::InIndex));
        assert_eq!((of(2), of(3)), (Group::Beside { needs_blocks: u32::MAX }, Group::Apart));
        assert!(!gemma.some_cannot_be_told());

        let mamba = groups(&[(0, FULL, None, 16), (1, Some("mamba"), None, 16), (2, Some("cross_attention"), None, 8)]);
        assert_eq!((mamba.of(Some(1)), mamba.of(Some(2))), (Group::Beside { needs_blocks: 1 }, Group::Apart));
        assert!(!mamba.some_cannot_be_told());
        let other_size = groups(&[(0, FULL, None, 16), (1, Some("mamba"), None, 512)]);
        assert!(other_size.some_cannot_be_told() && other_size.of(Some(1)) == Group::Apart);
        let windows_only = groups(&[(0, Some("sliding_window"), Some(64), 16)]);
        assert!(windows_only.some_cannot_be_told() && windows_only.of(Some(0)) == Group::Apart);
        // Before vLLM 0.22 there is no word on attention; before 0.20 none on groups.
        let old = groups(&[(0, None, None, 16)]);
        assert_eq!((old.of(Some(0)), old.of(None), old.some_cannot_be_told()), (Group::InIndex, Group::InIndex, false));
    }
}
