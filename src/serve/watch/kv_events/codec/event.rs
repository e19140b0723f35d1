//! One event, as a map or as an array.

use super::field::{ExtraKeys, Hash};
use super::{Event, Place, Removed, Stored};
use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

pub(super) struct EventSeed;

impl<'de> DeserializeSeed<'de> for EventSeed {
    type Value = Event<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Event<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for EventSeed {
    type Value = Event<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event as a map or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Event<'de>, A::Error> {
        let mut tag = None;
        let mut fields = Fields::default();
        // A field of a type that is not known here must not be able to fail the batch, so the type has to come first to
        // matter; vLLM's encoder writes it first.
        while let Some(key) = map.next_key::<&'de str>()? {
            match (key, tag) {
                ("type", None) => tag = Some(Tag::of(map.next_value()?)),
                (_, Some(Tag::Unknown)) => {
                    map.next_value::<IgnoredAny>()?;
                }
                (key, _) => match Field::of(key) {
                    Some(field) => fields.read_from_map(field, &mut map)?,
                    None => {
                        map.next_value::<IgnoredAny>()?;
                    }
                },
            }
        }
        fields.event(tag.ok_or_else(|| A::Error::missing_field("type"))?)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Event<'de>, A::Error> {
        let tag = Tag::of(seq.next_element()?.ok_or_else(|| A::Error::invalid_length(0, &self))?);
        let mut fields = Fields::default();
        for &field in tag.array_fields() {
            if !fields.read_from_seq(field, &mut seq)? {
                break;
            }
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        fields.event(tag)
    }
}

#[derive(Clone, Copy)]
enum Tag {
    Stored,
    Removed,
    Cleared,
    Unknown,
}

impl Tag {
    fn of(name: &str) -> Tag {
        match name {
            "BlockStored" => Tag::Stored,
            "BlockRemoved" => Tag::Removed,
            "AllBlocksCleared" => Tag::Cleared,
            _ => Tag::Unknown,
        }
    }

    /// The fields after the tag in the array layout, up to vLLM 0.23.
    fn array_fields(self) -> &'static [Field] {
        match self {
            Tag::Stored => &[
                Field::Hashes,
                Field::Parent,
                Field::Tokens,
                Field::BlockSize,
                Field::LoraId,
                Field::Medium,
                Field::LoraName,
                Field::ExtraKeys,
                Field::Group,
                Field::Attention,
                Field::Window,
            ],
            Tag::Removed => &[Field::Hashes, Field::Medium, Field::Group],
            Tag::Cleared | Tag::Unknown => &[],
        }
    }
}

#[derive(Clone, Copy)]
enum Field {
    Hashes,
    Parent,
    Tokens,
    BlockSize,
    LoraId,
    Medium,
    LoraName,
    ExtraKeys,
    Group,
    Attention,
    Window,
}

impl Field {
    /// The field of this name in the map layout.
    fn of(key: &str) -> Option<Field> {
        Some(match key {
            "block_hashes" => Field::Hashes,
            "parent_block_hash" => Field::Parent,
            "token_ids" => Field::Tokens,
            "block_size" => Field::BlockSize,
            "lora_id" => Field::LoraId,
            "medium" => Field::Medium,
            "lora_name" => Field::LoraName,
            "extra_keys" => Field::ExtraKeys,
            "group_idx" => Field::Group,
            "kv_cache_spec_kind" => Field::Attention,
            "kv_cache_spec_sliding_window" => Field::Window,
            _ => return None,
        })
    }
}

/// The fields of any event; nil and missing are the same.
#[derive(Default)]
struct Fields<'de> {
    hashes: Option<Vec<Hash>>,
    parent: Option<Hash>,
    tokens: Option<Vec<u32>>,
    block_size: Option<u32>,
    lora_name: Option<&'de str>,
    extra_keys: Option<ExtraKeys<'de>>,
    place: Place<'de>,
}

impl<'de> Fields<'de> {
    fn read_from_map<A: MapAccess<'de>>(&mut self, field: Field, map: &mut A) -> Result<(), A::Error> {
        match field {
            Field::Hashes => self.hashes = map.next_value()?,
            Field::Parent => self.parent = map.next_value()?,
            Field::Tokens => self.tokens = map.next_value()?,
            Field::BlockSize => self.block_size = map.next_value()?,
            Field::LoraId => drop(map.next_value::<IgnoredAny>()?),
            Field::Medium => self.place.medium = map.next_value()?,
            Field::LoraName => self.lora_name = map.next_value()?,
            Field::ExtraKeys => self.extra_keys = map.next_value()?,
            Field::Group => self.place.group = map.next_value()?,
            Field::Attention => self.place.attention = map.next_value()?,
            Field::Window => self.place.window = map.next_value()?,
        }
        Ok(())
    }

    /// `false` when the array ended before the field.
    fn read_from_seq<A: SeqAccess<'de>>(&mut self, field: Field, seq: &mut A) -> Result<bool, A::Error> {
        fn read<'de, T: serde::Deserialize<'de>, A: SeqAccess<'de>>(
            into: &mut Option<T>,
            seq: &mut A,
        ) -> Result<bool, A::Error> {
            let element = seq.next_element()?;
            let there = element.is_some();
            *into = element.flatten();
            Ok(there)
        }
        match field {
            Field::Hashes => read(&mut self.hashes, seq),
            Field::Parent => read(&mut self.parent, seq),
            Field::Tokens => read(&mut self.tokens, seq),
            Field::BlockSize => read(&mut self.block_size, seq),
            Field::LoraId => Ok(seq.next_element::<IgnoredAny>()?.is_some()),
            Field::Medium => read(&mut self.place.medium, seq),
            Field::LoraName => read(&mut self.lora_name, seq),
            Field::ExtraKeys => read(&mut self.extra_keys, seq),
            Field::Group => read(&mut self.place.group, seq),
            Field::Attention => read(&mut self.place.attention, seq),
            Field::Window => read(&mut self.place.window, seq),
        }
    }

    fn event<E: Error>(self, tag: Tag) -> Result<Event<'de>, E> {
        let hashes = || E::missing_field("block_hashes");
        Ok(match tag {
            Tag::Stored => Event::Stored(Stored {
                blocks: self.hashes.ok_or_else(hashes)?.into_iter().map(|hash| hash.0).collect(),
                parent: self.parent.map(|hash| hash.0),
                tokens: self.tokens.ok_or_else(|| E::missing_field("token_ids"))?,
                block_size: self.block_size.ok_or_else(|| E::missing_field("block_size"))?,
                lora_name: self.lora_name,
                extra_keys: self.extra_keys.map(|keys| keys.0).unwrap_or_default(),
                place: self.place,
            }),
            Tag::Removed => Event::Removed(Removed {
                blocks: self.hashes.ok_or_else(hashes)?.into_iter().map(|hash| hash.0).collect(),
                place: self.place,
            }),
            Tag::Cleared => Event::Cleared,
            Tag::Unknown => Event::Unknown,
        })
    }
}
