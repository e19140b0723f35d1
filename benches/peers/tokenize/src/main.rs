//! What a chat's next turn costs `llm-tokenizer`, with both of its caches on: the peer of `cargo bench --bench tokenize`, which
//! writes the texts. Rendering the template is not in its time, as it is in ours.
//!
//! `warmpath-peers-tokenize TOKENIZER_JSON FOLDER`; FOLDER holds `N.before` and `N.after`, the rendered chats of each round.

use llm_tokenizer::traits::Encoder;
use llm_tokenizer::{CacheConfig, CachedTokenizer, HuggingFaceTokenizer};
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [tokenizer, folder] = arguments.as_slice() else { panic!("TOKENIZER_JSON FOLDER") };
    let (mut whole, mut next, mut tokens) = (Vec::new(), Vec::new(), 0);
    for round in 0.. {
        let read = |what: &str| std::fs::read_to_string(Path::new(folder).join(format!("{round}.{what}")));
        let (Ok(before), Ok(after)) = (read("before"), read("after")) else { break };
        let plain = HuggingFaceTokenizer::from_file(tokenizer).expect("the tests' tokenizer loads");
        let caches = CacheConfig { enable_l0: true, enable_l1: true, ..CacheConfig::default() };
        let cached = CachedTokenizer::new(Arc::new(plain), caches);
        whole.push(milliseconds(&cached, &before).0);
        let (time, length) = milliseconds(&cached, &after);
        next.push(time);
        tokens = length;
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let (whole, next) = (median(&mut whole), median(&mut next));
    println!("{tokens} {whole:.3} {next:.3}");
}

fn milliseconds(tokenizer: &CachedTokenizer, text: &str) -> (f64, usize) {
    let began = Instant::now();
    let encoding = tokenizer.encode(black_box(text), false).expect("a text");
    (began.elapsed().as_secs_f64() * 1e3, encoding.token_ids().len())
}
