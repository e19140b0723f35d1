//! What routing needs of a body, borrowed from it; the body itself stays as it came.
//!
//! Read as the engine reads it: of a key that comes twice the last one counts, unknown keys are passed over, and a value of
//! an unexpected type is the engine's to refuse, not ours.

use super::api::Api;
use crate::serve::telemetry::labels::ByLoad;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// A body, as far as routing looks.
#[derive(Debug, PartialEq)]
pub(in crate::serve) struct View<'a> {
    /// The model that is asked for.
    pub model: Option<Cow<'a, str>>,
    /// The tenant's salt.
    pub cache_salt: Option<Cow<'a, str>>,
    /// The prompt.
    pub prompt: Prompted,
}

/// A prompt, as far as it can be looked up.
#[derive(Debug, PartialEq)]
pub(in crate::serve) enum Prompted {
    /// Token ids, at least one.
    Tokens(Vec<u32>),
    /// It cannot be looked up.
    ByLoad(ByLoad),
}

impl<'a> View<'a> {
    /// `None` when the body is not a JSON object.
    pub fn of(body: &'a [u8], api: Api) -> Option<View<'a>> {
        let mut deserializer = serde_json::Deserializer::from_slice(body);
        let view = deserializer.deserialize_map(Object { prompt_field: api.prompt_field() }).ok()?;
        deserializer.end().ok()?;
        Some(view)
    }
}

struct Object {
    prompt_field: Option<&'static str>,
}

impl<'de> Visitor<'de> for Object {
    type Value = View<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<View<'de>, A::Error> {
        let (mut model, mut cache_salt, mut prompt) = (None, None, None);
        let (mut says, mut altered) = (false, false);
        while let Some(key) = map.next_key_seed(Text)? {
            match key.as_deref().unwrap_or_default() {
                "model" => model = map.next_value_seed(Text)?,
                "cache_salt" => cache_salt = map.next_value_seed(Text)?,
                key if Some(key) == self.prompt_field => prompt = Some(map.next_value_seed(Prompts)?),
                "messages" | "input" | "prompt" => {
                    says = true;
                    map.next_value::<IgnoredAny>()?;
                }
                // The engine computes something else than the tokens that stand here.
                "truncate_prompt_tokens" | "features" | "prompt_embeds" => {
                    altered |= map.next_value::<Option<IgnoredAny>>()?.is_some();
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let prompt = match prompt {
            _ if altered => Prompted::ByLoad(ByLoad::Content),
            Some(prompt) => prompt,
            None if says => Prompted::ByLoad(ByLoad::Text),
            None => Prompted::ByLoad(ByLoad::NoPrompt),
        };
        Ok(View { model, cache_salt, prompt })
    }
}

/// A text, or `None` for anything else.
struct Text;

/// Passes over what is not wanted, whatever it is.
macro_rules! otherwise {
    ($lifetime:lifetime, $value:expr) => {
        fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
            Ok($value)
        }
        fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
            Ok($value)
        }
        fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
            Ok($value)
        }
        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok($value)
        }
        fn visit_map<A: MapAccess<$lifetime>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok($value)
        }
    };
}

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Option<Cow<'de, str>>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Option<Cow<'de, str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }
    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Some(Cow::Borrowed(text)))
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(Cow::Owned(text.to_owned())))
    }
    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }
    otherwise!('de, None);
}

/// A prompt: token ids, a text, or a list of either.
struct Prompts;

