//! Prompts, what they generate, and how the mock names their blocks.

use crate::routing::block::{BlockHash, BlockSize, ContentHash, Namespace};

/// A prompt with the output that it will have.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sequence {
    /// Prompt and output, end to end.
    pub tokens: Vec<u32>,
    /// Length of the prompt.
    pub prompt_tokens: u32,
    /// The mock's names of all full blocks of `tokens`.
    pub chain: Vec<BlockHash>,
    /// The tenant's cache salt.
    pub cache_salt: Option<String>,
}

impl Sequence {
    /// The sequence of a prompt that generates `output_tokens` tokens.
    pub fn new(
        prompt: Vec<u32>,
        output_tokens: u32,
        cache_salt: Option<String>,
        model: &str,
        block_size: BlockSize,
    ) -> Self {
        let prompt_tokens = prompt.len() as u32;
        let mut tokens = prompt;
        tokens.extend(output(&tokens, output_tokens));
        let namespace = Namespace { model, lora: None, cache_salt: cache_salt.as_deref() };
        let mut hash = BlockHash::root(&namespace, block_size, MOCK_SEED);
        let blocks = tokens.chunks_exact(block_size.tokens() as usize);
        let chain = blocks
            .map(|block| {
                hash = hash.child(ContentHash::of_tokens(block));
                hash
            })
            .collect();
        Sequence { tokens, prompt_tokens, chain, cache_salt }
    }

    /// The output.
    pub fn output(&self) -> &[u32] {
        &self.tokens[self.prompt_tokens as usize..]
    }
}

/// Keeps the mock's block hashes apart from a router's.
const MOCK_SEED: u64 = 0x6d6f_636b_5f76_6c6c;

/// A text prompt: one token a byte.
pub(super) fn tokens_of_text(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

/// How output is written; what is sent back as a text prompt makes the same tokens again.
pub(super) fn text_of_tokens(tokens: &[u32]) -> String {
    tokens.iter().map(|&token| u8::try_from(token).map_or('\u{fffd}', char::from)).collect()
}

/// Lower-case letters, decided by the prompt.
fn output(prompt: &[u32], tokens: u32) -> Vec<u32> {
    let seed = ContentHash::of_tokens(prompt).0;
    let letter = |position: u32| {
        let mixed = BlockHash(seed).child(ContentHash(u64::from(position))).0;
        u32::from(b'a') + (mixed % 26) as u32
    };
    (0..tokens).map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(prompt: &str, output_tokens: u32, salt: Option<&str>) -> Sequence {
        Sequence::new(tokens_of_text(prompt), output_tokens, salt.map(str::to_owned), "m", BlockSize::DEFAULT)
    }

    #[test]
    fn output_is_a_function_of_the_prompt_and_longer_output_only_goes_on() {
        let prompt = "It was the best of times";
        let (short, long) = (sequence(prompt, 5, None), sequence(prompt, 20, None));
        assert_eq!(short.output(), &long.output()[..5]);
        assert_ne!(long.output(), sequence("it was the best of times", 20, None).output());
    }

    #[test]
    fn a_conversation_goes_on_in_the_same_blocks() {
        let first = sequence("It was the best of times, it was the worst", 40, None);
        let text = format!("It was the best of times, it was the worst{}", text_of_tokens(first.output()));
        let second = sequence(&text, 8, None);
        assert_eq!(second.chain[..first.chain.len()], first.chain);
        assert_ne!(sequence(&text, 8, Some("tenant")).chain[0], second.chain[0]);
    }
}
