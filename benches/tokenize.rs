//! What the next turn of a long chat costs to tokenize, of what encoding it whole costs: reading the body, rendering the
//! template and encoding, with the small tokenizer of the tests. Whole is with an empty cache; the next turn comes to a cache that
//! has the turn before.
//!
//! `cargo bench --bench tokenize`; `-- --quick` does little and shows that it runs.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;
use warmpath::serve::Tokenizer;

const WORDS: [&str; 16] = [
    "once",
    "upon",
    "a",
    "time",
    "there",
    "was",
    "router",
    "cache",
    "prefix",
    "token",
    "answer",
    "electric",
    "sheep",
    "sky",
    "zażółć",
    "42",
];

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let rounds = if quick { 1 } else { 15 };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vllm_render/tools");
    println!("{:>8} {:>7} {:>10} {:>12} {:>8}", "tokens", "turns", "whole ms", "next turn ms", "ratio");
    for turns in [4, 20, 80] {
        let (mut wholes, mut nexts, mut tokens) = (Vec::new(), Vec::new(), 0);
        for round in 0..rounds {
            let chat = |turns: u64| body((0..turns).map(|turn| words(round << 8 | turn, 220)));
            let tokenizer = Tokenizer::load(&folder).expect("the tests' tokenizer loads");
            let (before, after) = (chat(turns - 1), chat(turns));
            wholes.push(milliseconds(&tokenizer, &before).0);
            let (next, length) = milliseconds(&tokenizer, &after);
            nexts.push(next);
            tokens = length;
        }
        let median = |times: &mut Vec<f64>| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        };
        let (whole, next) = (median(&mut wholes), median(&mut nexts));
        println!("{tokens:>8} {turns:>7} {whole:>10.2} {next:>12.3} {:>7.1} %", 100.0 * next / whole);
    }
}

fn milliseconds(tokenizer: &Tokenizer, body: &str) -> (f64, usize) {
    let began = Instant::now();
    let tokens = tokenizer.prompt_tokens("/v1/chat/completions", black_box(body.as_bytes())).expect("a chat of texts");
    (began.elapsed().as_secs_f64() * 1e3, tokens.len())
}

fn words(seed: u64, count: usize) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let word = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        WORDS[(state % WORDS.len() as u64) as usize]
    };
    (0..count).map(word).collect::<Vec<_>>().join(" ")
}

fn body(turns: impl Iterator<Item = String>) -> String {
    let message = |(at, text): (usize, String)| {
        let role = ["user", "assistant"][at % 2];
        format!("{{\"role\": \"{role}\", \"content\": \"{text}\"}}")
    };
    format!("{{\"messages\": [{}]}}", turns.enumerate().map(message).collect::<Vec<_>>().join(", "))
}
