//! A prompt that is a text, as far as it is known: by its tokens, or else by its bytes, or else by its length.

use super::http::view::Said;
use crate::routing::Prompt;
use crate::routing::block::ContentHash;
use crate::serve::core::Core;
use crate::serve::telemetry::labels::{ByLoad, Guess};
use crate::serve::tokenizer::{Tokenizers, Untokenized};
use std::borrow::Cow;

/// What is known of a text.
pub(super) enum KnownText {
    /// Its tokens.
    Tokens(Vec<u32>),
    /// Its bytes, from which is guessed what it shares with others.
    Guessed { contents: Vec<ContentHash>, tokens: u32 },
    /// Its length, by a rule of thumb.
    Length(u32),
}

impl KnownText {
    /// Makes tokens of a text with the model's tokenizer, where there is one and it is done in time; counts where not.
    pub async fn of(core: &Core, tokenizers: &Tokenizers, model: &str, text: &str) -> Self {
        let said = Said::of(Cow::Borrowed(text.as_bytes()));
        let guess = match tokenizers.text(model, text).await {
            Ok(tokens) => return KnownText::Tokens(tokens),
            Err(Untokenized::Late) => {
                core.metrics().by_load.of(ByLoad::Late).increment(1);
                return KnownText::Length(said.tokens(None));
            }
            Err(Untokenized::NoTokenizer) => Guess::NoTokenizer,
            Err(Untokenized::MoreThanText) => Guess::Content,
            Err(Untokenized::Unsupported) => Guess::Unsupported,
        };
        core.metrics().guesses.of(guess).increment(1);
        let contents = said.contents(core.router().block_size());
        KnownText::Guessed { contents, tokens: said.tokens(None) }
    }

    /// The prompt that it is to the router.
    pub fn prompt(&self) -> Prompt<'_> {
        match self {
            KnownText::Tokens(tokens) => Prompt::Tokens(tokens),
            KnownText::Guessed { contents, tokens } => Prompt::Guessed { contents, tokens: *tokens },
            KnownText::Length(tokens) => Prompt::Blocks { contents: &[], tokens: *tokens },
        }
    }

    /// Whether its length and what it shares are estimates.
    pub fn is_estimated(&self) -> bool {
        !matches!(self, KnownText::Tokens(_))
    }
}
