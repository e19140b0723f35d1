//! Finds in vLLM's `/metrics` the few lines that say how loaded its engines are, as the text comes.
//!
//! Only what begins like one of these lines is looked at further; nothing else is kept, and no line is longer than a bound.
//! The labels' order differs between vLLM's servers, and so does the spelling of zero. Source: captures of 0.32.0.

use memchr::{memchr, memmem, memrchr};
use std::collections::BTreeMap;

/// What one engine says; engines are vLLM's data-parallel ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Engine {
    pub running: Option<u32>,
    pub waiting: Option<u32>,
    /// From 0 to 1.
    pub cache_usage: Option<f64>,
    pub cache_tokens: Option<u64>,
}

/// A text on its way through.
#[derive(Default)]
pub(super) struct Scan {
    /// The beginning of a line whose end has not come.
    partial: Vec<u8>,
    /// The rest of the line that has begun is of no use.
    skips: bool,
    engines: BTreeMap<u32, Engine>,
}

/// vLLM's longest line of use has some 1,500 bytes.
const LINE_BYTES_MAX: usize = 16 << 10;
/// Engines told apart; further ones are not looked at.
const ENGINES_MAX: usize = 1024;
const PREFIX: &[u8] = b"vllm:";

impl Scan {
    /// More of the text.
    pub fn push(&mut self, mut chunk: &[u8]) {
        while !chunk.is_empty() {
            let end = memchr(b'\n', chunk);
            let (line, rest) = match end {
                Some(end) => (&chunk[..end], &chunk[end + 1..]),
                None => (chunk, &[][..]),
            };
            self.part(line, end.is_some());
            chunk = rest;
        }
    }

    /// The engines, by number, once the text is over.
    pub fn finish(mut self) -> BTreeMap<u32, Engine> {
        self.part(&[], true);
        self.engines
    }

    fn part(&mut self, part: &[u8], ends: bool) {
        let begins_like = |line: &[u8]| {
            let known = line.len().min(PREFIX.len());
            line[..known] == PREFIX[..known]
        };
        if !self.skips {
            if self.partial.is_empty() && ends {
                self.line(part);
                return;
            }
            self.partial.extend_from_slice(&part[..part.len().min(LINE_BYTES_MAX)]);
            self.skips = self.partial.len() >= LINE_BYTES_MAX || !begins_like(&self.partial);
        }
        if ends {
            let line = std::mem::take(&mut self.partial);
            if !std::mem::take(&mut self.skips) {
                self.line(&line);
            }
            self.partial = line;
            self.partial.clear();
        }
    }

    fn line(&mut self, line: &[u8]) {
        let Some(line) = line.strip_prefix(PREFIX) else {
            return;
        };
        let Some(labels_at) = memchr(b'{', line) else {
            return;
        };
        let (name, labels) = line.split_at(labels_at);
        type Set = fn(&mut Engine, &[u8], f64);
        let set: Set = match name {
            b"num_requests_running" => |engine, _, value| engine.running = count(value),
            b"num_requests_waiting" => |engine, _, value| engine.waiting = count(value),
            // The second name is that of vLLM up to 0.9.
            b"kv_cache_usage_perc" | b"gpu_cache_usage_perc" => {
                |engine, _, value| engine.cache_usage = (0.0..=1.0).contains(&value).then_some(value)
            }
            b"cache_config_info" => |engine, labels, _| engine.cache_tokens = cache_tokens(labels),
            _ => return,
        };
        let Some(value) = value(labels) else {
            return;
        };
        let number = label(labels, b"engine=\"").and_then(number).unwrap_or(0);
        if self.engines.len() < ENGINES_MAX || self.engines.contains_key(&number) {
            set(self.engines.entry(number).or_default(), labels, value);
        }
    }
}

fn cache_tokens(labels: &[u8]) -> Option<u64> {
    let told = label(labels, b"kv_cache_size_tokens=\"").and_then(number);
    let blocks = || {
        let blocks: u64 = number(label(labels, b"num_gpu_blocks=\"")?)?;
        blocks.checked_mul(number(label(labels, b"block_size=\"")?)?)
    };
    told.or_else(blocks).filter(|&tokens| tokens > 0)
}

/// A label's value: what stands between `{key}` and the next quote. Quotes inside values are escaped, so a key with its quote
/// is found at labels only.
fn label<'a>(labels: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let at = memmem::find_iter(labels, key).find(|&at| at > 0 && matches!(labels[at - 1], b'{' | b','))?;
    let value = &labels[at + key.len()..];
    Some(&value[..memchr(b'"', value)?])
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The number after the labels, without the time that may follow it.
fn value(labels: &[u8]) -> Option<f64> {
    let after = labels[memrchr(b'}', labels)? + 1..].trim_ascii_start();
    number(after.split(|&byte| byte == b' ').next()?.trim_ascii())
}

fn count(value: f64) -> Option<u32> {
    (value >= 0.0 && value <= f64::from(u32::MAX)).then_some(value as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scan(text: &[u8], size: usize) -> BTreeMap<u32, Engine> {
        let mut scan = Scan::default();
        text.chunks(size).for_each(|chunk| scan.push(chunk));
        scan.finish()
    }

    const TEXT: &str = concat!(
        "# HELP vllm:num_requests_running x\n",
        "vllm:num_requests_running{engine=\"0\",model_name=\"a,engine=\\\"7\\\" }\"} 3.0\n",
        "vllm:num_requests_waiting_by_reason{engine=\"0\",reason=\"capacity\"} 9.0\n",
        "vllm:num_requests_waiting{model_name=\"m\",engine=\"0\"} 2 1795303433\n",
        "vllm:kv_cache_usage_perc{engine=\"0\"} 2.5e-1\n",
        "process_open_fds 12\n",
        "vllm:num_requests_running{engine=\"1\"} NaN\r\n",
        "vllm:cache_config_info{block_size=\"32\",effective_block_size=\"1\",engine=\"1\",num_gpu_blocks=\"10\"} 1.0",
    );

    #[test]
    fn the_same_is_found_wherever_the_text_is_cut() {
        let zero = Engine { running: Some(3), waiting: Some(2), cache_usage: Some(0.25), cache_tokens: None };
        let one = Engine { cache_tokens: Some(320), ..Engine::default() };
        for size in 1..=TEXT.len() {
            assert_eq!(scan(TEXT.as_bytes(), size), BTreeMap::from([(0, zero), (1, one)]), "{size}");
        }
    }

    #[test]
    fn a_line_without_end_takes_no_more_than_a_line() {
        let mut scan = Scan::default();
        for _ in 0..100 {
            scan.push(&[b'v'; 4096]);
            scan.push(b"vllm:num_requests_running{");
        }
        assert!(scan.partial.capacity() <= 2 * LINE_BYTES_MAX, "{}", scan.partial.capacity());
        scan.push(b"\nvllm:num_requests_running{} 1\n");
        assert_eq!(scan.finish()[&0].running, Some(1));
    }

    proptest! {
        #[test]
        fn any_bytes_are_scanned(bytes in prop::collection::vec(any::<u8>(), 0..300), size in 1_usize..50) {
            scan(&bytes, size);
        }

        #[test]
        fn a_damaged_text_is_scanned(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut text = TEXT.as_bytes().to_vec();
            *at.get_mut(&mut text) = byte;
            scan(&text, 7);
        }
    }
}
