//! Blocks: fixed runs of tokens, identified by a hash chained from the start of the prompt.
//!
//! Two steps make a block's identity. Its *content hash* depends on its own tokens only, so that the blocks of a prompt
//! can be hashed independently of one another; its *block hash* folds that into the hash of the block before it, so that
//! two blocks are the same only when everything before them is the same too. The chain starts at a root that is seeded
//! by the [`Namespace`] and the block size.
//!
//! The chain is a polynomial over the content hashes, modulo 2^64: `hash × K + content`. Content hashes are uniform, so that
//! is as good a chain as one that mixes at every step, and a block hash far down the prompt can be had without those in
//! between. Who uses block hashes as keys of a table must mix them first: neighbours are not independent.
//!
//! The hashes are ours. What an engine calls its blocks is an opaque [`EngineHash`], good for naming parents and
//! removals and for nothing else: it differs between versions, algorithms and, sometimes, processes.
//!
//! Absent on purpose: any defence against a client that crafts colliding prompts. A collision costs a misrouted request,
//! never a wrong answer, because the engine hashes for itself.

mod content;
mod hashed;

pub use content::ContentHash;
pub use hashed::AsItIs;

use twox_hash::XxHash3_64;

/// Tokens per block: a power of two from 1 to 512.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockSize(u32);

/// A block size that is not a power of two from 1 to 512.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("block size {tokens} is not a power of two from 1 to {max}", max = BlockSize::MAX_TOKENS)]
pub struct BlockSizeError {
    /// What was asked for.
    pub tokens: u32,
}

impl BlockSize {
    /// The largest block: 512 tokens, as in the Mooncake traces.
    pub const MAX_TOKENS: u32 = 512;
    /// 16 tokens: vLLM's default on GPUs and the Qwen-Bailian traces' block.
    pub const DEFAULT: BlockSize = BlockSize(16);

    /// A block of `tokens` tokens.
    pub const fn new(tokens: u32) -> Result<Self, BlockSizeError> {
        if tokens.is_power_of_two() && tokens <= Self::MAX_TOKENS {
            Ok(BlockSize(tokens))
        } else {
            Err(BlockSizeError { tokens })
        }
    }

    /// Tokens in one block.
    pub const fn tokens(self) -> u32 {
        self.0
    }

    /// Blocks that `tokens` tokens fill completely.
    pub const fn full_blocks(self, tokens: u32) -> u32 {
        tokens / self.0
    }

    /// Blocks that `tokens` tokens touch, the last one perhaps in part.
    pub const fn touched_blocks(self, tokens: u32) -> u32 {
        tokens.div_ceil(self.0)
    }

    /// The most blocks of a prompt that a cache can spare: the engine always computes at least the prompt's last token,
    /// so a hit covers at most `prompt_tokens - 1` tokens (vLLM 0.32, observed).
    pub const fn reusable_blocks(self, prompt_tokens: u32) -> u32 {
        prompt_tokens.saturating_sub(1) / self.0
    }
}

impl Default for BlockSize {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The identity of a block: its content and everything before it, in one namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockHash(pub u64);

impl BlockHash {
    /// How many blocks [`after_stride`](Self::after_stride) takes at most.
    pub(super) const STRIDE: usize = CHAIN_STRIDE;

    /// Where every chain of `namespace` starts. `seed` separates deployments from one another.
    pub fn root(namespace: &Namespace<'_>, block_size: BlockSize, seed: u64) -> Self {
        let mut hash = fold(seed ^ ROOT_SEED, u64::from(block_size.tokens()));
        for part in [Some(namespace.model), namespace.lora, namespace.cache_salt] {
            // The tag keeps an absent part apart from an empty one.
            hash = match part {
                Some(text) => fold(hash ^ 1, XxHash3_64::oneshot_with_seed(ROOT_SEED, text.as_bytes())),
                None => fold(hash, ROOT_SEED),
            };
        }
        BlockHash(hash)
    }

    /// The block with `content` that follows this one.
    #[inline]
    pub fn child(self, content: ContentHash) -> BlockHash {
        BlockHash(self.0.wrapping_mul(CHAIN).wrapping_add(content.0))
    }

    /// The last of the blocks with `contents` that follow this one: what [`child`](Self::child) comes to, one after another.
    #[inline]
    pub fn descendant(self, contents: &[ContentHash]) -> BlockHash {
        let mut strides = contents.chunks_exact(CHAIN_STRIDE);
        let last = strides.by_ref().fold(self, |hash, stride| hash.after_stride(stride));
        last.after_stride(strides.remainder())
    }

    /// [`descendant`](Self::descendant) of exactly a stride.
    #[inline]
    pub(super) fn after_full_stride(self, contents: &[ContentHash; CHAIN_STRIDE]) -> BlockHash {
        // Spelled out: as a `map` over lanes it is compiled to calls, as loops to half-hearted vectors (2.6 and 1.2 times as long).
        let product = |at: usize| contents[at].0.wrapping_mul(CHAIN_POWERS[at + 1]);
        let four = |at: usize| {
            (product(at).wrapping_add(product(at + 4))).wrapping_add(product(at + 8).wrapping_add(product(at + 12)))
        };
        let sum = (four(0).wrapping_add(four(1))).wrapping_add(four(2).wrapping_add(four(3)));
        BlockHash(self.0.wrapping_mul(CHAIN_POWERS[0]).wrapping_add(sum))
    }

