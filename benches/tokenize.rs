//! What the next turn of a long chat costs to tokenize, of what encoding it whole costs: reading the body, rendering the
//! template and encoding. Whole is with empty caches; the next turn, an answer and another question, comes to caches that have the turn
//! before. "plain" is the `tokenizers` crate by itself on the rendered chat, which is what one pays who keeps nothing.
//!
//! `cargo bench --bench tokenize` makes up its texts and takes the small tokenizer of the tests; `-- --quick` does little and shows that
//! it runs. `-- --tokenizer FOLDER` takes another, in which `<|im_start|>` and `<|im_end|>` are special, and `-- --chats FILE` the texts of
//! a ShareGPT file. `-- --peer BINARY` has the same chats encoded by `llm-tokenizer` in turns with ours: BINARY is what `cargo build
//! --release` makes in `benches/peers/tokenize`. Its times do not hold reading and rendering.
//!
//! Milliseconds, medians of 15 (2 cores of an AMD EPYC, 2026-11-26, at a load average of 0.5, this code without LTO):
//!
//! | | tokens | plain | whole | next | of whole | of plain | `llm-tokenizer` whole, next |
//! |---|---|---|---|---|---|---|---|
//! | ShareGPT, GPT-2's vocabulary | 33,175 | 28.6 | 14.3 | 0.66 | 4.6 % | 2.3 % | 9.4, 0.65 |
//! | made up, the tests' vocabulary | 32,964 | 13.5 | 4.2 | 0.26 | 6.2 % | 1.9 % | 2.8, 0.20 |
//!
//! Whole is less than plain because words that occur again are not encoded again; what is made up repeats itself more than people do.
//! Of the next turn of ShareGPT half is reading and rendering 130 kB, which takes 0.3 ms with everything known.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use warmpath::serve::Tokenizer;

/// One chat, as it is sent and as the template renders it.
struct Chat {
    body: String,
    rendered: String,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let option = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        Some(PathBuf::from(arguments.get(at + 1).unwrap_or_else(|| panic!("{name} wants a path"))))
    };
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let rounds = if quick { 1 } else { 15 };
    let peer = option("--peer");
    let folder = option("--tokenizer")
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vllm_render/tools"));
    let texts: Vec<String> = option("--chats").map_or_else(made_up, |path| of_sharegpt(&path));
    let plain = tokenizers::Tokenizer::from_file(folder.join("tokenizer.json")).expect("the tokenizer loads");
    println!(
        "{:>8} {:>8} {:>9} {:>9} {:>9} {:>9}",
        "tokens", "messages", "plain ms", "whole ms", "next ms", "of whole"
    );
    for aim in [2_000, 8_000, 32_000] {
        let (mut plains, mut wholes, mut nexts, mut tokens, mut messages) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let scratch = peer.as_ref().map(|_| scratch(aim));
        for round in 0..rounds {
            let length = |text: &str| plain.encode_fast(text, false).expect("a text").len();
            let (before, after, count) = next_turn(&texts, round, aim, length);
            if let Some(scratch) = &scratch {
                for (what, chat) in [("before", &before), ("after", &after)] {
                    std::fs::write(scratch.join(format!("{round}.{what}")), &chat.rendered)
                        .expect("the scratch folder is there");
                }
            }
            let fresh = tokenizers::Tokenizer::from_file(folder.join("tokenizer.json")).expect("the tokenizer loads");
            plains.push(milliseconds(|| fresh.encode_fast(after.rendered.as_str(), false).expect("a text").len()).0);
            let encode = |tokenizer: &Tokenizer, chat: &Chat| {
                let tokens = tokenizer.prompt_tokens("/v1/chat/completions", black_box(chat.body.as_bytes()));
                tokens.expect("a chat of texts").len()
            };
            let empty = Tokenizer::load(&folder).expect("the tokenizer loads");
            wholes.push(milliseconds(|| encode(&empty, &after)).0);
            let warm = Tokenizer::load(&folder).expect("the tokenizer loads");
            encode(&warm, &before);
            let (next, length) = milliseconds(|| encode(&warm, &after));
            nexts.push(next);
            tokens.push(length as f64);
            messages.push(count as f64);
        }
        let (plain, whole, next) = (median(&mut plains), median(&mut wholes), median(&mut nexts));
        let (tokens, messages) = (median(&mut tokens), median(&mut messages));
        let share = 100.0 * next / whole;
        println!("{tokens:>8} {messages:>8} {plain:>9.2} {whole:>9.2} {next:>9.3} {share:>7.1} %");
        if let (Some(peer), Some(scratch)) = (&peer, &scratch) {
            let output =
                Command::new(peer).arg(folder.join("tokenizer.json")).arg(scratch).output().expect("the peer starts");
            println!(
                "{:>17} (tokens, whole ms, next ms): {}",
                "llm-tokenizer",
                String::from_utf8_lossy(&output.stdout).trim()
            );
            std::fs::remove_dir_all(scratch).expect("the scratch folder is there");
        }
    }
}

