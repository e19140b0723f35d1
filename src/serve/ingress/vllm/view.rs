//! What routing needs to know of a message, looked at where it lies.

use crate::serve::protobuf::{Fields, Malformed, Value, extend_u32};
use crate::serve::telemetry::labels::ByLoad;
use crate::serve::upstream::grpc::RANK_FIELD;

/// Which message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `vllm.grpc.engine.GenerateRequest`
    EngineGenerate,
    /// `vllm.grpc.engine.EmbedRequest`
    EngineEmbed,
    /// `vllm.GenerateRequest`
    Inference,
}

/// A request, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View<'a> {
    pub model: Option<&'a str>,
    pub lora: Option<&'a str>,
    pub cache_salt: Option<&'a str>,
    pub session: Option<&'a str>,
    /// The data-parallel rank that it insists on.
    pub rank: Option<u32>,
    pub prompt: Prompted<'a>,
}

/// What is to be computed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Prompted<'a> {
    Tokens(Vec<u32>),
    Text(&'a str),
    /// Nothing that can be looked up.
    ByLoad(ByLoad),
    #[default]
    Missing,
}

impl<'a> View<'a> {
    /// What is seen in a message.
    pub fn of(kind: Kind, message: &'a [u8]) -> Result<Self, Malformed> {
        let mut view = View::default();
        let mut by_load = None;
        for field in Fields(message) {
            let (number, value) = field?;
            match (kind, number, value) {
                (Kind::EngineGenerate | Kind::EngineEmbed, 2, Value::Bytes(tokenized)) => {
                    view.prompt = Prompted::Tokens(numbers(tokenized, 2)?);
                }
                (Kind::EngineGenerate, 3, Value::Bytes(text)) => view.prompt = Prompted::Text(string(text)?),
                // Images: the tokens stand in for them and are the same for each.
                (Kind::EngineGenerate, 7 | 10 | 11, _) => by_load = Some(ByLoad::Content),
                (Kind::EngineGenerate, 4, Value::Bytes(sampling)) if has(sampling, 27)? => {
                    by_load = Some(ByLoad::Content)
                }
                (Kind::EngineGenerate, RANK_FIELD, Value::Varint(rank)) => view.rank = u32::try_from(rank).ok(),
                (Kind::Inference, 2, Value::Bytes(model)) => {
                    view.model = Some(string(model)?).filter(|m| !m.is_empty())
                }
                (Kind::Inference, 3, Value::Bytes(text)) => view.prompt = Prompted::Text(string(text)?),
                (Kind::Inference, 4, Value::Bytes(ids)) => view.prompt = Prompted::Tokens(numbers(ids, 1)?),
                (Kind::Inference, 10, Value::Bytes(kv)) => {
                    view.cache_salt = text_field(kv, 2)?.filter(|s| !s.is_empty())
                }
                // What the engine cuts off is not known here, nor are images.
                (Kind::Inference, 11 | 14, _) => by_load = Some(ByLoad::Content),
                (Kind::Inference, 13, Value::Bytes(session)) => view.session = Some(string(session)?),
                (Kind::Inference, 15, Value::Bytes(lora)) => view.lora = Some(string(lora)?).filter(|l| !l.is_empty()),
                (Kind::EngineGenerate | Kind::EngineEmbed | Kind::Inference, ..) => {}
            }
        }
        if let Some(reason) = by_load {
            view.prompt = Prompted::ByLoad(reason);
        }
        Ok(view)
    }
}

fn numbers(message: &[u8], wanted: u64) -> Result<Vec<u32>, Malformed> {
    let mut numbers = Vec::new();
    for field in Fields(message) {
        let (number, value) = field?;
        if number == wanted {
            extend_u32(&mut numbers, value)?;
        }
    }
    Ok(numbers)
}

