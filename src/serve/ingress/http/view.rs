//! What routing needs of a body, borrowed from it; the body itself stays as it came.
//!
//! Read as the engine reads it: of a key that comes twice the last one counts, unknown keys are passed over, and a value of
//! an unexpected type is the engine's to refuse, not ours.

mod prompts;
mod text;

use super::api::Api;
use crate::routing::block::{BlockSize, ContentHash};
use crate::routing::guessed_block;
use crate::serve::telemetry::labels::ByLoad;
use prompts::Prompts;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use text::Text;
use twox_hash::XxHash3_64;

/// A body, as far as routing looks.
#[derive(Debug, PartialEq)]
pub(in crate::serve) struct View<'a> {
    /// The model that is asked for.
    pub model: Option<Cow<'a, str>>,
    /// The tenant's salt.
    pub cache_salt: Option<Cow<'a, str>>,
    /// The conversation that it belongs to: `session_id` (vLLM's), or else `prompt_cache_key` (OpenAI's).
    pub session: Option<Cow<'a, str>>,
    /// The response that it goes on from.
    pub previous_response: Option<Cow<'a, str>>,
    /// vLLM's priority: lower is earlier.
    pub priority: Option<i64>,
    /// The prompt.
    pub prompt: Prompted<'a>,
}

/// A prompt, as far as it can be looked up.
#[derive(Debug, PartialEq)]
pub(in crate::serve) enum Prompted<'a> {
    /// Token ids, at least one.
    Tokens(Vec<u32>),
    /// Several prompts of token ids.
    Batch {
        /// The longest one.
        longest: Vec<u32>,
        /// How many tokens all of them have.
        all: usize,
    },
    /// What the engine makes tokens of.
    Text(Said<'a>),
    /// It cannot be looked up.
    ByLoad(ByLoad),
}

/// What a prompt says, as its bytes: those of the body where it holds messages, escapes and all.
#[derive(Debug, Default, PartialEq)]
pub(in crate::serve) struct Said<'a> {
    /// In the order in which the engine renders them. Of several prompts the longest.
    parts: Vec<Cow<'a, [u8]>>,
    /// Bytes of all prompts.
    all: usize,
    /// Whether there are several prompts.
    pub is_batch: bool,
}

/// Bytes a token, about, in most languages and tokenizers.
const TOKEN_BYTES: usize = 4;

impl<'a> Said<'a> {
    /// One text.
    pub fn of(text: Cow<'a, [u8]>) -> Self {
        Said { all: text.len(), parts: vec![text], is_batch: false }
    }

    fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum()
    }

    /// Tokens of all prompts together, estimated: by the tokens of the longest one, where they are known.
    pub fn tokens(&self, of_longest: Option<usize>) -> u32 {
        let tokens = match of_longest {
            Some(tokens) => (tokens as u128 * self.all as u128 / self.bytes().max(1) as u128) as u64,
            None => (self.all / TOKEN_BYTES) as u64,
        };
        u32::try_from(tokens).unwrap_or(u32::MAX).max(1)
    }

    /// Stand-ins for the content of its blocks: texts that begin alike begin with the same ones.
    pub fn contents(&self, block_size: BlockSize) -> Vec<ContentHash> {
        let chunk = guessed_block(block_size).tokens() as usize * TOKEN_BYTES;
        let last = self.parts.len().saturating_sub(1);
        let hashed = self.parts.iter().enumerate().flat_map(|(at, part)| {
            // What comes before the conversation (tools, a system prompt) counts to its last byte.
            let end = if at == last { part.len() / chunk * chunk } else { part.len() };
            part[..end].chunks(chunk)
        });
        hashed.map(|bytes| ContentHash(XxHash3_64::oneshot(bytes))).collect()
    }
}

impl Prompted<'_> {
    fn length(&self) -> usize {
        match self {
            Prompted::Tokens(tokens) => tokens.len(),
            Prompted::Batch { all, .. } => *all,
            Prompted::Text(said) => said.all,
            Prompted::ByLoad(_) => 0,
        }
    }
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

/// The fields that a chat is rendered from, in the order in which they come in most templates.
const SAYING: [&str; 6] = ["tools", "system", "instructions", "input", "messages", "prompt"];