/// A chat of about so many tokens that ends with a question, the same with its answer and the next question, and how many
/// messages that has. No two rounds begin at the same text.
fn next_turn(texts: &[String], round: usize, aim: usize, tokens: impl Fn(&str) -> usize) -> (Chat, Chat, usize) {
    let from = (round * 26 % texts.len()) & !1;
    let mut said = Vec::new();
    let mut sum = 0;
    for text in texts[from..].iter().chain(&texts[..from]) {
        sum += tokens(text);
        said.push(text.as_str());
        if sum >= aim && said.len() % 2 == 1 && said.len() > 2 {
            break;
        }
    }
    said.truncate(said.len() - (said.len() + 1) % 2);
    (chat(&said[..said.len() - 2]), chat(&said), said.len())
}

fn scratch(tokens: usize) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("warmpath-tokenize-{}-{tokens}", std::process::id()));
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

/// What a reader would take for prose, by its statistics: words by Zipf's law out of eight thousand, of which the common ones are
/// short, with stops, numbers and paragraphs between; questions of forty words and answers of two hundred.
fn made_up() -> Vec<String> {
    const SYLLABLES: [&str; 16] =
        ["ta", "re", "in", "on", "es", "lo", "wi", "po", "sh", "un", "ma", "ke", "th", "er", "ing", "qu"];
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut draw = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    let mut text = move |words: usize| {
        let mut text = String::new();
        for _ in 0..words {
            let rank = 8000f64.powf(draw()) as u64;
            let letters = rank.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let length = 1 + (rank + 3).ilog2() / 4;
            (0..length).for_each(|at| text.push_str(SYLLABLES[(letters >> (60 - 4 * at)) as usize & 15]));
            text.push_str(match (draw() * 100.0) as u32 {
                0..6 => ", ",
                6..11 => ". ",
                11..13 => ".\n\n",
                13 => " 42 ",
                _ => " ",
            });
        }
        text
    };
    (0..400).map(|at| text(if at % 2 == 0 { 40 } else { 200 })).collect()
}

/// All texts of a file as ShareGPT's are, as if they were one chat.
fn of_sharegpt(path: &Path) -> Vec<String> {
    let file = std::fs::read(path).expect("the chats can be read");
    let chats: Vec<serde_json::Value> = serde_json::from_slice(&file).expect("the chats are a list");
    let texts = chats.iter().filter_map(|chat| chat["conversations"].as_array()).flatten();
    texts.filter_map(|said| said["value"].as_str()).filter(|text| !text.is_empty()).map(str::to_owned).collect()
}

/// What is said in turns by a user and the assistant.
fn chat(said: &[&str]) -> Chat {
    let messages = said.iter().enumerate().map(|(at, text)| (["user", "assistant"][at % 2], *text));
    let (mut body, mut rendered) = (Vec::new(), String::new());
    for (role, content) in messages {
        body.push(serde_json::json!({ "role": role, "content": content }));
        rendered += &format!("<|im_start|>{role}\n{content}<|im_end|>\n");
    }
    Chat { body: serde_json::json!({ "messages": body }).to_string(), rendered: rendered + "<|im_start|>assistant\n" }
}
