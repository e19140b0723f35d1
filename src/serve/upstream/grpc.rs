//! What a gRPC exchange tells that is passed on as bytes: the messages in its frames, its status, how many tokens came.
//!
//! A frame is a byte that says whether it is compressed, four for the length, and the message; a call of vLLM's takes one. Source:
//! github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md.

use crate::config::Protocol;
use crate::serve::protobuf::{Fields, Malformed, Value, extend_u32, number_field};
use axum::body::Bytes;
use axum::http::{HeaderMap, Uri};
use tonic::Code;

/// The bytes before a message.
const PREFIX: usize = 5;
/// A longer message of an answer is passed on without a look: nothing that counts tokens is so long.
const LOOK_MAX: usize = 1 << 20;

/// The path of the call that generates.
pub(in crate::serve) const GENERATE: &str = "/vllm.grpc.engine.VllmEngine/Generate";
/// The path of the call that asks for health.
pub(in crate::serve) const HEALTH_CHECK: &str = "/vllm.grpc.engine.VllmEngine/HealthCheck";
/// The path of the call that hands out the tokenizer.
pub(in crate::serve) const GET_TOKENIZER: &str = "/vllm.grpc.engine.VllmEngine/GetTokenizer";
/// `GenerateRequest.data_parallel_rank`
pub(in crate::serve) const RANK_FIELD: u64 = 9;

/// The message of a body that holds one, not compressed.
pub(in crate::serve) fn message(body: &[u8]) -> Option<&[u8]> {
    let (prefix, message) = body.split_at_checked(PREFIX)?;
    (prefix[0] == 0 && length(prefix) == message.len()).then_some(message)
}

/// The messages of a body that holds several, none of them compressed; `None` in the place of one that cannot be read, and then
/// nothing more.
pub(in crate::serve) fn messages(mut body: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    std::iter::from_fn(move || {
        if body.is_empty() {
            return None;
        }
        let next = body.split_at_checked(PREFIX).and_then(|(prefix, rest)| {
            let (message, rest) = rest.split_at_checked(length(prefix))?;
            (prefix[0] == 0).then_some((message, rest))
        });
        body = next.map_or(&[], |(_, rest)| rest);
        Some(next.map(|(message, _)| message))
    })
}

/// A message in its frame.
pub(in crate::serve) fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("bodies are bounded far below 4 GiB");
    [&[0], &length.to_be_bytes()[..], message].concat().into()
}

/// What a call is sent as to one of several ranks: a message that names no rank gets one more field, after all that came.
/// `vllm.Inference` is told by a header instead.
pub(super) fn pinned(protocol: Protocol, uri: &Uri, body: &Bytes, rank: Option<u32>) -> Bytes {
    match (protocol, rank, message(body)) {
        (Protocol::VllmEngine, Some(rank), Some(message)) if uri.path() == GENERATE && !names_rank(message) => {
            framed(&[message, &number_field(RANK_FIELD, rank.into())].concat())
        }
        _ => body.clone(),
    }
}

fn names_rank(message: &[u8]) -> bool {
    Fields(message).any(|field| matches!(field, Ok((RANK_FIELD, _))))
}

/// A call's status, from its trailers or from a head without a body.
pub(in crate::serve) fn code(headers: &HeaderMap) -> Option<Code> {
    headers.get("grpc-status").map(|status| Code::from_bytes(status.as_bytes()))
}

/// Whether a call failed by the instance's fault, rather than by the caller's, or by nobody's.
pub(super) fn is_fault(code: Code) -> bool {
    match code {
        Code::Unknown | Code::Internal | Code::Unavailable | Code::DataLoss => true,
        Code::Ok
        | Code::Cancelled
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Unauthenticated => false,
    }
}

