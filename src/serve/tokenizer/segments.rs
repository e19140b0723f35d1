//! Encoding, incrementally: a prompt is cut at its special tokens, and each piece between two is encoded once; of a piece that is
//! new, only the [`super::words`] that are.
//!
//! A conversation's next turn has all pieces of the turn before, so only what is new is encoded. That the pieces' tokens are
//! the whole's is how tokenizers work (special tokens are taken out first), but for those that treat the start of a text
//! differently: at loading both are tried, and a tokenizer for which they differ encodes every prompt whole.

use super::words::{self, Words};
use aho_corasick::{AhoCorasick, MatchKind};
use foldhash::quality::RandomState;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokenizers::{Model, Tokenizer};

/// What pieces and their tokens may take, in all.
const CACHE_BYTES: usize = 64 << 20;
/// What an entry takes besides its text and its tokens, about.
const ENTRY_BYTES: usize = 96;

/// A tokenizer with the pieces that it encoded lately.
pub(super) struct Segments {
    tokenizer: Tokenizer,
    /// Finds the special tokens to cut at; `None` where pieces are not to be encoded alone.
    special: Option<AhoCorasick>,
    /// Their ids, in the order in which they are looked for.
    special_ids: Vec<u32>,
    /// What is put around a text that is given special tokens.
    before: Vec<u32>,
    after: Vec<u32>,
    cache: Mutex<Cache>,
    /// `None` where words are not to be encoded alone.
    words: Option<Words>,
}

/// Two generations: what was used since the last change of generation, and before. The older one is dropped whole.
#[derive(Default)]
struct Cache {
    young: HashMap<Arc<str>, Arc<[u32]>, RandomState>,
    old: HashMap<Arc<str>, Arc<[u32]>, RandomState>,
    young_bytes: usize,
}

impl Segments {
    pub fn new(json: &[u8]) -> Result<Self, String> {
        let mut tokenizer = Tokenizer::from_bytes(json).map_err(|error| error.to_string())?;
        // Limits that some files hold are for training; the engine ignores them.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| error.to_string())?;
        let added = tokenizer.get_added_tokens_decoder();
        let plain = |token: &tokenizers::AddedToken| {
            token.special && !token.single_word && !token.lstrip && !token.rstrip && !token.normalized
        };
        let mut special: Vec<(String, u32)> =
            added.iter().filter(|(_, token)| plain(token)).map(|(&id, token)| (token.content.clone(), id)).collect();
        special.retain(|(content, _)| !content.is_empty());
        special.sort();
        let only_plain = added.iter().all(|(_, token)| plain(token));
        let mut builder = AhoCorasick::builder();
        let finder = builder.match_kind(MatchKind::LeftmostLongest).build(special.iter().map(|(content, _)| content));
        let finder = finder.map_err(|error| error.to_string())?;
        let mut segments = Segments {
            tokenizer,
            special: Some(finder),
            special_ids: special.iter().map(|&(_, id)| id).collect(),
            before: Vec::new(),
            after: Vec::new(),
            cache: Mutex::default(),
            words: None,
        };
        segments.around().ok_or("special tokens are not put around a text, but into it")?;
        if !only_plain || !segments.pieces_make_the_whole(special.iter().map(|(content, _)| content.as_str())) {
            segments.special = None;
        }
        let described = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        if only_plain && words::cuts_at_words(&described) && segments.words_make_the_whole() {
            segments.words = Some(Words::default());
        }
        Ok(segments)
    }

