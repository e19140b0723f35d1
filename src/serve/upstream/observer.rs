//! What passing bytes tell: how many tokens were generated, how many came from the cache.
//!
//! Numbers are found by their key, wherever chunks are cut, in JSON and in server-sent events alike. A key inside a text that
//! the model wrote has its quotes escaped, so it is not mistaken for one. Nothing is parsed, kept or held up.

use memchr::memmem;

/// Watches the body of one answer.
#[derive(Default)]
pub(super) struct Observer {
    /// The end of what passed, in which a match may have begun.
    tail: Vec<u8>,
    /// Events that hold something.
    events: u32,
    output_tokens: Option<u32>,
    cached_tokens: Option<u32>,
    done: bool,
    /// Of a response that may be asked for again.
    response_id: Option<Vec<u8>>,
}

/// Longer than any key with the number after it.
const TAIL: usize = 64;
const RESPONSE_ID: &[u8] = b"\"id\":\"resp_";
/// Where the id of a response stands, if anywhere, and how long it is at most.
const ID_WITHIN: usize = 1024;
const ID_MAX: usize = 48;
const EVENT: &[u8] = b"data: {";
const DONE: &[u8] = b"data: [DONE]";
const OUTPUT_TOKENS: [&[u8]; 2] = [b"\"completion_tokens\":", b"\"output_tokens\":"];
/// OpenAI's name and Anthropic's.
const CACHED_TOKENS: [&[u8]; 2] = [b"\"cached_tokens\":", b"\"cache_read_input_tokens\":"];

impl Observer {
    /// A chunk passes.
    pub fn saw(&mut self, chunk: &[u8]) {
        let kept = self.tail.len();
        // Only what the tail could complete is looked at twice; the chunk itself is not copied.
        let mut seam = std::mem::take(&mut self.tail);
        seam.extend_from_slice(&chunk[..chunk.len().min(TAIL)]);
        if kept > 0 {
            self.look(&seam, kept);
        }
        self.look(chunk, 0);
        self.tail = match chunk.len() {
            long if long >= TAIL => chunk[long - TAIL..].to_vec(),
            _ => seam[seam.len().saturating_sub(TAIL)..].to_vec(),
        };
    }

    /// Tokens generated: the last number that was told, or else the number of events.
    pub fn output_tokens(&self) -> u32 {
        self.output_tokens.unwrap_or(self.events)
    }

    /// Prompt tokens that the engine says to have had cached.
    pub fn cached_tokens(&self) -> Option<u32> {
        self.cached_tokens
    }

    /// Whether an event came.
    pub fn has_events(&self) -> bool {
        self.events > 0
    }

    /// Whether the stream said that it is over.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// The id of the response that the answer begins with, once.
    pub fn response_id(&self) -> Option<&[u8]> {
        self.response_id.as_deref()
    }

    /// Looks at bytes of which the first `seen` were looked at before.
    fn look(&mut self, bytes: &[u8], seen: usize) {
        if self.response_id.is_none() {
            self.response_id = response_id(bytes);
        }
        for at in memmem::find_iter(bytes, EVENT) {
            // In a seam only what crosses it is new; JSON has no raw line feeds, so an event begins a line.
            let crosses = seen == 0 || (at < seen && at + EVENT.len() > seen);
            if crosses && (at == 0 || bytes[at - 1] == b'\n') {
                self.events += 1;
            }
        }
        self.done |= memmem::find(bytes, DONE).is_some();
        for key in OUTPUT_TOKENS {
            self.output_tokens = number_after(bytes, key).or(self.output_tokens);
        }
        for key in CACHED_TOKENS {
            self.cached_tokens = number_after(bytes, key).or(self.cached_tokens);
        }
    }
}

/// The id of a response that is told in these bytes, if all of it is there.
fn response_id(bytes: &[u8]) -> Option<Vec<u8>> {
    let start = &bytes[..bytes.len().min(ID_WITHIN)];
    // "resp_" is part of it.
    let id = &start[memmem::find(start, RESPONSE_ID)? + RESPONSE_ID.len() - 5..];
    let length = id.iter().take(ID_MAX).position(|&byte| byte == b'"')?;
    Some(id[..length].to_vec())
}

/// The number after the last occurrence of `key`, if all of it is there.
fn number_after(bytes: &[u8], key: &[u8]) -> Option<u32> {
    let after = &bytes[memmem::rfind(bytes, key)? + key.len()..];
    let after = after.trim_ascii_start();
    let digits = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 || digits == after.len() {
        return None;
    }
    std::str::from_utf8(&after[..digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = concat!(
        "data: {\"choices\":[{\"text\":\"a\"}]}\n\n",
        ": keep-alive\n\n",
        "data: {\"choices\":[{\"text\":\"\\\"completion_tokens\\\":99, data: {\"}]}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":40,\"completion_tokens\":17,",
        "\"prompt_tokens_details\":{\"cached_tokens\":32}}}\n\n",
        "data: [DONE]\n\n",
    );

    #[test]
    fn the_same_is_seen_wherever_the_stream_is_cut() {
        for size in 1..=STREAM.len() {
            let mut observer = Observer::default();
            STREAM.as_bytes().chunks(size).for_each(|chunk| observer.saw(chunk));
            assert_eq!((observer.output_tokens(), observer.cached_tokens()), (17, Some(32)), "{size}");
            assert!(observer.is_done() && observer.has_events(), "{size}");
        }
    }

    #[test]
    fn without_usage_events_are_counted() {
        let stream = "data: {\"a\":1}\n\ndata: {\"a\":2}\n\ndata: [DONE]\n\n";
        let mut observer = Observer::default();
        stream.as_bytes().chunks(15).for_each(|chunk| observer.saw(chunk));
        assert_eq!((observer.output_tokens(), observer.cached_tokens()), (2, None));
    }

    #[test]
    fn a_whole_answer_tells_its_usage() {
        let mut observer = Observer::default();
        observer.saw(b"{\"usage\": {\"output_tokens\": 5, \"input_tokens\": 3}}");
        assert_eq!(observer.output_tokens(), 5);
        observer.saw(b"{\"usage\":{\"cache_read_input_tokens\":64,\"input_tokens\":3,\"output_tokens\":7}}");
        assert_eq!((observer.output_tokens(), observer.cached_tokens()), (7, Some(64)));
    }
}