    /// [`descendant`](Self::descendant) of as many blocks as have a power: a sum of products that do not wait for one another.
    #[inline]
    pub(super) fn after_stride(self, contents: &[ContentHash]) -> BlockHash {
        let powers = &CHAIN_POWERS[CHAIN_STRIDE - contents.len()..];
        let products = contents.iter().zip(&powers[1..]).map(|(content, power)| content.0.wrapping_mul(*power));
        BlockHash(products.fold(self.0.wrapping_mul(powers[0]), u64::wrapping_add))
    }
}

/// An engine's own name for a block: opaque, scoped to the instance that said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EngineHash(pub u64);

/// What must be equal, besides tokens, for a block to be shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Namespace<'a> {
    /// The served model's name.
    pub model: &'a str,
    /// The LoRA adapter's name, if one is used.
    pub lora: Option<&'a str>,
    /// The tenant's cache salt, if one is given.
    pub cache_salt: Option<&'a str>,
}

impl<'a> Namespace<'a> {
    /// The plain namespace of `model`: no adapter, no salt.
    pub const fn of_model(model: &'a str) -> Self {
        Namespace { model, lora: None, cache_salt: None }
    }
}

const ROOT_SEED: u64 = 0xd1b5_4a32_d192_ed03;
/// What the chain multiplies by: odd, so that nothing is lost, and with `K - 1` not divisible by 4, so that little is lost
/// where two blocks change places.
const CHAIN: u64 = 0xd6e8_feb8_6659_fd93;
const CHAIN_STRIDE: usize = 16;
/// `CHAIN` to the power of 16, 15, … 0.
const CHAIN_POWERS: [u64; CHAIN_STRIDE + 1] = {
    let mut powers = [1_u64; CHAIN_STRIDE + 1];
    let mut at = CHAIN_STRIDE;
    while at > 0 {
        powers[at - 1] = powers[at].wrapping_mul(CHAIN);
        at -= 1;
    }
    powers
};
const LEFT: u64 = 0xa076_1d64_78bd_642f;
const RIGHT: u64 = 0xe703_7ed1_a0b4_28db;

/// A 64 × 64 → 128 bit multiply folded to 64 bits: the mixing step of the wyhash family. Not symmetric in its arguments.
/// Adding `right` keeps the result depending on it even where the left factor happens to be zero.
#[inline]
fn fold(left: u64, right: u64) -> u64 {
    let product = u128::from(left ^ LEFT) * u128::from(right ^ RIGHT);
    ((product as u64) ^ ((product >> 64) as u64)).wrapping_add(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_sizes_are_powers_of_two_up_to_512() {
        let allowed: Vec<u32> = (0..=1024).filter(|&tokens| BlockSize::new(tokens).is_ok()).collect();
        assert_eq!(allowed, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]);
        assert_eq!(BlockSize::new(24).unwrap_err().to_string(), "block size 24 is not a power of two from 1 to 512");
    }

    #[test]
    fn the_last_token_is_never_reusable() {
        let sixteen = BlockSize::DEFAULT;
        let reusable: Vec<u32> = [0, 1, 16, 17, 32, 33].map(|tokens| sixteen.reusable_blocks(tokens)).to_vec();
        assert_eq!(reusable, [0, 0, 0, 1, 1, 2]);
    }

    #[test]
    fn every_part_of_a_namespace_separates_chains() {
        let plain = Namespace::of_model("m");
        let namespaces = [
            plain,
            Namespace::of_model("n"),
            Namespace { lora: Some("a"), ..plain },
            Namespace { lora: Some(""), ..plain },
            Namespace { cache_salt: Some("a"), ..plain },
            Namespace { lora: Some("a"), cache_salt: Some("a"), ..plain },
        ];
        let mut roots: Vec<BlockHash> = namespaces.iter().map(|n| BlockHash::root(n, BlockSize::DEFAULT, 7)).collect();
        roots.push(BlockHash::root(&plain, BlockSize(32), 7));
        roots.push(BlockHash::root(&plain, BlockSize::DEFAULT, 8));
        let distinct: std::collections::HashSet<_> = roots.iter().collect();
        assert_eq!(distinct.len(), roots.len());
    }

    #[test]
    fn equal_content_after_different_parents_is_a_different_block() {
        let root = BlockHash::root(&Namespace::of_model("m"), BlockSize::DEFAULT, 0);
        let (a, b) = (ContentHash::of_tokens(&[1; 16]), ContentHash::of_tokens(&[2; 16]));
        assert_ne!(root.child(a).child(b), root.child(b).child(b));
        assert_ne!(root.child(a).child(b), root.child(b).child(a));
        assert_eq!(root.child(a).child(b), root.child(a).child(b));
    }

    #[test]
    fn a_descendant_is_the_child_of_a_child() {
        let root = BlockHash::root(&Namespace::of_model("m"), BlockSize::DEFAULT, 0);
        let contents: Vec<ContentHash> = (0..100).map(|block| ContentHash::of_tokens(&[block; 16])).collect();
        for len in 0..contents.len() {
            let one_by_one = contents[..len].iter().fold(root, |hash, &content| hash.child(content));
            assert_eq!(root.descendant(&contents[..len]), one_by_one, "{len} blocks");
        }
    }
}