impl<'de> Visitor<'de> for Object {
    type Value = View<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<View<'de>, A::Error> {
        let (mut model, mut cache_salt, mut session, mut cache_key) = (None, None, None, None);
        let (mut prompt, mut previous_response, mut altered, mut priority) = (None, None, false, None);
        let mut said: [Option<&'de [u8]>; SAYING.len()] = [None; SAYING.len()];
        while let Some(key) = map.next_key_seed(Text)? {
            let key = key.as_deref().unwrap_or_default();
            match key {
                "model" => model = map.next_value_seed(Text)?,
                "cache_salt" => cache_salt = map.next_value_seed(Text)?,
                "session_id" => session = map.next_value_seed(Text)?,
                "prompt_cache_key" => cache_key = map.next_value_seed(Text)?,
                "previous_response_id" => previous_response = map.next_value_seed(Text)?,
                "priority" => priority = map.next_value::<&RawValue>()?.get().parse().ok(),
                key if Some(key) == self.prompt_field => prompt = Some(map.next_value_seed(Prompts)?),
                // The engine computes something else than the tokens that stand here.
                "truncate_prompt_tokens" | "features" | "prompt_embeds" => {
                    altered |= map.next_value::<Option<IgnoredAny>>()?.is_some();
                }
                key => match SAYING.iter().position(|&saying| saying == key) {
                    Some(at) => said[at] = Some(map.next_value::<&RawValue>()?.get().as_bytes()),
                    None => {
                        map.next_value::<IgnoredAny>()?;
                    }
                },
            }
        }
        let speaks = said[SPEECH..].iter().any(|part| part.is_some_and(|part| part != b"null"));
        let prompt = match prompt {
            _ if altered => Prompted::ByLoad(ByLoad::Content),
            Some(prompt) => prompt,
            None if speaks => {
                let parts: Vec<Cow<'de, [u8]>> = said.into_iter().flatten().map(Cow::Borrowed).collect();
                let all = parts.iter().map(|part| part.len()).sum();
                Prompted::Text(Said { parts, all, is_batch: false })
            }
            None => Prompted::ByLoad(ByLoad::NoPrompt),
        };
        let session = session.or(cache_key);
        Ok(View { model, cache_salt, session, previous_response, priority, prompt })
    }
}

/// From here on what is said is a prompt; before it only goes with one.
const SPEECH: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(api: Api, body: &str, expected: &str) {
        let said = match View::of(body.as_bytes(), api) {
            None => "nothing".to_owned(),
            Some(View { model, cache_salt, prompt, .. }) => {
                let prompt = match prompt {
                    Prompted::Tokens(tokens) => format!("{tokens:?}"),
                    Prompted::Batch { longest, all } => format!("{longest:?} of {all}"),
                    Prompted::Text(said) if said.is_batch => format!("Text of {}", said.all),
                    Prompted::Text(_) => "Text".to_owned(),
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
            (r#"{"model": "m", "prompt": [[1], [2, 3]]}"#, "m - [2, 3] of 3"),
            (r#"{"model": "m", "prompt": "It was"}"#, "m - Text"),
            (r#"{"model": "m", "prompt": ["It was"]}"#, "m - Text"),
            (r#"{"model": "m", "prompt": ["It", "was"]}"#, "m - Text of 5"),
            (r#"{"model": "m", "prompt": ["It", [1]]}"#, "m - Content"),
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

    #[test]
    fn what_names_the_session() {
        for (body, expected) in [
            (r#"{"session_id": "a", "prompt_cache_key": "b"}"#, Some("a")),
            (r#"{"prompt_cache_key": "b", "user": "c"}"#, Some("b")),
            (r#"{"session_id": null, "user": "c"}"#, None),
        ] {
            assert_eq!(View::of(body.as_bytes(), Api::Chat).unwrap().session.as_deref(), expected, "{body}");
        }
    }

    #[test]
    fn texts_that_begin_alike_begin_with_the_same_contents() {
        let contents = |body: &str| match View::of(body.as_bytes(), Api::Chat).unwrap().prompt {
            Prompted::Text(said) => said.contents(BlockSize::DEFAULT),
            other => panic!("{other:?}"),
        };
        let turn = |text: &str| format!(r#"{{"role": "user", "content": "{text}"}}"#);
        let (first, second) = (turn(&"once ".repeat(420)), turn(&"upon ".repeat(420)));
        let short = contents(&format!(r#"{{"messages": [{first}], "model": "m"}}"#));
        let long = contents(&format!(r#"{{"temperature": 0, "messages": [{first}, {second}]}}"#));
        assert!(short.len() == 8 && long.len() > 15 && long[..8] == short, "{} {}", short.len(), long.len());
        let tools = contents(&format!(r#"{{"messages": [{first}], "tools": [1]}}"#));
        assert!(tools.len() == 9 && tools[0] != short[0] && tools[1..] == short);
    }
}