/// Watches the messages of one answer, wherever chunks are cut.
pub(super) struct Observer {
    protocol: Protocol,
    /// A frame that did not come whole yet.
    begun: Vec<u8>,
    /// What is left of a frame that is not looked at.
    skip: usize,
    messages: u32,
    has_tokens: bool,
    chunk_tokens: u32,
    complete_tokens: u32,
    cached_tokens: Option<u32>,
}

impl Observer {
    pub fn new(protocol: Protocol) -> Self {
        Observer {
            protocol,
            begun: Vec::new(),
            skip: 0,
            messages: 0,
            has_tokens: false,
            chunk_tokens: 0,
            complete_tokens: 0,
            cached_tokens: None,
        }
    }

    /// A chunk passes.
    pub fn saw(&mut self, chunk: &[u8]) {
        if self.begun.is_empty() {
            let left = self.look(chunk);
            self.begun.extend_from_slice(left);
            return;
        }
        // The rest of what was begun, and whatever comes after it.
        let mut begun = std::mem::take(&mut self.begun);
        begun.extend_from_slice(chunk);
        let left = self.look(&begun).len();
        begun.drain(..begun.len() - left);
        self.begun = begun;
    }

    /// Whether a token came.
    pub fn has_tokens(&self) -> bool {
        self.has_tokens
    }

    /// Tokens generated: those that streamed, or those that the end tells, whichever are more.
    pub fn output_tokens(&self) -> u32 {
        self.chunk_tokens.max(self.complete_tokens)
    }

    /// Prompt tokens that the engine says to have had cached.
    pub fn cached_tokens(&self) -> Option<u32> {
        self.cached_tokens
    }

    /// Looks at all whole frames; what is left of the bytes.
    fn look<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let Some((prefix, rest)) = bytes.split_at_checked(PREFIX) else {
                return bytes;
            };
            let (compressed, length) = (prefix[0] != 0, length(prefix));
            if compressed || length > LOOK_MAX {
                self.messages += 1;
                self.has_tokens = true;
                self.skip = length;
                bytes = rest;
                continue;
            }
            let Some((message, rest)) = rest.split_at_checked(length) else {
                return bytes;
            };
            self.messages += 1;
            // What cannot be read is the client's to make sense of.
            let _ = self.read(message);
            bytes = rest;
        }
    }

    fn read(&mut self, message: &[u8]) -> Result<(), Malformed> {
        for field in Fields(message) {
            match (self.protocol, field?) {
                (Protocol::VllmEngine, (1, Value::Bytes(chunk))) => {
                    let [_, _, cached, _] = self.count(chunk, 1)?;
                    self.cached_tokens = self.cached_tokens.max(cached);
                }
                (Protocol::VllmEngine, (2, Value::Bytes(complete))) => {
                    let [_, _, completion, cached] = self.count(complete, 0)?;
                    self.has_tokens = true;
                    self.complete_tokens = self.complete_tokens.saturating_add(completion.unwrap_or(0));
                    // A number that is zero is not written.
                    self.cached_tokens = self.cached_tokens.max(cached).or(Some(0));
                }
                (Protocol::Inference, (2, Value::Bytes(outputs))) => {
                    let [_, tokens, ..] = self.count(outputs, 0)?;
                    let tokens = tokens.unwrap_or(0);
                    self.has_tokens |= tokens > 0;
                    self.chunk_tokens = self.chunk_tokens.saturating_add(tokens);
                }
                (Protocol::OpenAi | Protocol::VllmEngine | Protocol::Inference, _) => {}
            }
        }
        Ok(())
    }

    /// The numbers in fields 2 to 5; tokens in the field `ids` are counted as streamed.
    fn count(&mut self, message: &[u8], ids: u64) -> Result<[Option<u32>; 4], Malformed> {
        let mut numbers = [None; 4];
        for field in Fields(message) {
            match field? {
                (number, value) if number == ids => {
                    let mut tokens = Vec::new();
                    extend_u32(&mut tokens, value)?;
                    self.has_tokens |= !tokens.is_empty();
                    self.chunk_tokens = self.chunk_tokens.saturating_add(tokens.len() as u32);
                }
                (number @ 2..=5, Value::Varint(value)) => {
                    numbers[number as usize - 2] = Some(u32::try_from(value).unwrap_or(u32::MAX));
                }
                _ => {}
            }
        }
        Ok(numbers)
    }
}

