//! A prompt: token ids, a text, or a list of either.

use super::text::otherwise;
use super::{Prompted, Said};
use crate::serve::telemetry::labels::ByLoad;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// Reads one.
pub(super) struct Prompts;

impl<'de> DeserializeSeed<'de> for Prompts {
    type Value = Prompted<'de>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Prompted<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Prompts {
    type Value = Prompted<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }
    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Prompted<'de>, E> {
        Ok(Prompted::Text(Said::of(Cow::Borrowed(text.as_bytes()))))
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Prompted<'de>, E> {
        Ok(Prompted::Text(Said::of(Cow::Owned(text.as_bytes().to_vec()))))
    }
    fn visit_u64<E: Error>(self, _: u64) -> Result<Prompted<'de>, E> {
        Ok(Prompted::ByLoad(ByLoad::NoPrompt))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Prompted<'de>, A::Error> {
        let (mut tokens, mut batch) = (Vec::new(), Batch::default());
        while let Some(item) = seq.next_element_seed(Items)? {
            match item {
                Item::Token(token) => tokens.push(token),
                Item::Prompt(prompt) => batch.add(prompt),
            }
        }
        Ok(match (tokens.is_empty(), batch.prompts) {
            (false, 0) => Prompted::Tokens(tokens),
            (true, 0) => Prompted::ByLoad(ByLoad::NoPrompt),
            (true, _) => batch.done(),
            (false, _) => Prompted::ByLoad(ByLoad::Content),
        })
    }
    otherwise!('de, Prompted::ByLoad(ByLoad::NoPrompt));
}

/// Several prompts, of which the longest is kept.
#[derive(Default)]
struct Batch<'a> {
    prompts: usize,
    longest: Option<Prompted<'a>>,
    all: usize,
    mixed: bool,
}

impl<'a> Batch<'a> {
    fn add(&mut self, prompt: Prompted<'a>) {
        self.prompts += 1;
        self.all += prompt.length();
        self.mixed |= self
            .longest
            .as_ref()
            .is_some_and(|longest| std::mem::discriminant(longest) != std::mem::discriminant(&prompt));
        if self.longest.as_ref().is_none_or(|longest| longest.length() < prompt.length()) {
            self.longest = Some(prompt);
        }
    }

    /// A batch of one is that one.
    fn done(self) -> Prompted<'a> {
        match self.longest {
            _ if self.mixed => Prompted::ByLoad(ByLoad::Content),
            Some(one) if self.prompts == 1 => one,
            Some(Prompted::Tokens(longest)) => Prompted::Batch { longest, all: self.all },
            Some(Prompted::Text(said)) => Prompted::Text(Said { all: self.all, is_batch: true, ..said }),
            Some(other) => other,
            None => Prompted::ByLoad(ByLoad::NoPrompt),
        }
    }
}

enum Item<'a> {
    Token(u32),
    Prompt(Prompted<'a>),
}

struct Items;

impl<'de> DeserializeSeed<'de> for Items {
    type Value = Item<'de>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Item<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Items {
    type Value = Item<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }
    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Item<'de>, E> {
        Prompts.visit_borrowed_str(text).map(Item::Prompt)
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Item<'de>, E> {
        Prompts.visit_str(text).map(Item::Prompt)
    }
    fn visit_u64<E: Error>(self, token: u64) -> Result<Item<'de>, E> {
        let token = u32::try_from(token).map(Item::Token);
        Ok(token.unwrap_or(Item::Prompt(Prompted::ByLoad(ByLoad::Content))))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Item<'de>, A::Error> {
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
