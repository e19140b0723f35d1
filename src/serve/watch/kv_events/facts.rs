//! Which events can be told to the router, and as what.

use super::codec::{ExtraKey, Place, Stored};
use crate::routing::Parent;
use crate::routing::block::BlockSize;
use crate::serve::telemetry::labels::SkipReason;

/// Whether blocks in this place are what the index is about: GPU memory, first group, attention over the whole prompt.
pub(super) fn place(place: &Place<'_>) -> Result<(), SkipReason> {
    match place.medium {
        None | Some("GPU") => {}
        Some(_) => return Err(SkipReason::Medium),
    }
    if place.group.unwrap_or(0) > 0 {
        return Err(SkipReason::Group);
    }
    match place.attention {
        None | Some("full_attention" | "mla_attention") => Ok(()),
        Some(_) => Err(SkipReason::Attention),
    }
}

/// Where stored blocks are attached, or why they cannot be told.
pub(super) fn parent<'a>(stored: &Stored<'a>, block_size: BlockSize) -> Result<Parent<'a>, SkipReason> {
    place(&stored.place)?;
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

/// The one text among a block's keys besides the adapter's name.
fn plain_text<'a>(keys: &[ExtraKey<'a>], lora_name: Option<&str>) -> Result<Option<&'a str>, SkipReason> {
    let mut lora_name = lora_name;
    let mut found = None;
    for key in keys {
        match *key {
            // Only once: a salt may be spelt like the adapter.
            ExtraKey::Text(text) if Some(text) == lora_name => lora_name = None,
            ExtraKey::Text(text) if found.is_none() => found = Some(text),
            ExtraKey::Text(_) | ExtraKey::Other => return Err(SkipReason::Content),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::block::EngineHash;
    use ExtraKey::{Other, Text};

    fn check(lora: Option<&str>, parent_block: Option<u64>, keys: &[&[ExtraKey<'_>]], expected: &str) {
        let stored = Stored {
            blocks: vec![EngineHash(1); keys.len()],
            parent: parent_block.map(EngineHash),
            tokens: vec![0; keys.len() * 16],
            block_size: 16,
            lora_name: lora,
            extra_keys: keys.iter().map(|block| block.to_vec()).collect(),
            place: Place::default(),
        };
        let said = match parent(&stored, BlockSize::DEFAULT) {
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
        check(Some("ad1"), Some(7), &[&[Text("ad1")]], "after 7");
    }

    #[test]
    fn content_beyond_tokens_is_left_out() {
        check(None, None, &[&[Other]], "Content");
        check(None, None, &[&[], &[Other]], "Content");
        check(None, Some(7), &[&[Text("what")]], "Content");
        check(None, None, &[&[Text("salt"), Text("what")]], "Content");
    }

    #[test]
    fn only_the_first_group_of_full_attention_on_the_gpu_counts() {
        let place_of = |medium, group, attention| place(&Place { medium, group, attention });
        assert_eq!(place_of(None, None, None), Ok(()));
        assert_eq!(place_of(Some("GPU"), Some(0), Some("mla_attention")), Ok(()));
        assert_eq!(place_of(Some("CPU"), Some(0), None), Err(SkipReason::Medium));
        assert_eq!(place_of(Some("GPU"), Some(1), None), Err(SkipReason::Group));
        assert_eq!(place_of(Some("GPU"), Some(0), Some("sliding_window")), Err(SkipReason::Attention));
    }
}
