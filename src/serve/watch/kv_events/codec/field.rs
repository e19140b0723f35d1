//! The fields whose types vary: block hashes and extra keys.

use super::ExtraKey;
use crate::routing::block::EngineHash;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use twox_hash::XxHash3_64;

/// A block hash: an integer (the low 64 bits of a digest, by default), or the digest's bytes.
pub(super) struct Hash(pub EngineHash);

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(HashVisitor)
    }
}

struct HashVisitor;

impl Visitor<'_> for HashVisitor {
    type Value = Hash;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a block hash as an integer or as 8 bytes or more")
    }

    fn visit_u64<E: Error>(self, hash: u64) -> Result<Hash, E> {
        Ok(Hash(EngineHash(hash)))
    }

    /// The same 64 bits, sent as a signed integer.
    fn visit_i64<E: Error>(self, hash: i64) -> Result<Hash, E> {
        Ok(Hash(EngineHash(hash as u64)))
    }

    /// The low 64 bits of the digest: what the engine itself would have sent as an integer.
    fn visit_bytes<E: Error>(self, digest: &[u8]) -> Result<Hash, E> {
        let low = digest.last_chunk().ok_or_else(|| E::invalid_length(digest.len(), &self))?;
        Ok(Hash(EngineHash(u64::from_be_bytes(*low))))
    }
}

/// One list of keys a block; nil is the empty list.
pub(super) struct ExtraKeys<'a>(pub Vec<Vec<ExtraKey<'a>>>);

impl<'de: 'a, 'a> Deserialize<'de> for ExtraKeys<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let blocks = Vec::<Option<Vec<Key<'a>>>>::deserialize(deserializer)?;
        let keys = |block: Option<Vec<Key<'a>>>| block.into_iter().flatten().map(|key| key.0).collect();
        Ok(ExtraKeys(blocks.into_iter().map(keys).collect()))
    }
}

struct Key<'a>(ExtraKey<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KeyVisitor).map(Key)
    }
}

/// The hash of any value that is no text.
struct Hashed(u64);

impl<'de> Deserialize<'de> for Hashed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Hashed(match deserializer.deserialize_any(KeyVisitor)? {
            ExtraKey::Text(text) => hash(Kind::Text, text.as_bytes()),
            ExtraKey::Hashed(hash) => hash,
        }))
    }
}

struct KeyVisitor;

/// What a value is, so that equal bytes of different kinds differ.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Bytes,
    List,
    Integer,
    Float,
    Flag,
    Nil,
}

fn hash(kind: Kind, bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(kind as u64, bytes)
}

fn hashed<'a, E>(kind: Kind, bytes: &[u8]) -> Result<ExtraKey<'a>, E> {
    Ok(ExtraKey::Hashed(hash(kind, bytes)))
}

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = ExtraKey<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, an array, bytes or a number")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<ExtraKey<'de>, E> {
        Ok(ExtraKey::Text(text))
    }

    fn visit_bytes<E: Error>(self, digest: &[u8]) -> Result<ExtraKey<'de>, E> {
        hashed(Kind::Bytes, digest)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<ExtraKey<'de>, A::Error> {
        let mut list = Vec::new();
        while let Some(Hashed(element)) = seq.next_element()? {
            list.extend_from_slice(&element.to_le_bytes());
        }
        hashed(Kind::List, &list)
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<ExtraKey<'de>, A::Error> {
        let mut list = Vec::new();
        while let Some((Hashed(key), Hashed(value))) = map.next_entry()? {
            list.extend([key, value].iter().flat_map(|part| part.to_le_bytes()));
        }
        hashed(Kind::List, &list)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<ExtraKey<'de>, E> {
        hashed(Kind::Integer, &number.to_le_bytes())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<ExtraKey<'de>, E> {
        hashed(Kind::Integer, &number.to_le_bytes())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<ExtraKey<'de>, E> {
        hashed(Kind::Float, &number.to_le_bytes())
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<ExtraKey<'de>, E> {
        hashed(Kind::Flag, &[flag.into()])
    }

    fn visit_unit<E: Error>(self) -> Result<ExtraKey<'de>, E> {
        hashed(Kind::Nil, &[])
    }
}