fn length(prefix: &[u8]) -> usize {
    u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers of vLLM 0.32.0, captured on the wire.
    const STREAM: [&str; 5] = [
        "0a080a02e20110461801",
        "0a080a02af0310461801",
        "0a080a02e20110461801",
        "0a080a02af0310461801",
        "12100a02af0312066c656e67746818462001",
    ];
    const WHOLE: [&str; 1] = ["12180a08e201af03e201af0312066c656e677468184620042840"];
    const INFERENCE: [&str; 5] = [
        "0a020846",
        "120912017f18012202e201",
        "120e120620746f6b796f18012202af03",
        "120912017f18012202e201",
        "1216120620746f6b796f18012202af034206080410014840",
    ];

    fn body(messages: &[&str]) -> Vec<u8> {
        let byte = |hex: &[u8]| u8::from_str_radix(std::str::from_utf8(hex).unwrap(), 16).unwrap();
        let messages = messages.iter().map(|hex| hex.as_bytes().chunks(2).map(byte).collect::<Vec<u8>>());
        messages.flat_map(|message| framed(&message)).collect()
    }

    #[test]
    fn captured_answers_tell_the_same_wherever_they_are_cut() {
        for (protocol, messages, tokens, cached) in [
            (Protocol::VllmEngine, &STREAM[..], 4, Some(0)),
            (Protocol::VllmEngine, &WHOLE[..], 4, Some(64)),
            (Protocol::Inference, &INFERENCE[..], 4, None),
        ] {
            let body = body(messages);
            for size in 1..=body.len() {
                let mut observer = Observer::new(protocol);
                body.chunks(size).for_each(|chunk| observer.saw(chunk));
                let told = (observer.output_tokens(), observer.cached_tokens(), observer.messages as usize);
                assert_eq!(told, (tokens, cached, messages.len()), "{protocol:?} in chunks of {size}");
            }
        }
    }

    #[test]
    fn the_prompt_of_an_answer_is_no_token() {
        let mut observer = Observer::new(Protocol::Inference);
        observer.saw(&body(&INFERENCE[..1]));
        assert!(!observer.has_tokens());
        observer.saw(&body(&INFERENCE[1..2]));
        assert!(observer.has_tokens());
    }

    #[test]
    fn what_is_compressed_or_long_is_passed_over() {
        let mut observer = Observer::new(Protocol::VllmEngine);
        let mut stream = vec![1, 0, 0, 0, 3, 9, 9, 9];
        stream.extend(framed(&vec![0x0a; LOOK_MAX + 1]));
        stream.extend(body(&WHOLE));
        stream.chunks(1000).for_each(|chunk| observer.saw(chunk));
        assert_eq!((observer.messages, observer.output_tokens()), (3, 4));
    }

    #[test]
    fn a_rank_is_added_where_none_is_named() {
        let uri: Uri = GENERATE.parse().unwrap();
        let plain = framed(b"\x0a\x01r");
        let pinned_to_2 = pinned(Protocol::VllmEngine, &uri, &plain, Some(2));
        assert_eq!(message(&pinned_to_2), Some(&b"\x0a\x01r\x48\x02"[..]));
        assert_eq!(pinned(Protocol::VllmEngine, &uri, &pinned_to_2, Some(1)), pinned_to_2);
        assert_eq!(pinned(Protocol::VllmEngine, &uri, &plain, None), plain);
        assert_eq!(pinned(Protocol::Inference, &uri, &plain, Some(1)), plain);
        let other: Uri = HEALTH_CHECK.parse().unwrap();
        assert_eq!(pinned(Protocol::VllmEngine, &other, &plain, Some(1)), plain);
    }
}