    /// The tokens of a text; `None` where the tokenizer fails.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Option<Vec<u32>> {
        let mut tokens = Vec::with_capacity(text.len() / 3);
        if add_special_tokens {
            tokens.extend(&self.before);
        }
        let mut from = 0;
        for found in self.special.iter().flat_map(|special| special.find_iter(text)) {
            self.piece(&text[from..found.start()], &mut tokens)?;
            tokens.push(self.special_ids[found.pattern().as_usize()]);
            from = found.end();
        }
        self.piece(&text[from..], &mut tokens)?;
        if add_special_tokens {
            tokens.extend(&self.after);
        }
        Some(tokens)
    }

    fn piece(&self, piece: &str, tokens: &mut Vec<u32>) -> Option<()> {
        if piece.is_empty() {
            return Some(());
        }
        if let Some(known) = self.cache.lock().get(piece) {
            tokens.extend_from_slice(&known);
            return Some(());
        }
        let from = tokens.len();
        match &self.words {
            Some(words) => words.encode(piece, tokens, |word, tokens| self.word(word, tokens))?,
            None => self.whole(piece, tokens)?,
        }
        self.cache.lock().insert(piece.into(), tokens[from..].into());
        Some(())
    }

    fn whole(&self, text: &str, tokens: &mut Vec<u32>) -> Option<()> {
        tokens.extend_from_slice(self.tokenizer.encode_fast(text, false).ok()?.get_ids());
        Some(())
    }

    /// One that is not cut further goes to the model at once, which is a quarter of what all the tokenizer's steps take.
    fn word(&self, word: &str, tokens: &mut Vec<u32>) -> Option<()> {
        let Some(as_bytes) = words::in_one(word) else { return self.whole(word, tokens) };
        tokens.extend(self.tokenizer.get_model().tokenize(&as_bytes).ok()?.iter().map(|token| token.id));
        Some(())
    }

    fn words_make_the_whole(&self) -> bool {
        words::TRIED.iter().all(|text| {
            let (mut whole, mut of_words) = (Vec::new(), Vec::new());
            let encode = |word: &str, tokens: &mut Vec<u32>| self.word(word, tokens);
            self.whole(text, &mut whole).is_some()
                && Words::default().encode(text, &mut of_words, encode).is_some()
                && whole == of_words
        })
    }

    /// Finds what is put before and after a text.
    fn around(&mut self) -> Option<()> {
        let ids = |special| Some(self.tokenizer.encode_fast("a", special).ok()?.get_ids().to_vec());
        let (bare, full) = (ids(false)?, ids(true)?);
        let at = full.windows(bare.len().max(1)).position(|window| window == bare)?;
        (self.before, self.after) = (full[..at].to_vec(), full[at + bare.len()..].to_vec());
        Some(())
    }

    fn pieces_make_the_whole<'a>(&self, special: impl Iterator<Item = &'a str>) -> bool {
        special.take(16).all(|special| {
            let text = format!("It was {special}the best\n{special} of times {special}{special}1");
            let whole = self.tokenizer.encode_fast(text.as_str(), false).map(|encoding| encoding.get_ids().to_vec());
            whole.ok().is_some_and(|whole| self.encode(&text, false) == Some(whole))
        })
    }
}

impl Cache {
    fn get(&mut self, piece: &str) -> Option<Arc<[u32]>> {
        if let Some(tokens) = self.young.get(piece) {
            return Some(Arc::clone(tokens));
        }
        let (piece, tokens) = self.old.remove_entry(piece)?;
        self.insert(piece, Arc::clone(&tokens));
        Some(tokens)
    }

    fn insert(&mut self, piece: Arc<str>, tokens: Arc<[u32]>) {
        let bytes = piece.len() + size_of_val(&*tokens) + ENTRY_BYTES;
        if bytes > CACHE_BYTES / 2 {
            return;
        }
        if self.young_bytes + bytes > CACHE_BYTES / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        if self.young.insert(piece, tokens).is_none() {
            self.young_bytes += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_used() {
        let mut cache = Cache::default();
        let tokens: Arc<[u32]> = vec![1; 1 << 18].into();
        cache.insert("used".into(), Arc::clone(&tokens));
        for number in 0..1000 {
            cache.insert(format!("piece {number}").into(), Arc::clone(&tokens));
            assert!(cache.get("used").is_some(), "{number}");
        }
        assert!((cache.young.len() + cache.old.len()) << 20 <= CACHE_BYTES);
        assert!(cache.get("piece 0").is_none() && cache.get("piece 999").is_some());
    }
}