fn has(message: &[u8], wanted: u64) -> Result<bool, Malformed> {
    let mut found = false;
    for field in Fields(message) {
        found |= field?.0 == wanted;
    }
    Ok(found)
}

fn text_field(message: &[u8], wanted: u64) -> Result<Option<&str>, Malformed> {
    let mut text = None;
    for field in Fields(message) {
        match field? {
            (number, Value::Bytes(bytes)) if number == wanted => text = Some(string(bytes)?),
            _ => {}
        }
    }
    Ok(text)
}

fn string(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message;

    /// As the captures have it: 500, 499, ... and what surrounds them.
    fn engine(tokens: &[u32]) -> Vec<u8> {
        use crate::mock::proto::engine::{GenerateRequest, TokenizedInput, generate_request::Input};
        let tokenized = TokenizedInput { original_text: "x".to_owned(), input_ids: tokens.to_vec() };
        let input = Some(Input::Tokenized(tokenized));
        let request = GenerateRequest { request_id: "r".to_owned(), input, stream: true, ..GenerateRequest::default() };
        request.encode_to_vec()
    }

    #[test]
    fn a_captured_request_is_seen() {
        let hex =
            "0a06746f75722d311209120703f403f303ff0122190d00000000150000803f3d0000803f4004600168017001780128014802";
        let byte = |hex: &[u8]| u8::from_str_radix(std::str::from_utf8(hex).unwrap(), 16).unwrap();
        let message: Vec<u8> = hex.as_bytes().chunks(2).map(byte).collect();
        let view = View::of(Kind::EngineGenerate, &message).unwrap();
        assert_eq!(view.prompt, Prompted::Tokens(vec![3, 500, 499, 255]));
        assert_eq!(view.rank, Some(2));
    }

    #[test]
    fn what_is_not_known_changes_nothing_and_images_do() {
        let plain = engine(&[1, 2, 3]);
        let mut odd = plain.clone();
        odd.extend_from_slice(&[0xf2, 0x3f, 2, 7, 7]);
        assert_eq!(View::of(Kind::EngineGenerate, &odd), View::of(Kind::EngineGenerate, &plain));
        odd.extend_from_slice(&[0x3a, 0]);
        assert_eq!(View::of(Kind::EngineGenerate, &odd).unwrap().prompt, Prompted::ByLoad(ByLoad::Content));
        assert_eq!(View::of(Kind::EngineGenerate, &odd[..odd.len() - 1]), Err(Malformed));
    }

    #[test]
    fn the_rust_frontends_request_says_more() {
        use crate::mock::proto::inference::{GenerateRequest, KvCacheParameters, TokenIds, generate_request::Prompt};
        let request = GenerateRequest {
            model: "m".to_owned(),
            prompt: Some(Prompt::TokenIds(TokenIds { ids: vec![7, 8] })),
            kv: Some(KvCacheParameters { cache_salt: "s".to_owned(), ..KvCacheParameters::default() }),
            ..GenerateRequest::default()
        };
        let mut message = request.encode_to_vec();
        message.extend_from_slice(b"\x6a\x02se\x7a\x02lo");
        let view = View::of(Kind::Inference, &message).unwrap();
        assert_eq!(
            (view.model, view.cache_salt, view.session, view.lora),
            (Some("m"), Some("s"), Some("se"), Some("lo"))
        );
        assert_eq!(view.prompt, Prompted::Tokens(vec![7, 8]));
    }

    proptest! {
        #[test]
        fn tokens_are_read_as_prost_writes_them(tokens: Vec<u32>) {
            let message = engine(&tokens);
            prop_assert_eq!(View::of(Kind::EngineGenerate, &message).unwrap().prompt, Prompted::Tokens(tokens));
        }

        #[test]
        fn any_bytes_end(bytes: Vec<u8>) {
            for kind in [Kind::EngineGenerate, Kind::EngineEmbed, Kind::Inference] {
                let _ = View::of(kind, &bytes);
            }
        }
    }
}
