//! What the next turn of a long chat costs to tokenize, of what encoding it whole costs: reading the body, rendering the
//! template and encoding, with the small tokenizer of the tests. Whole is with empty caches; the next turn comes to caches that
//! have the turn before. "plain" is the `tokenizers` crate by itself on the rendered chat, for scale.
//!
//! `cargo bench --bench tokenize`; `-- --quick` does little and shows that it runs. `-- --peer BINARY` has the same chats encoded by
//! `llm-tokenizer` in turns with ours: BINARY is what `cargo build --release` makes in `benches/peers/tokenize`. Its times do not hold
//! reading and rendering.
//!
//! Milliseconds for a chat of 31,441 tokens in 80 turns (2 cores of an AMD EPYC, 2026-11-26, at a load average of 2, medians): plain 24.1; here
//! whole 4.1, for words that occur again are not encoded again, and the next turn 0.38, which is 1.6 % of plain and 9.3 % of whole;
//! `llm-tokenizer` 6.4 and 0.39.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
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

/// One chat, as it is sent and as the template renders it.
struct Chat {
    body: String,
    rendered: String,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let peer = arguments.iter().position(|argument| argument == "--peer").map(|at| PathBuf::from(&arguments[at + 1]));
    let rounds = if quick { 1 } else { 15 };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vllm_render/tools");
    let plain = tokenizers::Tokenizer::from_file(folder.join("tokenizer.json")).expect("the tests' tokenizer loads");
    println!("{:>8} {:>7} {:>9} {:>9} {:>9} {:>9}", "tokens", "turns", "plain ms", "whole ms", "next ms", "of whole");
    for turns in [4, 20, 80] {
        let (mut plains, mut wholes, mut nexts, mut tokens) = (Vec::new(), Vec::new(), Vec::new(), 0);
        let scratch = peer.as_ref().map(|_| scratch(turns));
        for round in 0..rounds {
            let (before, after) = (chat(round, turns - 1), chat(round, turns));
            if let Some(scratch) = &scratch {
                for (what, chat) in [("before", &before), ("after", &after)] {
                    std::fs::write(scratch.join(format!("{round}.{what}")), &chat.rendered)
                        .expect("the scratch folder is there");
                }
            }
            plains.push(milliseconds(|| plain.encode_fast(after.rendered.as_str(), false).expect("a text").len()).0);
            let encode = |tokenizer: &Tokenizer, chat: &Chat| {
                let tokens = tokenizer.prompt_tokens("/v1/chat/completions", black_box(chat.body.as_bytes()));
                tokens.expect("a chat of texts").len()
            };
            let empty = Tokenizer::load(&folder).expect("the tests' tokenizer loads");
            wholes.push(milliseconds(|| encode(&empty, &after)).0);
            let warm = Tokenizer::load(&folder).expect("the tests' tokenizer loads");
            encode(&warm, &before);
            let (next, length) = milliseconds(|| encode(&warm, &after));
            nexts.push(next);
            tokens = length;
        }
        let (plain, whole, next) = (median(&mut plains), median(&mut wholes), median(&mut nexts));
        let share = 100.0 * next / whole;
        println!("{tokens:>8} {turns:>7} {plain:>9.2} {whole:>9.2} {next:>9.3} {share:>7.1} %");
        if let (Some(peer), Some(scratch)) = (&peer, &scratch) {
            let output =
                Command::new(peer).arg(folder.join("tokenizer.json")).arg(scratch).output().expect("the peer starts");
            println!(
                "{:>16} (tokens, whole ms, next ms): {}",
                "llm-tokenizer",
                String::from_utf8_lossy(&output.stdout).trim()
            );
            std::fs::remove_dir_all(scratch).expect("the scratch folder is there");
        }
    }
}

fn scratch(turns: u64) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("warmpath-tokenize-{}-{turns}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("the temporary folder can be written");
    folder
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn milliseconds<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let began = Instant::now();
    let done = work();
    (began.elapsed().as_secs_f64() * 1e3, done)
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

fn chat(round: u64, turns: u64) -> Chat {
    let texts: Vec<String> = (0..turns).map(|turn| words(round << 8 | turn, 220)).collect();
    let role = |at: usize| ["user", "assistant"][at % 2];
    let message = |(at, text): (usize, &String)| format!("{{\"role\": \"{}\", \"content\": \"{text}\"}}", role(at));
    let turn = |(at, text): (usize, &String)| format!("<|im_start|>{}\n{text}<|im_end|>\n", role(at));
    let messages: Vec<String> = texts.iter().enumerate().map(message).collect();
    let rendered: String = texts.iter().enumerate().map(turn).collect();
    Chat {
        body: format!("{{\"messages\": [{}]}}", messages.join(", ")),
        rendered: rendered + "<|im_start|>assistant\n",
    }
}