impl<'de> DeserializeSeed<'de> for Prompts {
    type Value = Prompted;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Prompted, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Prompts {
    type Value = Prompted;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }
    fn visit_str<E: Error>(self, _: &str) -> Result<Prompted, E> {
        Ok(Prompted::ByLoad(ByLoad::Text))
    }
    fn visit_u64<E: Error>(self, _: u64) -> Result<Prompted, E> {
        Ok(Prompted::ByLoad(ByLoad::NoPrompt))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Prompted, A::Error> {
        let (mut tokens, mut prompts, mut first) = (Vec::new(), 0usize, None);
        while let Some(item) = seq.next_element_seed(Items)? {
            match item {
                Item::Token(token) => tokens.push(token),
                Item::Prompt(prompt) => {
                    prompts += 1;
                    first.get_or_insert(prompt);
                }
            }
        }
        Ok(match (tokens.is_empty(), prompts) {
            (false, 0) => Prompted::Tokens(tokens),
            // A batch of one is that one.
            (true, 1) => first.unwrap_or(Prompted::ByLoad(ByLoad::NoPrompt)),
            (true, 0) => Prompted::ByLoad(ByLoad::NoPrompt),
            (true, _) => Prompted::ByLoad(ByLoad::Batch),
            (false, _) => Prompted::ByLoad(ByLoad::Content),
        })
    }
    otherwise!('de, Prompted::ByLoad(ByLoad::NoPrompt));
}

enum Item {
    Token(u32),
    Prompt(Prompted),
}

struct Items;

impl<'de> DeserializeSeed<'de> for Items {
    type Value = Item;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Item, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Items {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }
    fn visit_str<E: Error>(self, _: &str) -> Result<Item, E> {
        Ok(Item::Prompt(Prompted::ByLoad(ByLoad::Text)))
    }
    fn visit_u64<E: Error>(self, token: u64) -> Result<Item, E> {
        let token = u32::try_from(token).map(Item::Token);
        Ok(token.unwrap_or(Item::Prompt(Prompted::ByLoad(ByLoad::Content))))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Item, A::Error> {
        let (mut tokens, mut only_tokens) = (Vec::new(), true);
        // Lists of lists of lists are nothing that an engine takes.
        while let Some(token) = seq.next_element_seed(Tokens)? {
            match token {
                Some(token) => tokens.push(token),
                None => only_tokens = false,
            }
        }
        let usable = only_tokens && !tokens.is_empty();
        Ok(Item::Prompt(if usable { Prompted::Tokens(tokens) } else { Prompted::ByLoad(ByLoad::NoPrompt) }))
    }
    otherwise!('de, Item::Prompt(Prompted::ByLoad(ByLoad::Content)));
}

struct Tokens;

impl<'de> DeserializeSeed<'de> for Tokens {
    type Value = Option<u32>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<u32>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tokens {
    type Value = Option<u32>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }
    fn visit_str<E: Error>(self, _: &str) -> Result<Option<u32>, E> {
        Ok(None)
    }
    fn visit_u64<E: Error>(self, token: u64) -> Result<Option<u32>, E> {
        Ok(u32::try_from(token).ok())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Option<u32>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }
    otherwise!('de, None);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(api: Api, body: &str, expected: &str) {
        let said = match View::of(body.as_bytes(), api) {
            None => "nothing".to_owned(),
            Some(View { model, cache_salt, prompt }) => {
                let prompt = match prompt {
                    Prompted::Tokens(tokens) => format!("{tokens:?}"),
                    Prompted::ByLoad(reason) => format!("{reason:?}"),
                };
                [model.as_deref().unwrap_or("-"), cache_salt.as_deref().unwrap_or("-"), &prompt].join(" ")
            }
        };
        assert_eq!(said, expected, "{body}");
    }

    #[test]
    fn prompts_of_every_form() {
        for (body, expected) in [
            (r#"{"model": "m", "prompt": [1, 2, 3]}"#, "m - [1, 2, 3]"),
            (r#"{"model": "m", "prompt": [[1, 2, 3]], "cache_salt": "s"}"#, "m s [1, 2, 3]"),
            (r#"{"model": "m", "prompt": [[1], [2]]}"#, "m - Batch"),
            (r#"{"model": "m", "prompt": "It was"}"#, "m - Text"),
            (r#"{"model": "m", "prompt": ["It was"]}"#, "m - Text"),
            (r#"{"model": "m", "prompt": ["It", "was"]}"#, "m - Batch"),
            (r#"{"model": "m", "prompt": [1, "was"]}"#, "m - Content"),
            (r#"{"model": "m", "prompt": [-1]}"#, "m - Content"),
            (r#"{"model": "m", "prompt": [[-1, 2]]}"#, "m - NoPrompt"),
            (r#"{"model": "m", "prompt": [4294967296]}"#, "m - Content"),
            (r#"{"model": "m", "prompt": [1.5]}"#, "m - Content"),
            (r#"{"model": "m", "prompt": []}"#, "m - NoPrompt"),
            (r#"{"model": "m", "prompt": {"a": [1]}}"#, "m - NoPrompt"),
            (r#"{"model": "m", "prompt": null}"#, "m - NoPrompt"),
            (r#"{"model": "m", "prompt": [1], "truncate_prompt_tokens": 5}"#, "m - Content"),
            (r#"{"model": "m", "prompt": [1], "truncate_prompt_tokens": null}"#, "m - [1]"),
        ] {
            check(Api::Completions, body, expected);
        }
        check(Api::Generate, r#"{"token_ids": [7], "model": "m"}"#, "m - [7]");
        check(Api::Embeddings, r#"{"input": [7], "model": "m"}"#, "m - [7]");
        check(Api::Chat, r#"{"messages": [{"role": "user"}], "model": "m"}"#, "m - Text");
    }

    #[test]
    fn odd_bodies_are_read_as_the_engine_reads_them() {
        for (body, expected) in [
            (r#"{"model": "a", "prompt": [1], "model": "b", "prompt": [2]}"#, "b - [2]"),
            (r#"{"model": "\u0061\n", "prompt": [1], "what": {"deep": [[{}]]}}"#, "a\n - [1]"),
            (r#"{"model": 3, "prompt": [1], "cache_salt": null}"#, "- - [1]"),
            (r#"{"mod\u0065l": "m", "prompt": [1]}"#, "m - [1]"),
            ("[1]", "nothing"),
            ("", "nothing"),
            (r#"{"model": "m", "prompt": [1]"#, "nothing"),
            (r#"{"model": "m"} x"#, "nothing"),
        ] {
            check(Api::Completions, body, expected);
        }
    }
}
