//! What a reader of texts needs of a tokenizer; the caller brings it, as the core has none.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// Makes texts the tokens that an engine would see. `None` where it cannot.
pub trait Tokenize: Send + Sync {
    /// The prompt of a chat: its template applied, ready for the answer.
    fn chat(&self, messages: &[Message]) -> Option<Vec<u32>>;

    /// A text alone, without special tokens.
    fn text(&self, text: &str) -> Option<Vec<u32>>;
}

/// One message of a chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What.
    pub content: String,
}

/// Who says something in a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The operator of the service.
    System,
    /// Who asks.
    User,
    /// Who answers.
    Assistant,
}

/// A tokenizer, shared.
#[derive(Clone)]
pub struct Tokenizer(pub Arc<dyn Tokenize>);

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokenizer")
    }
}
