//! The same tokenizers for recorded texts, which the trace readers are given them for.

use super::{Api, Tokenizer, TokenizerError};
use crate::trace::{self, Message, Tokenize};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

/// Loads a model's tokenizer and chat template, from its folder or from the `tokenizer.json` in it.
pub fn tokenizer_for_traces(path: &Path) -> Result<trace::Tokenizer, TokenizerError> {
    let folder = if path.is_file() { path.parent().unwrap_or(path) } else { path };
    let tokenizer = Tokenizer::load(folder)?;
    if tokenizer.template.is_none() {
        let reason = "there is none, neither in chat_template.jinja nor in tokenizer_config.json".to_owned();
        return Err(TokenizerError::Template { folder: folder.to_owned(), reason });
    }
    Ok(trace::Tokenizer(Arc::new(tokenizer)))
}

impl Tokenize for Tokenizer {
    fn chat(&self, messages: &[Message]) -> Option<Vec<u32>> {
        // As a client would send it, so that it is rendered as vLLM does. A template that asks for the date is told today's.
        let body = serde_json::to_vec(&json!({ "messages": messages })).ok()?;
        self.tokens(Api::Chat, &body).ok()
    }

    fn text(&self, text: &str) -> Option<Vec<u32>> {
        self.segments.encode(text, false)
    }
}
